"""Calls of a detector on two assemblies in numbers: how many of each kind, and how many of them a VCF confirms."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table
from genoattn.genome.assembly_placement import Block
from genoattn.genome.calls import MutationCall, call_of
from genoattn.genome.mutations import LONG, apply_mutations
from genoattn.genome.vcf import read_variants, to_mutations, vcf_stem
from genoattn.genome.vcf_writer import Names

KINDS = ("snv", "insertion", "deletion", "long insertion", "long deletion")
"""Kinds that are counted; the bases of an MNV count as SNVs."""


class Alleles(NamedTuple):
    """The alleles of a sample by kind, each with its place, so that two sets can be compared."""

    by_kind: Mapping[str, frozenset[Hashable]]

    def count(self, kind: str) -> int:
        """The number of alleles of a kind."""
        return len(self.by_kind.get(kind, frozenset()))

    def shared(self, other: "Alleles", kind: str) -> int:
        """The number of alleles of a kind that two sets have in common."""
        return len(self.by_kind.get(kind, frozenset()) & other.by_kind.get(kind, frozenset()))


def alleles_of(calls: Iterable[MutationCall]) -> Alleles:
    """The alleles of calls; each base of an MNV is an SNV, indels of more than `LONG` bases are kinds of their own."""
    sets: dict[str, set[Hashable]] = {kind: set() for kind in KINDS}
    for call in calls:
        if call.kind in ("snv", "mnv"):
            bases = zip(call.reference, call.alternate, strict=True)
            sets["snv"] |= {(call.record, call.position + n, *pair) for n, pair in enumerate(bases)}
        else:
            long = abs(len(call.reference) - len(call.alternate)) > LONG
            sets[f"long {call.kind}" if long else call.kind].add(call[:4])
    return Alleles({kind: frozenset(alleles) for kind, alleles in sets.items()})


class Truth(NamedTuple):
    """The mutations of a VCF as calls: those within blocks, and the number of those outside, by kind."""

    name: str
    inside: Alleles
    outside: Counter[str]


def read_truth(
    path: Path, names: Names, records: Sequence[UInt8[np.ndarray, "record"]], blocks: Sequence[Block]
) -> Truth:
    """Read the true mutations of a sample, left-aligned as calls are.

    Args:
        path: A VCF.
        names: The records of the reference.
        records: Their bases.
        blocks: The parts of the reference that were tested.

    Raises:
        UserError: The VCF is damaged or of another reference.
    """
    variants = read_variants(path, dict(zip(names.records, names.lengths, strict=True)))
    inside: list[MutationCall] = []
    outside: list[MutationCall] = []
    for number, (name, record) in enumerate(zip(names.records, records, strict=True)):
        tested = np.zeros(len(record) + 1, np.bool_)
        for block in blocks:
            if block.record == number:
                tested[block.start : block.stop] = True
        sample = apply_mutations(record, to_mutations(variants.by_contig[name], record, name, path).mutations)
        whole = Block(number, 0, len(record), 0, 0, len(sample.bases), False, (), 0)
        for event in sample.events:
            inserted = sample.bases[event.start : event.stop if event.kind != "deletion" else event.start]
            call = call_of(whole, event, record, inserted, 1.0)
            (inside if tested[event.reference] else outside).append(call)
    missed = alleles_of(outside)
    stem = vcf_stem(path)
    return Truth(stem, alleles_of(inside), Counter({kind: missed.count(kind) for kind in KINDS}))


def calls_table(differences: Alleles, called: Alleles) -> Table:
    """Numbers of differences of the alignment and of those that the model calls, by kind."""
    rows = [[kind, f"{differences.count(kind):,}", f"{called.count(kind):,}"] for kind in KINDS]
    return Table("Mutations", ("kind", "differences of the alignment", "called by the model"), rows)


def truth_table(truth: Truth, candidates: Mapping[str, Alleles]) -> Table:
    """Precision and recall of sets of alleles against a VCF, within the blocks."""
    rows = []
    for name, found in candidates.items():
        for kind in KINDS:
            precision, recall, f1 = _quality(truth, found, kind)
            counts = [truth.inside.count(kind), found.count(kind), found.shared(truth.inside, kind)]
            figures = [f"{value:.3f}" for value in (precision, recall, f1)]
            rows.append([name, kind, *(f"{count:,}" for count in counts), *figures])
    columns = ("", "kind", "in the VCF", "called", "both", "precision", "recall", "F1")
    outside = sum(truth.outside.values())
    note = f"{outside:,} mutations of {truth.name} lie where the sample has no aligned bases, and are not counted."
    return Table(f"Against {truth.name}", columns, rows, texts=2, notes=[note] if outside else [])


def calls_metrics(differences: Alleles, called: Alleles, truth: Truth | None) -> Metrics:
    """The numbers of both tables; the candidate "aligner" calls every difference of the alignment."""
    entries: dict[MetricKey, int | float] = {}
    for candidate, found in {"model": called, "aligner": differences}.items():
        for kind in KINDS:
            subset = kind.replace(" ", "_")
            entries[MetricKey(candidate, "sample", subset, "calls")] = found.count(kind)
            if truth is not None:
                values = zip(("precision", "recall", "f1"), _quality(truth, found, kind), strict=True)
                entries |= {MetricKey(candidate, truth.name, subset, name): value for name, value in values}
    return Metrics(entries)


def _quality(truth: Truth, found: Alleles, kind: str) -> tuple[float, float, float]:
    """Precision, recall and F1; NaN where there is nothing to divide by."""
    both, called, true = found.shared(truth.inside, kind), found.count(kind), truth.inside.count(kind)
    nan = float("nan")
    return (
        both / called if called else nan,
        both / true if true else nan,
        2 * both / (called + true) if called + true else nan,
    )
