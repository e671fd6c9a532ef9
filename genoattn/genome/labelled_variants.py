"""Variants with a label each, from a VCF's INFO or a table, and genes of a BED by which they can be split."""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from genoattn.errors import UserError, hint
from genoattn.genome.intervals import Interval, _is_number
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import Genome
from genoattn.genome.vcf import Variant, info_of, read_variants, to_mutation

COLUMNS = ("chrom", "pos", "ref", "alt")


class LabelledVariant(NamedTuple):
    """A change of one record of a genome, and the number of its class."""

    record: int
    mutation: Mutation
    label: int


def read_labelled(
    path: Path, label: str, classes: Mapping[str, Sequence[str]], genome: Genome, max_length: int
) -> tuple[list[LabelledVariant], dict[str, int]]:
    """The variants of a VCF or of a table with a header (tab-separated: chrom, pos from 1, ref, alt, the label; plain
    or gzip), and how many were passed over, by reason, such as alleles of more than `longest` bases.

    Raises UserError where a REF is not what the genome holds.
    """
    numbers = {value: number for number, values in enumerate(classes.values()) for value in values}
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    if not path.is_file():
        raise UserError(f"task.file={path} does not exist")
    found: list[LabelledVariant] = []
    passed_over: Counter[str] = Counter()
    table = path.name.lower().removesuffix(".gz").endswith((".tsv", ".txt", ".tab"))
    read = _from_table(path, label, lengths) if table else _from_vcf(path, label, lengths, passed_over)
    for variant, value in read:
        if value not in numbers:
            passed_over["without a label" if value is None else f"labelled {value}"] += 1
            continue
        if max(len(variant.reference), len(variant.alternate)) > max_length:
            passed_over[f"longer than {max_length} bases"] += 1
            continue
        record = genome.index(variant.contig)
        held = genome.fetch(record, variant.start, variant.start + len(variant.reference)).tobytes()
        found.append(LabelledVariant(record, to_mutation(variant, held, path), numbers[value]))
    return found, dict(passed_over)


def _from_vcf(
    path: Path, label: str, lengths: Mapping[str, int], passed_over: Counter[str]
) -> Iterator[tuple[Variant, str | None]]:
    values, read = info_of(path, label), read_variants(path, lengths)
    passed_over.update(read.skipped)
    for variants in read.by_contig.values():
        yield from ((variant, values[variant.record - 1]) for variant in variants)


def _from_table(path: Path, label: str, lengths: Mapping[str, int]) -> Iterator[tuple[Variant, str | None]]:
    packed = path.suffix.lower() == ".gz"
    # what is no text becomes letters that are no bases, which the sentences below place
    with (gzip.open if packed else open)(path, "rt", newline="", encoding="utf-8", errors="replace") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        there = rows.fieldnames or []
        for column in (*COLUMNS, label):
            if column not in there:
                raise UserError(f"{path} has no column {column!r}{hint(column, there)}; there are {', '.join(there)}")
        for row in rows:
            place = f"{path}, line {rows.line_num}"
            contig, reference, alternate = row["chrom"], (row["ref"] or "").upper(), (row["alt"] or "").upper()
            if contig not in lengths:
                raise UserError(f"{place}: the FASTA has no contig {contig!r}{hint(contig or '', lengths)}")
            if not _is_number(row["pos"] or "") or not 1 <= int(row["pos"]) <= lengths[contig] - len(reference) + 1:
                raise UserError(f"{place}: pos must lie within 1 and {lengths[contig]}, got {row['pos']!r}")
            for column, letters in (("ref", reference), ("alt", alternate)):
                if not letters or set(letters) - set("ACGTN"):
                    raise UserError(f"{place}: {column} must be bases (A, C, G, T, N), got {row[column]!r}")
            if reference == alternate:
                raise UserError(f"{place}: ref and alt are both {reference}")
            value = row[label] or None
            yield Variant(contig, int(row["pos"]) - 1, reference, alternate, rows.line_num), value


def in_intervals(found: Sequence[LabelledVariant], intervals: Sequence[Interval]) -> tuple[LabelledVariant, ...]:
    """Those whose first base lies in one of the intervals."""
    by_record: dict[int, list[Interval]] = {}
    for interval in intervals:
        by_record.setdefault(interval.record, []).append(interval)
    return tuple(
        one
        for one in found
        if any(part.start <= one.mutation.start < part.stop for part in by_record.get(one.record, []))
    )
