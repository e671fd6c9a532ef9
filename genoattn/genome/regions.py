"""Regions of a genome that a user gives: BED or GFF3, plain or gzip."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from genoattn.errors import UserError, did_you_mean, shorten
from genoattn.files import path_and_type
from genoattn.genome.gff3 import read_features
from genoattn.genome.input_files import bounded_lines, is_number, open_text
from genoattn.genome.intervals import Interval
from genoattn.genome.record_names import unknown_contig
from genoattn.genome.sequence_store import Genome

_GFF = re.compile(r".*\.gff3?(\.b?gz)?", re.IGNORECASE)


class RegionFile(NamedTuple):
    """The intervals of a file in its order, and the number of its other lines by kind; blank lines do not count."""

    path: Path
    intervals: list[Interval]
    names: list[str]
    """Column 4 of a BED, type of a feature of a GFF3; "" without one."""
    skipped: dict[str, int]


def read_regions(file: str, genome: Genome, setting: str) -> RegionFile:
    """Read a BED (0-based, half-open) or, if its name ends in .gff or .gff3, a GFF3 (1-based, both ends included).

    Comments, the lines of a BED that begin with the word `track` or `browser`, and the sequences of a GFF3 are left
    out. A feature beyond the end of a circular record goes on at its beginning, as GFF3 defines it.

    Args:
        file: The file, plain or gzip; `genes.gff3:CDS` is the features of one type.
        genome: The genome.
        setting: The name of the setting that names the file, for messages.

    Raises:
        UserError: There is no such file or no feature of this type, or a line is no interval of the genome.
    """
    path, kind = path_and_type(file)
    if not path.is_file():
        raise UserError(f"{setting}={path} does not exist")
    gff = bool(_GFF.fullmatch(path.name))
    if kind and not gff:
        raise UserError(f"{setting}={path}:{shorten(kind)} names a type of features; only a GFF3 has them (.gff3)")
    skipped, intervals, names = Counter[str](), list[Interval](), list[str]()
    for number, name, start, stop in (_gff_lines if gff else _bed_lines)(path, genome, skipped):
        if kind and name != kind:
            skipped[f"of type {name}"] += 1
            continue
        intervals.append(Interval(number, start, stop))
        names.append(name)
    if kind and not intervals:
        types = [text.removeprefix("of type ") for text in skipped if text.startswith("of type ")]
        raise UserError(f"{path} has no feature of the type {shorten(kind)}{did_you_mean(kind, map(shorten, types))}")
    return RegionFile(path, intervals, names, dict(skipped))


def _bed_lines(path: Path, genome: Genome, skipped: Counter[str]) -> Iterator[tuple[int, str, int, int]]:
    """Record, name, start and stop of each line of a BED."""
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    with open_text(path, "utf-8", "replace") as text:
        for number, line in enumerate(bounded_lines(text, path), 1):
            place, words = f"{path}, line {number}", line.split()
            fields = line.rstrip("\r\n").split("\t") if "\t" in line else words
            if not words:
                continue
            if line.startswith("#"):
                skipped["comment"] += 1
            elif words[0] in ("track", "browser") and words[0] not in lengths:
                skipped[f"'{words[0]}' line"] += 1
            elif len(fields) < 3 or not (is_number(fields[1]) and is_number(fields[2])):
                raise UserError(f"{place}: expected a name, a start and an end, got '{shorten(line.rstrip())}'")
            elif fields[0] not in lengths:
                raise unknown_contig(place, fields[0], lengths)
            else:
                start, stop = int(fields[1]), int(fields[2])
                if not start < stop <= lengths[fields[0]]:
                    ends = f"0 ≤ start < end ≤ {lengths[fields[0]]}"
                    raise UserError(f"{place}: expected {ends}, got {start} and {stop}")
                yield genome.index(fields[0]), (fields[3].strip() if len(fields) > 3 else ""), start, stop


def _gff_lines(path: Path, genome: Genome, skipped: Counter[str]) -> Iterator[tuple[int, str, int, int]]:
    """Record, type, start (0-based) and stop of each feature of a GFF3."""
    for feature in read_features(path, genome, skipped):
        length = genome.lengths[feature.record]
        yield feature.record, feature.kind, feature.start, min(feature.stop, length)
        if feature.stop > length:
            yield feature.record, feature.kind, 0, feature.stop - length
