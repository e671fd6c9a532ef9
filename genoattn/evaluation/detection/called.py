"""Calls of a detector on two assemblies in numbers: how many of each kind, and how many of them a VCF confirms."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from genoattn.evaluation.detection.haplotypes import confirm
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table
from genoattn.genome.assembly_placement import Block
from genoattn.genome.calls import MutationCall, call_of
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import LONG, apply_mutations
from genoattn.genome.vcf import read_variants, to_mutations, vcf_stem
from genoattn.genome.vcf_writer import Names

VERY_LONG = 50
"""An indel of more bases is counted as a kind of its own."""

SIZES = ("", f" {LONG + 1} to {VERY_LONG}", f" over {VERY_LONG}")
"""Ends of the names of indels, by their bases."""

KINDS = ("snv", *(f"{kind}{size}" for size in SIZES for kind in ("insertion", "deletion")))
"""Kinds that are counted; the bases of an MNV count as SNVs, and an indel without a size has up to `LONG` bases."""


def kind_of(call: MutationCall) -> str:
    """The kind of KINDS that a call counts as."""
    if call.kind in ("snv", "mnv"):
        return "snv"
    size = abs(len(call.reference) - len(call.alternate))
    return f"{call.kind}{SIZES[(size > LONG) + (size > VERY_LONG)]}"


def count_kinds(calls: Sequence[MutationCall]) -> Counter[str]:
    """The number of calls of each kind of KINDS."""
    total: Counter[str] = Counter()
    for call in calls:
        total[kind_of(call)] += len(call.reference) if call.kind == "mnv" else 1
    return total


class Truth(NamedTuple):
    """The mutations of a VCF as calls, and where it says something."""

    name: str
    mutations: list[MutationCall]
    counted: list[bool]
    """True for a mutation that lies within a block and, if they are known, within the regions of the truth."""
    regions: list[Bool[np.ndarray, "record"]] | None
    """For each record the bases that the truth speaks of (None: all)."""


class Quality(NamedTuple):
    """Numbers of mutations of a kind: in the truth, called, and those of each that the other confirms."""

    true: int
    called: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the calls that are confirmed; NaN without calls."""
        return self.right / self.called if self.called else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true mutations that were called; NaN without any."""
        return self.found / self.true if self.true else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing was right, NaN where one of them is not known."""
        if not self.true or not self.called:
            return float("nan")
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def read_truth(
    path: Path,
    names: Names,
    records: Sequence[UInt8[np.ndarray, "record"]],
    blocks: Sequence[Block],
    regions: Sequence[Interval] | None = None,
) -> Truth:
    """Read the true mutations of a sample, left-aligned as calls are.

    Args:
        path: A VCF.
        names: The records of the reference.
        records: Their bases.
        blocks: The parts of the reference that were tested.
        regions: The parts that the VCF speaks of, such as those its own alignment covers; None: everything.

    Raises:
        UserError: The VCF is damaged or of another reference.
    """
    variants = read_variants(path, dict(zip(names.records, names.lengths, strict=True)))
    tested = _covered(records, [Interval(*block[:3]) for block in blocks])
    known = None if regions is None else _covered(records, regions)
    mutations: list[MutationCall] = []
    for number, (name, record) in enumerate(zip(names.records, records, strict=True)):
        sample = apply_mutations(record, to_mutations(variants.by_contig[name], record, name, path).mutations)
        whole = Block(number, 0, len(record), 0, 0, len(sample.bases), False, (), 0)
        for event in sample.events:
            inserted = sample.bases[event.start : event.stop if event.kind != "deletion" else event.start]
            mutations.append(call_of(whole, event, record, inserted, 1.0))
    counted = [_within(call, tested) and (known is None or _within(call, known)) for call in mutations]
    return Truth(vcf_stem(path), mutations, counted, known)


def compare_with_truth(
    truth: Truth, calls: Sequence[MutationCall], records: Sequence[UInt8[np.ndarray, "record"]]
) -> dict[str, Quality]:
    """The quality of calls for each kind; a call counts where the truth says something."""
    confirmed = confirm(calls, truth.mutations, records)
    kept = [truth.regions is None or _within(call, truth.regions) for call in calls]
    true, called = list(compress(truth.mutations, truth.counted)), list(compress(calls, kept))
    counts = [count_kinds(true), count_kinds(called)]
    counts.append(count_kinds(list(compress(true, compress(confirmed.true, truth.counted)))))
    counts.append(count_kinds(list(compress(called, compress(confirmed.called, kept)))))
    return {kind: Quality(*(count[kind] for count in counts)) for kind in KINDS}


def calls_table(differences: Sequence[MutationCall], called: Sequence[MutationCall]) -> Table:
    """Numbers of differences of the alignment and of those that the model calls, by kind."""
    all_counts, counts = count_kinds(differences), count_kinds(called)
    rows = [[kind, f"{all_counts[kind]:,}", f"{counts[kind]:,}"] for kind in KINDS]
    return Table("Mutations", ("kind", "differences of the alignment", "called by the model"), rows)


def truth_table(truth: Truth, qualities: Mapping[str, Mapping[str, Quality]]) -> Table:
    """Precision and recall of sets of calls against a VCF, within the blocks."""
    rows = [
        [name, kind, *(f"{count:,}" for count in quality), *(f"{share:.3f}" for share in shares)]
        for name, by_kind in qualities.items()
        for kind, quality in by_kind.items()
        for shares in [(quality.precision, quality.recall, quality.f1)]
    ]
    columns = ("", "kind", "in the VCF", "called", "found", "confirmed", "precision", "recall", "F1")
    outside = len(truth.counted) - sum(truth.counted)
    where = "where the sample has no aligned bases" + (" or outside of truth_regions" if truth.regions else "")
    note = f"{outside:,} mutations of {truth.name} lie {where}, and are not counted."
    return Table(f"Against {truth.name}", columns, rows, texts=2, notes=[note] if outside else [])


def calls_metrics(
    counts: Mapping[str, Counter[str]], truth: Truth | None, qualities: Mapping[str, Mapping[str, Quality]]
) -> Metrics:
    """The numbers of both tables by candidate, such as "model"."""
    entries: dict[MetricKey, int | float] = {}
    for candidate, count in counts.items():
        for kind in KINDS:
            subset = kind.replace(" ", "_")
            entries[MetricKey(candidate, "sample", subset, "calls")] = count[kind]
            if truth is not None:
                quality = qualities[candidate][kind]
                values: dict[str, int | float] = {"events": quality.true, "precision": quality.precision}
                values |= {"recall": quality.recall, "f1": quality.f1}
                entries |= {MetricKey(candidate, truth.name, subset, name): value for name, value in values.items()}
    return Metrics(entries)


def _covered(records: Sequence[np.ndarray], intervals: Sequence[Interval]) -> list[Bool[np.ndarray, "record"]]:
    covered = [np.zeros(len(record), np.bool_) for record in records]
    for number, start, stop in intervals:
        covered[number][start:stop] = True
    return covered


def _within(call: MutationCall, covered: Sequence[Bool[np.ndarray, "record"]]) -> bool:
    """True if all reference bases of a call are covered."""
    return bool(covered[call.record][call.position : call.position + len(call.reference)].all())
