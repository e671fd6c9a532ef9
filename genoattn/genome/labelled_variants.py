"""Variants with a label each, read from the INFO column of a VCF or from a table."""

import csv
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from genoattn.errors import UserError, did_you_mean, shorten
from genoattn.genome.input_files import bounded_lines, open_text
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Mutation
from genoattn.genome.record_names import unknown_contig
from genoattn.genome.regions import is_number
from genoattn.genome.sequence_store import Genome
from genoattn.genome.vcf import Variant, read_info, read_variants, to_mutation

COLUMNS = ("chrom", "pos", "ref", "alt")


class LabelledVariant(NamedTuple):
    """A mutation of the record with that number, and the number of its class."""

    record: int
    mutation: Mutation
    label: int


def read_labelled(
    path: Path,
    label: str,
    classes: Mapping[str, Sequence[str]],
    genome: Genome,
    max_length: int,
    vcf_filter: str | None = None,
) -> tuple[list[LabelledVariant], dict[str, int]]:
    """The labelled variants of a file in its order, and the number of skipped rows by reason; each row is in one.

    The file is a VCF with the INFO field `label`, or a tab-separated table (`.tsv`, `.txt`, `.tab`) with the columns
    chrom, pos (1-based), ref, alt and `label`; plain or gzip. `classes` names the labels of each class; variants with
    another label, or with an allele of more than `max_length` bases, are skipped, as are the records of a VCF that
    `vcf_filter` leaves out (see `read_variants`). Raises UserError if a line is
    malformed or a REF is not what the genome holds.
    """
    class_of = {value: number for number, values in enumerate(classes.values()) for value in values}
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    if not path.is_file():
        raise UserError(f"task.file={path} does not exist")
    labelled: list[LabelledVariant] = []
    skipped: Counter[str] = Counter()
    is_table = path.name.lower().removesuffix(".gz").endswith((".tsv", ".txt", ".tab"))
    rows = _from_table(path, label, lengths) if is_table else _from_vcf(path, label, lengths, skipped, vcf_filter)
    for variant, value in rows:
        if value not in class_of:
            skipped["without a label" if value is None else f"labelled {shorten(value)}"] += 1
            continue
        if max(len(variant.reference), len(variant.alternate)) > max_length:
            skipped[f"longer than {max_length} bases"] += 1
            continue
        record = genome.index(variant.contig)
        bases = genome.fetch(record, variant.start, variant.start + len(variant.reference)).tobytes()
        labelled.append(LabelledVariant(record, to_mutation(variant, bases, path), class_of[value]))
    return labelled, dict(skipped)


def _from_vcf(
    path: Path, label: str, lengths: Mapping[str, int], skipped: Counter[str], vcf_filter: str | None
) -> Iterator[tuple[Variant, str | None]]:
    values, variants = read_info(path, label), read_variants(path, lengths, vcf_filter)
    skipped.update(variants.skipped)
    for of_contig in variants.by_contig.values():
        yield from ((variant, values[variant.record - 1]) for variant in of_contig)


def _from_table(path: Path, label: str, lengths: Mapping[str, int]) -> Iterator[tuple[Variant, str | None]]:
    # Bytes that are not text become letters that are not bases, which the sentences below place. A quote is a letter
    # like any other: csv's quoting would swallow the rows up to the next one.
    with open_text(path, "utf-8", "replace") as text:
        rows = csv.DictReader(bounded_lines(text, path), delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            columns = rows.fieldnames or []
            for column in (*COLUMNS, label):
                if column not in columns:
                    raise UserError(f"{path} has no column {column!r}{did_you_mean(column, map(shorten, columns))}")
                if columns.count(column) > 1:
                    raise UserError(f"{path} has {columns.count(column)} columns {column!r}; expected one")
            for row in rows:
                place = f"{path}, line {rows.line_num}"
                yield _variant_of_row(row, place, rows.line_num, lengths), row[label] or None
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.reader.line_num}: {error}") from None


def _variant_of_row(row: Mapping[str, str], place: str, line: int, lengths: Mapping[str, int]) -> Variant:
    contig, reference, alternate = row["chrom"] or "", (row["ref"] or "").upper(), (row["alt"] or "").upper()
    if contig not in lengths:
        raise unknown_contig(place, contig, lengths)
    position = row["pos"] or ""
    if not is_number(position) or not 1 <= int(position) <= lengths[contig] - len(reference) + 1:
        raise UserError(f"{place}: pos must lie within 1 and {lengths[contig]}, got '{shorten(position)}'")
    for column, letters in (("ref", reference), ("alt", alternate)):
        if not letters or set(letters) - set("ACGTN"):
            raise UserError(f"{place}: {column} must be bases (A, C, G, T, N), got '{shorten(row[column] or '')}'")
    if reference == alternate:
        raise UserError(f"{place}: ref and alt are both {shorten(reference)}")
    return Variant(contig, int(position) - 1, reference, alternate, line)


def in_intervals(variants: Sequence[LabelledVariant], intervals: Sequence[Interval]) -> tuple[LabelledVariant, ...]:
    """The variants whose first base lies in one of the intervals, which do not overlap."""
    ordered = sorted(intervals)

    def covered(variant: LabelledVariant) -> bool:
        place = (variant.record, variant.mutation.start)
        number = bisect_right(ordered, place, key=lambda interval: interval[:2]) - 1
        return number >= 0 and ordered[number].record == variant.record and place[1] < ordered[number].stop

    return tuple(variant for variant in variants if covered(variant))
