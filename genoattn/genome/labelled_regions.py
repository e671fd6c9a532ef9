"""Regions with a label each: intervals of a genome from BED and csv, or sequences from FASTA, tables and folders."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from genoattn.errors import UserError, did_you_mean, shorten
from genoattn.genome.alphabet import SOFT, encode_bases
from genoattn.genome.fasta import read_fasta
from genoattn.genome.input_files import bounded_lines, is_number, open_text
from genoattn.genome.intervals import Interval
from genoattn.genome.record_names import unknown_contig
from genoattn.genome.sequence_store import Genome

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that a file or a folder of that name (without its ending), or a word in a column `split`, belongs to."""

FASTA_ENDINGS = (".fa", ".fasta", ".fna")
TABLE_ENDINGS = (".tsv", ".csv", ".tab")
INTERVAL_COLUMNS = ("region", "start", "end")
"""The columns of a table of intervals, as in Genomic Benchmarks; `strand` may follow."""


class LabelledRegion(NamedTuple):
    """A region of a genome, or a sequence of its own, with its label.

    Attributes:
        label: The label as it is written.
        split: "train", "validation" or "test" if the file fixes it, else "".
        place: The region (0-based, half-open); None for a sequence of its own.
        reverse: True if the region is read on the reverse strand.
        bases: The codes of the sequence as bytes; empty for a region.
    """

    label: str
    split: str
    place: Interval | None = None
    reverse: bool = False
    bases: bytes = b""


def read_regions(path: Path, label: str, genome: Genome) -> list[LabelledRegion]:
    """The labelled regions of a file or folder in its order; files may be gzip.

    - `.bed`: regions of the genome (0-based, half-open); the label is the fourth column, the strand the sixth.
    - `.fa`, `.fasta`, `.fna`: sequences; the label is what follows the last `|` in the name, as in the tasks of the
      Nucleotide Transformer (Dalla-Torre et al. 2024).
    - `.tsv`, `.csv`: sequences in the column `sequence`, or regions in `region` (or `chrom`), `start` (0-based), `end`
      and perhaps `strand`; the label in the column `label`, and perhaps the split in the column `split`.
    - a folder: files of these kinds, or folders, whose names say the split (`train`, `validation`, `test`); in such a
      folder each table and each folder of `.txt` files is a class, as in Genomic Benchmarks (Grešová et al. 2023).

    Args:
        path: The file or folder.
        label: The column of a table that holds the label.
        genome: The genome that regions belong to.

    Raises:
        UserError: A file is missing or malformed, of another kind, or names another contig.
    """
    if not path.exists():
        raise UserError(f"task.file={path} does not exist")
    regions = [
        region._replace(split=split or region.split)
        for split, name, file in _files(path)
        for region in _read(file, label, name, genome)
    ]
    if not regions:
        raise UserError(f"task.file={path} holds no labelled region")
    return regions


def _files(path: Path) -> Iterator[tuple[str, str, Path]]:
    """The split of each file, the class that its name or folder says, or "" for both, and the file."""
    if path.is_file():
        yield "", "", path
        return
    for entry in sorted(path.iterdir()):
        split = SPLIT_NAMES.get(_stem(entry).lower())
        if split is None:
            continue
        if entry.is_file():
            yield split, "", entry
            continue
        for inside in sorted(entry.iterdir()):
            if inside.is_dir():
                yield from ((split, inside.name, file) for file in sorted(inside.glob("*.txt")))
            elif _ending(inside) in TABLE_ENDINGS:
                yield split, _stem(inside), inside


def _read(file: Path, label: str, name: str, genome: Genome) -> Iterator[LabelledRegion]:
    """The regions of one file; `name` is their class if the file's own name or folder says it."""
    kind = _ending(file)
    if kind == ".txt" and name:
        with open_text(file, "utf-8", "replace") as text:
            yield LabelledRegion(name, "", bases=_codes("".join(text.read().split()), str(file)))
    elif kind in FASTA_ENDINGS:
        for record in read_fasta(file):
            _, mark, own = record.name.rpartition("|")
            if not mark:
                raise UserError(f"{file}, record {shorten(record.name)}: expected a name with its label, as in name|1")
            yield LabelledRegion(own, "", bases=(record.codes & ~SOFT).tobytes())
    elif kind == ".bed":
        yield from _bed_rows(file, genome)
    elif kind in TABLE_ENDINGS:
        yield from _table_rows(file, label, name, genome)
    else:
        known = ", ".join((".bed", *FASTA_ENDINGS, *TABLE_ENDINGS))
        raise UserError(f"task.file={file}: expected a folder, or a file that ends in {known}, perhaps with .gz")


def _bed_rows(file: Path, genome: Genome) -> Iterator[LabelledRegion]:
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    with open_text(file, "utf-8", "replace") as text:
        for number, line in enumerate(bounded_lines(text, file), 1):
            words = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
            if not line.strip() or line.startswith("#") or words[0] in ("track", "browser"):
                continue
            place = f"{file}, line {number}"
            if len(words) < 4 or not words[3]:
                raise UserError(f"{place}: expected chrom, start, end and a label, got '{shorten(line.rstrip())}'")
            strand = words[5] if len(words) > 5 else "+"
            yield LabelledRegion(words[3], "", _interval(words, lengths, genome, place), strand == "-")


def _table_rows(file: Path, label: str, name: str, genome: Genome) -> Iterator[LabelledRegion]:
    lengths, comma = dict(zip(genome.names, genome.lengths, strict=True)), _ending(file) == ".csv"
    quoting = csv.QUOTE_MINIMAL if comma else csv.QUOTE_NONE
    with open_text(file, "utf-8-sig", "replace") as text:
        rows = csv.DictReader(bounded_lines(text, file), delimiter="," if comma else "\t", quoting=quoting)
        columns = list(map(str.strip, rows.fieldnames or []))
        rows.fieldnames = columns
        region = "chrom" if "chrom" in columns else INTERVAL_COLUMNS[0]
        needed = ("sequence",) if "sequence" in columns else (region, *INTERVAL_COLUMNS[1:])
        for column in (*needed, *(() if name else (label,))):
            if column not in columns:
                raise UserError(f"{file} has no column {column!r}{did_you_mean(column, map(shorten, columns))}")
        for row in rows:
            place, own = f"{file}, line {rows.line_num}", name or (row[label] or "").strip()
            split = SPLIT_NAMES.get((row.get("split") or "").strip().lower(), "")
            if not own:
                raise UserError(f"{place}: the column {label!r} is empty")
            if needed == ("sequence",):
                yield LabelledRegion(own, split, bases=_codes((row["sequence"] or "").strip(), place))
            else:
                words = [row[column] or "" for column in needed]
                interval = _interval(words, lengths, genome, place)
                yield LabelledRegion(own, split, interval, row.get("strand") == "-")


def _interval(words: Sequence[str], lengths: Mapping[str, int], genome: Genome, place: str) -> Interval:
    contig, start, stop = words[0], *map(str.strip, words[1:3])
    if contig not in lengths:
        raise unknown_contig(place, contig, lengths)
    if not (is_number(start) and is_number(stop) and int(start) < int(stop) <= lengths[contig]):
        got = f"'{shorten(start)}' and '{shorten(stop)}'"
        raise UserError(f"{place}: expected 0 ≤ start < end ≤ {lengths[contig]}, got {got}")
    return Interval(genome.index(contig), int(start), int(stop))


def _codes(letters: str, place: str) -> bytes:
    if not letters:
        raise UserError(f"{place}: the sequence is empty")
    try:
        return encode_bases(letters).tobytes()
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix
