"""Intervals of a genome, and genes of a BED file divided into training, validation and test."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genoattn.errors import UserError, shorten
from genoattn.genome.input_files import bounded_lines, open_text, unknown_contig
from genoattn.genome.sequence_store import Genome

SHARES = (0.8, 0.9)
"""Cumulative shares of the genes of a BED: training ends at the first, validation at the second."""


class Interval(NamedTuple):
    """Bases [start, stop) (0-based, half-open) of the record with that number."""

    record: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bases in the interval."""
        return self.stop - self.start


class BedFile(NamedTuple):
    """The intervals of a BED file in its order, and the number of its other lines by kind; blank lines do not count."""

    path: Path
    intervals: list[Interval]
    skipped: dict[str, int]


def is_number(text: str) -> bool:
    """True for decimal digits only, at most 18 of them: more are no position, and Python refuses to read thousands."""
    return len(text) <= 18 and text.isascii() and text.isdigit()


def split_genes(bed: BedFile, seed: int) -> tuple[list[Interval], list[Interval], list[Interval]]:
    """Divide the genes of a BED file at random into training, validation and test.

    Genes that overlap stay together. Raises UserError if there are too few genes.
    """
    genes = _merge_overlapping(bed.intervals)
    order = np.random.default_rng(seed).permutation(len(genes)).tolist()
    first, second = (round(share * len(genes)) for share in SHARES)
    if not 0 < first < second < len(genes):
        raise UserError(f"{bed.path} holds {len(genes)} separate genes; training, validation and test need ten or more")
    train, validation, test = (
        sorted(genes[number] for number in numbers) for numbers in (order[:first], order[first:second], order[second:])
    )
    return train, validation, test


def read_bed(path: Path, genome: Genome, setting: str = "task.split_bed") -> BedFile:
    """Read a BED file (0-based, half-open), plain or gzip; raises UserError at a line that is no interval of a genome.

    Comments and lines that begin with the word `track` or `browser` are skipped and counted.
    """
    if not path.is_file():
        raise UserError(f"{setting}={path} does not exist")
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    intervals: list[Interval] = []
    skipped: Counter[str] = Counter()
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
                intervals.append(Interval(genome.index(fields[0]), start, stop))
    return BedFile(path, intervals, dict(skipped))


def _merge_overlapping(intervals: Sequence[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for interval in sorted(intervals):
        if merged and merged[-1].record == interval.record and interval.start < merged[-1].stop:
            merged[-1] = merged[-1]._replace(stop=max(merged[-1].stop, interval.stop))
        else:
            merged.append(interval)
    return merged
