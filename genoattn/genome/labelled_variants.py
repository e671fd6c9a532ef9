"""Variants with a class, a measured number or both, read from the INFO column of a VCF or from a table."""

import csv
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from genoattn.errors import UserError, did_you_mean, shorten
from genoattn.genome.input_files import bounded_lines, is_number, open_text
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Mutation
from genoattn.genome.record_names import unknown_contig
from genoattn.genome.sequence_store import Genome
from genoattn.genome.vcf import Variant, read_info, read_variants, to_mutation

COLUMNS = ("chrom", "pos", "ref", "alt")


UNLABELLED = -1
"""The label of a variant without a class."""


class LabelledVariant(NamedTuple):
    """A labelled mutation of a record.

    Attributes:
        record: The number of the record.
        mutation: The mutation.
        label: The number of its class; `UNLABELLED` for none.
        score: The number that was measured; NaN for none.
        group: The group that splits and resamples keep whole; "" for none.
        rivals: What the file says in the columns of other predictors, as it is written there.
    """

    record: int
    mutation: Mutation
    label: int
    score: float = math.nan
    group: str = ""
    rivals: tuple[str, ...] = ()


class Beside(NamedTuple):
    """The columns that are read beside the class: names of columns or of INFO fields.

    Attributes:
        score: The measured number; None for none.
        group: The group of a variant or, as an integer, the bases of the stretches of the genome that are groups; None
            for none.
        rivals: Predictions of others.
        by_score: True to keep variants with a number and no class, and to leave out those without a number; False to
            keep variants with a class.
    """

    score: str | None = None
    group: str | int | None = None
    rivals: tuple[str, ...] = ()
    by_score: bool = False


NOTHING_BESIDE = Beside()


def read_labelled(
    path: Path,
    label: str,
    classes: Mapping[str, Sequence[str]],
    genome: Genome,
    max_length: int,
    vcf_filter: str | None = None,
    beside: Beside = NOTHING_BESIDE,
) -> tuple[list[LabelledVariant], dict[str, int]]:
    """The labelled variants of a file in its order, and the number of skipped rows by reason; each row is in one.

    The file is a VCF with the INFO field `label`, or a tab-separated table (`.tsv`, `.txt`, `.tab`) with the columns
    chrom, pos (1-based), ref, alt and `label`; plain or gzip. `classes` names the labels of each class; without classes
    `label` is not read. Skipped are variants with another label (or, if the number is the target, without a number),
    without a group, and with an allele of more than `max_length` bases, and the records of a VCF that `vcf_filter`
    leaves out (see `read_variants`). Raises UserError if a line is malformed or a REF is not what the genome holds.
    """
    class_of = {value: number for number, values in enumerate(classes.values()) for value in values}
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    if not path.is_file():
        raise UserError(f"task.file={path} does not exist")
    labelled: list[LabelledVariant] = []
    skipped: Counter[str] = Counter()
    group = beside.group if isinstance(beside.group, str) else None
    names = [name for name in (label if classes else None, beside.score, group, *beside.rivals) if name is not None]
    is_table = path.name.lower().removesuffix(".gz").endswith((".tsv", ".txt", ".tab"))
    rows = _from_table(path, names, lengths) if is_table else _from_vcf(path, names, lengths, skipped, vcf_filter)
    for variant, values in rows:
        value, score = values.get(label) if classes else None, _number(values.get(beside.score or ""))
        reason = _reason(variant, value, class_of, score, beside, max_length)
        if group is not None and not values[group]:
            reason = reason or "without a group"
        if reason:
            skipped[reason] += 1
            continue
        record = genome.index(variant.contig)
        bases = genome.fetch(record, variant.start, variant.start + len(variant.reference)).tobytes()
        own = (values[group] or "") if group is not None else _stretch(variant, beside.group)
        rivals = tuple(values[name] or "" for name in beside.rivals)
        mutation = to_mutation(variant, bases, path)
        labelled.append(LabelledVariant(record, mutation, class_of.get(value or "", UNLABELLED), score, own, rivals))
    return labelled, dict(skipped)


def _reason(
    variant: Variant, value: str | None, class_of: Mapping[str, int], score: float, beside: Beside, max_length: int
) -> str:
    """The reason why a variant is left out; "" for none."""
    if beside.by_score and math.isnan(score):
        return "without a number"
    if not beside.by_score and value not in class_of:
        return "without a label" if value is None else f"labelled {shorten(value)}"
    if max(len(variant.reference), len(variant.alternate)) > max_length:
        return f"longer than {max_length} bases"
    return ""


def _number(text: str | None) -> float:
    """A finite number; NaN for any other text."""
    try:
        value = float((text or "").replace("_", "x"))  # Python would read 1_0 as ten
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _stretch(variant: Variant, bases: str | int | None) -> str:
    return f"{variant.contig}:{variant.start // bases + 1}" if isinstance(bases, int) else ""


Row: TypeAlias = tuple[Variant, Mapping[str, str | None]]
"""A variant, and the text of each column; None where there is none."""


def _from_vcf(
    path: Path, names: Sequence[str], lengths: Mapping[str, int], skipped: Counter[str], vcf_filter: str | None
) -> Iterator[Row]:
    columns = {name: read_info(path, name) for name in names}
    variants = read_variants(path, lengths, vcf_filter)
    skipped.update(variants.skipped)
    for of_contig in variants.by_contig.values():
        for variant in of_contig:
            yield variant, {name: values[variant.record - 1] for name, values in columns.items()}


def _from_table(path: Path, names: Sequence[str], lengths: Mapping[str, int]) -> Iterator[Row]:
    # Bytes that are not text become letters that are not bases, which the sentences below place. A quote is a letter
    # like any other: csv's quoting would swallow the rows up to the next one.
    with open_text(path, "utf-8", "replace") as text:
        rows = csv.DictReader(bounded_lines(text, path), delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            columns = rows.fieldnames or []
            for column in dict.fromkeys((*COLUMNS, *names)):
                if column not in columns:
                    raise UserError(f"{path} has no column {column!r}{did_you_mean(column, map(shorten, columns))}")
                if columns.count(column) > 1:
                    raise UserError(f"{path} has {columns.count(column)} columns {column!r}; expected one")
            for row in rows:
                place = f"{path}, line {rows.line_num}"
                variant = _variant_of_row(row, place, rows.line_num, lengths)
                yield variant, {name: row[name] or None for name in names}
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
