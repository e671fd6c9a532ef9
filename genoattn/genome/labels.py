"""Variants with a label each, from a VCF's INFO or a table, and genes of a BED by which they can be split."""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genoattn.errors import UserError
from genoattn.genome.mutate import Mutation
from genoattn.genome.regions import Interval
from genoattn.genome.store import Genome
from genoattn.genome.variants import Variant, info_of, read_variants, to_mutation
from genoattn.signature import hint

COLUMNS = ("chrom", "pos", "ref", "alt")
SHARES = (0.8, 0.9)
"""Where among the genes of a BED those for validation begin, and those for the test."""


class Labelled(NamedTuple):
    """A change of one record of a genome, and the number of its class."""

    record: int
    mutation: Mutation
    label: int


def read_labelled(
    path: Path, label: str, classes: Mapping[str, Sequence[str]], genome: Genome, longest: int
) -> tuple[list[Labelled], dict[str, int]]:
    """The variants of a VCF or of a table with a header (tab-separated: chrom, pos from 1, ref, alt, the label; plain
    or gzip), and how many were passed over, by reason, such as alleles of more than `longest` bases.

    Raises UserError where a REF is not what the genome holds.
    """
    numbers = {value: number for number, values in enumerate(classes.values()) for value in values}
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    if not path.is_file():
        raise UserError(f"task.file={path} does not exist")
    found: list[Labelled] = []
    passed_over: Counter[str] = Counter()
    table = path.name.lower().removesuffix(".gz").endswith((".tsv", ".txt", ".tab"))
    read = _from_table(path, label, lengths) if table else _from_vcf(path, label, lengths, passed_over)
    for variant, value in read:
        if value not in numbers:
            passed_over["without a label" if value is None else f"labelled {value}"] += 1
            continue
        if max(len(variant.reference), len(variant.alternate)) > longest:
            passed_over[f"longer than {longest} bases"] += 1
            continue
        record = genome.index(variant.contig)
        held = genome.bases(record, variant.start, variant.start + len(variant.reference)).tobytes()
        found.append(Labelled(record, to_mutation(variant, held, path), numbers[value]))
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


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def within(found: Sequence[Labelled], intervals: Sequence[Interval]) -> tuple[Labelled, ...]:
    """Those whose first base lies in one of the intervals."""
    by_record: dict[int, list[Interval]] = {}
    for interval in intervals:
        by_record.setdefault(interval.record, []).append(interval)
    return tuple(
        one
        for one in found
        if any(part.start <= one.mutation.start < part.stop for part in by_record.get(one.record, []))
    )


def split_genes(path: Path, genome: Genome, seed: int) -> tuple[list[Interval], list[Interval], list[Interval]]:
    """The genes of a BED (0-based, half-open), overlapping ones joined, for training, validation and test by chance."""
    genes = _joined(_bed(path, genome))
    order = np.random.default_rng(seed).permutation(len(genes)).tolist()
    first, second = (round(share * len(genes)) for share in SHARES)
    if not 0 < first < second < len(genes):
        raise UserError(f"{path} holds {len(genes)} separate genes; training, validation and test need ten or more")
    chosen = [sorted(genes[number] for number in part) for part in (order[:first], order[first:second], order[second:])]
    return chosen[0], chosen[1], chosen[2]


def _bed(path: Path, genome: Genome) -> list[Interval]:
    if not path.is_file():
        raise UserError(f"task.split_bed={path} does not exist")
    found = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) < 3 or not (_is_number(fields[1]) and _is_number(fields[2])):
            raise UserError(f"{path}, line {number}: expected a name, a start and an end, got {line!r}")
        if fields[0] not in genome.names:
            raise UserError(
                f"{path}, line {number}: the FASTA has no contig {fields[0]!r}{hint(fields[0], genome.names)}"
            )
        record, start, stop = genome.index(fields[0]), int(fields[1]), int(fields[2])
        if not start < stop <= genome.lengths[record]:
            raise UserError(
                f"{path}, line {number}: expected 0 ≤ start < end ≤ {genome.lengths[record]}, got {start} and {stop}"
            )
        found.append(Interval(record, start, stop))
    return found


def _joined(genes: Sequence[Interval]) -> list[Interval]:
    whole: list[Interval] = []
    for gene in sorted(genes):
        if whole and whole[-1].record == gene.record and gene.start < whole[-1].stop:
            whole[-1] = whole[-1]._replace(stop=max(whole[-1].stop, gene.stop))
        else:
            whole.append(gene)
    return whole
