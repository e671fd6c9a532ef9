"""Calls of a detector on two assemblies in numbers: how many of each kind, and how many of them a VCF confirms."""

import re
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
from genoattn.genome.regions import RegionFile
from genoattn.genome.vcf import read_variants, to_mutations, vcf_stem
from genoattn.genome.vcf_writer import Names

VERY_LONG = 50
"""An indel of more bases is counted as a kind of its own."""

SIZES = ("", f" {LONG + 1} to {VERY_LONG}", f" over {VERY_LONG}")
"""Ends of the names of indels, by their bases."""

MOST_NAMES = 40
"""Names of regions up to which each has rows of its own."""

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
    named: dict[str, list[Interval]]
    """The same regions by their names, if they have any and not too many."""


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
    regions: RegionFile | None = None,
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
    known = None if regions is None else _covered(records, regions.intervals)
    mutations: list[MutationCall] = []
    for number, (name, record) in enumerate(zip(names.records, records, strict=True)):
        sample = apply_mutations(record, to_mutations(variants.by_contig[name], record, name, path).mutations)
        whole = Block(number, 0, len(record), 0, 0, len(sample.bases), False, (), 0)
        for event in sample.events:
            inserted = sample.bases[event.start : event.stop if event.kind != "deletion" else event.start]
            mutations.append(call_of(whole, event, record, inserted, 1.0))
    counted = [_within(call, tested) and (known is None or _within(call, known)) for call in mutations]
    return Truth(vcf_stem(path), mutations, counted, known, _by_name(regions) if regions else {})


def compare_with_truth(
    truth: Truth, calls: Sequence[MutationCall], records: Sequence[UInt8[np.ndarray, "record"]]
) -> dict[str, dict[str, Quality]]:
    """The quality of calls for each kind: everywhere ("") and in the regions of each name.

    A call counts where the truth says something, and in a region if all of its reference bases are in it.
    """
    confirmed = confirm(calls, truth.mutations, records)
    called = [truth.regions is None or _within(call, truth.regions) for call in calls]
    qualities = {"": _qualities(truth.mutations, truth.counted, confirmed.true, calls, called, confirmed.called)}
    for name, intervals in truth.named.items():
        covered = _covered(records, intervals)
        of_truth = [
            counts and _within(call, covered) for call, counts in zip(truth.mutations, truth.counted, strict=True)
        ]
        of_calls = [counts and _within(call, covered) for call, counts in zip(calls, called, strict=True)]
        qualities[name] = _qualities(truth.mutations, of_truth, confirmed.true, calls, of_calls, confirmed.called)
    return qualities


def _qualities(
    mutations: Sequence[MutationCall],
    counted: Sequence[bool],
    found: Sequence[bool],
    calls: Sequence[MutationCall],
    kept: Sequence[bool],
    right: Sequence[bool],
) -> dict[str, Quality]:
    """The quality of the calls that are kept against the mutations that are counted, for each kind."""
    true, called = list(compress(mutations, counted)), list(compress(calls, kept))
    counts = [count_kinds(true), count_kinds(called)]
    counts.append(count_kinds(list(compress(true, compress(found, counted)))))
    counts.append(count_kinds(list(compress(called, compress(right, kept)))))
    return {kind: Quality(*(count[kind] for count in counts)) for kind in KINDS}


def calls_table(differences: Sequence[MutationCall], called: Sequence[MutationCall]) -> Table:
    """Numbers of differences of the alignment and of those that the model calls, by kind."""
    all_counts, counts = count_kinds(differences), count_kinds(called)
    rows = [[kind, f"{all_counts[kind]:,}", f"{counts[kind]:,}"] for kind in KINDS]
    return Table("Mutations", ("kind", "differences of the alignment", "called by the model"), rows)


def truth_tables(truth: Truth, qualities: Mapping[str, Mapping[str, Mapping[str, Quality]]]) -> list[Table]:
    """Precision and recall of sets of calls against a VCF within the blocks, and those of the first by region."""
    rows = [row for name, found in qualities.items() for row in _rows(name, found[""])]
    outside = len(truth.counted) - sum(truth.counted)
    where = "where the sample has no aligned bases" + (" or outside of truth_regions" if truth.regions else "")
    note = f"{outside:,} mutations of {truth.name} lie {where}, and are not counted."
    tables = [Table(f"Against {truth.name}", ("", *_COLUMNS), rows, texts=2, notes=[note] if outside else [])]
    by_region = next(iter(qualities.values()))
    if truth.named:
        rows = [row for name in truth.named for row in _rows(name, by_region[name], empty=False)]
        columns = ("truth_regions", *_COLUMNS)
        tables.append(Table(f"Against {truth.name}, by region: {next(iter(qualities))}", columns, rows, texts=2))
    return tables


_COLUMNS = ("kind", "in the VCF", "called", "found", "confirmed", "precision", "recall", "F1")


def _rows(name: str, by_kind: Mapping[str, Quality], empty: bool = True) -> list[list[str]]:
    """The rows of a set of calls or of a region; kinds without any mutation only if `empty`."""
    return [
        [name, kind, *(f"{count:,}" for count in quality), *(f"{share:.3f}" for share in shares)]
        for kind, quality in by_kind.items()
        for shares in [(quality.precision, quality.recall, quality.f1)]
        if empty or any(quality)
    ]


def calls_metrics(
    counts: Mapping[str, Counter[str]],
    truth: str,
    qualities: Mapping[str, Mapping[str, Mapping[str, Quality]]],
) -> Metrics:
    """The numbers of all tables by candidate, such as "model", and region; `truth` is the name of the VCF."""
    entries: dict[MetricKey, int | float] = {}
    for candidate, count in counts.items():
        for kind in KINDS:
            subset = kind.replace(" ", "_")
            entries[MetricKey(candidate, "sample", subset, "calls")] = count[kind]
            for region, by_kind in qualities.get(candidate, {}).items():
                quality, place = by_kind[kind], f"{subset}@{_plain(region)}" if region else subset
                if region and not any(quality):
                    continue
                values: dict[str, int | float] = {"events": quality.true, "precision": quality.precision}
                values |= {"recall": quality.recall, "f1": quality.f1}
                entries |= {MetricKey(candidate, truth, place, name): value for name, value in values.items()}
    return Metrics(entries)


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _by_name(regions: RegionFile) -> dict[str, list[Interval]]:
    """The intervals of each name; none if no region has a name, or if they have more than `MOST_NAMES`."""
    named: dict[str, list[Interval]] = {}
    for name, interval in zip(regions.names, regions.intervals, strict=True):
        if name:
            named.setdefault(name, []).append(interval)
    if len(named) > MOST_NAMES:
        print(f"{regions.path} has {len(named):,} names of regions; up to {MOST_NAMES} get rows of their own")
        return {}
    return named


def _covered(records: Sequence[np.ndarray], intervals: Sequence[Interval]) -> list[Bool[np.ndarray, "record"]]:
    covered = [np.zeros(len(record), np.bool_) for record in records]
    for number, start, stop in intervals:
        covered[number][start:stop] = True
    return covered


def _within(call: MutationCall, covered: Sequence[Bool[np.ndarray, "record"]]) -> bool:
    """True if all reference bases of a call are covered."""
    return bool(covered[call.record][call.position : call.position + len(call.reference)].all())
