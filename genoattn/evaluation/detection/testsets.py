"""Test sets of a detector: simulated mutations in held-out blocks, and whole genomes with the mutations of a VCF."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from genoattn.data.example import Example
from genoattn.data.targets import COLUMNS, IGNORE_INDEX
from genoattn.data.tasks.base import MutationDetection
from genoattn.evaluation.base import TEST
from genoattn.evaluation.bootstrap import BLOCK, Resamples, resample
from genoattn.genome.anchors import Anchor, chained_anchors, place_by_anchors, turning_point
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import LONG, Event, Mutation, Sample, apply_mutations, shifted
from genoattn.genome.sequence_store import Genome
from genoattn.models.detection import placed_windows, stretches

PLACED_BY_VCF = "placed by the VCF: an upper bound under a perfect aligner"
"""The caution beside every metric of a real strain whose windows are placed so."""

ORACLE = "_oracle"
"""The end of the name of a test set that is placed by the VCF beside one that is not."""

HELD_OUT = "_held_out"
"""The end of the name of the part of a test set that lies in held-out blocks."""

Scorer = Callable[[Sequence[Example]], list[Float[np.ndarray, "length columns"]]]
"""Gives each base of each example a score for every output, in the order of COLUMNS; the last one may be missing."""


class Placement(NamedTuple):
    """Bases [low, high) of an example are the test set's bases from offset + low on."""

    offset: int
    low: int
    high: int


@dataclass(frozen=True)
class TestSet:
    """Examples laid end to end, with the truth of every base."""

    key: str
    """test, the name of a VCF, or that name with `_held_out`: the second part of a metric's key."""
    title: str
    examples: Sequence[Example]
    placements: Sequence[Placement]
    """The place of each example."""
    events: Sequence[Event]
    targets: Mapping[str, np.ndarray]
    """By output, in the order of COLUMNS, 0 or 1 for each base, and IGNORE_INDEX where a base has no label, for
    example among the equivalent placements of an indel."""
    windows: Int[np.ndarray, "bases"]
    """The number of the window that each base belongs to."""
    tested: Bool[np.ndarray, "bases"]
    """False at bases that do not count."""
    blocks: Sequence[Hashable]
    """The genomic block of each window."""
    distance: Int[np.ndarray, "bases"] | None = None
    """Distance of each base from its counterpart as in `Example.distance`, -1 without one; None: it is not in the
    context."""
    oracle: bool = False
    """True if the VCF that holds the truth has placed the windows."""
    displaced: Sequence[int] = ()
    """Bases between the place of a window and its true one, of all windows that do not begin in an insertion."""

    @property
    def simulated(self) -> bool:
        """False for the mutations of a VCF."""
        return self.key == TEST

    @property
    def bases(self) -> int:
        """The number of sample bases, tested or not."""
        return len(self.windows)

    def scores(self, scorer: Scorer) -> Float[np.ndarray, "bases columns"]:
        """The scores of all bases."""
        table = np.zeros((self.bases, len(self.targets)))
        for scored, (offset, low, high) in zip(scorer(self.examples), self.placements, strict=True):
            table[offset + low : offset + high, : scored.shape[1]] = scored[low:high, : table.shape[1]]
        return table

    def resamples(self, count: int) -> Resamples:
        """Bootstrap resamples of the genomic blocks that hold tested bases, with the unit of each base (-1: none)."""
        windows = np.unique(self.windows[self.tested])
        drawn = resample([self.blocks[window] for window in windows.tolist()], count)
        units = np.full(len(self.blocks), -1)
        units[windows] = drawn.units
        return Resamples(units[self.windows], drawn.weights)


def simulated_test_set(examples: Sequence[Example], key: str = TEST) -> TestSet:
    """A test set of windows as a task makes them; bases without a counterpart in the reference are not tested."""
    lengths = [len(example.bases) for example in examples]
    offsets = np.cumsum([0, *lengths[:-1]]).tolist()
    # A few long windows would leave intervals that say nothing: their blocks are resampled one by one.
    pieces = [[min(BLOCK, length - start) for start in range(0, length, BLOCK)] for length in lengths]
    placements = [Placement(offset, 0, length) for offset, length in zip(offsets, lengths, strict=True)]
    outputs = [output for output in COLUMNS if output in examples[0].targets]
    return TestSet(
        key,
        "simulated",
        examples,
        placements,
        [shifted(event, by) for example, by in zip(examples, offsets, strict=True) for event in example.events],
        {output: np.concatenate([example.targets[output] for example in examples]) for output in outputs},
        np.repeat(np.arange(sum(map(len, pieces))), [size for sizes in pieces for size in sizes]),
        np.concatenate([example.targets["substitution"] != IGNORE_INDEX for example in examples]),
        [
            (*example.block, number)
            for example, sizes in zip(examples, pieces, strict=True)
            for number in range(len(sizes))
        ],
        _distances(examples, placements, sum(lengths)),
    )


def variant_test_set(
    name: str,
    genome: Genome,
    task: MutationDetection,
    mutations: Mapping[int, Sequence[Mutation]],
    length: int,
    held_out: Sequence[Interval],
    oracle: bool = True,
) -> list[TestSet]:
    """A whole genome with the mutations of a VCF and, if it holds any, the part of it in `held_out` blocks.

    The genome is cut into overlapping windows of which the middle is tested. With `oracle` the VCF places the windows,
    as a perfect aligner would: each begins at a sample base that is in the reference too, at its true counterpart.
    Otherwise the k-mers that the two sequences share do, as is possible without the VCF. After a long indel the next
    window begins, because one window cannot show how long the indel is.

    Args:
        name: The name of the VCF.
        genome: The reference.
        task: The task that makes the examples.
        mutations: By record; records without mutations are not tested.
        length: Sample bases of a window.
        held_out: Blocks of the reference that were not used for training.
        oracle: True to let the VCF place the windows.
    """
    records = [_cut_record(genome, task, record, changes, length, oracle) for record, changes in mutations.items()]
    offsets = np.cumsum([0, *(len(record.sample.bases) for record in records)]).tolist()
    targets: dict[str, list[np.ndarray]] = {output: [] for output in COLUMNS if output in task.outputs}
    inside: list[np.ndarray] = []
    for number, record in zip(mutations, records, strict=True):
        truth = task.build_example(genome.fetch(number, 0, genome.lengths[number]), record.sample, 0).targets
        for output, columns in targets.items():
            columns.append(truth[output])
        position = record.sample.reference_position
        blocks = [(position >= block.start) & (position < block.stop) for block in held_out if block.record == number]
        inside.append(np.logical_or.reduce([np.zeros(len(position), np.bool_), *blocks]))
    examples = [example for record in records for example in record.examples]
    placements = [
        Placement(offset + start, low, high)
        for record, offset in zip(records, offsets, strict=False)
        for start, low, high in record.placements
    ]
    windows = np.arange(offsets[-1]) // length
    whole = TestSet(
        name,
        name,
        examples,
        placements,
        [shifted(event, by) for record, by in zip(records, offsets, strict=False) for event in record.sample.events],
        {output: np.concatenate(columns) for output, columns in targets.items()},
        windows,
        np.concatenate([record.tested for record in records]),
        (np.arange(windows[-1] + 1) * length // max(BLOCK, length)).tolist(),
        _distances(examples, placements, offsets[-1]),
        oracle,
        [bases for record in records for bases in record.displaced],
    )
    chosen = np.concatenate(inside) & whole.tested
    return [whole, part_of(whole, f"{name}{HELD_OUT}", f"{name}, held out", chosen)] if chosen.any() else [whole]


def part_of(whole: TestSet, key: str, title: str, tested: Bool[np.ndarray, "bases"]) -> TestSet:
    """The same test set with only the bases `tested`, and only the examples that hold them."""
    spans = enumerate(whole.placements)
    needed = [number for number, (offset, low, high) in spans if tested[offset + low : offset + high].any()]
    examples, placements = (
        [whole.examples[number] for number in needed],
        [whole.placements[number] for number in needed],
    )
    return replace(whole, key=key, title=title, examples=examples, placements=placements, tested=tested)


def without_supersets(test_sets: Sequence[TestSet]) -> list[TestSet]:
    """The test sets without those of which a part is among them: enough for baselines, and much quicker."""
    by_size = sorted(test_sets, key=lambda test_set: -int(test_set.tested.sum()))
    smallest = {id(test_set.events): test_set for test_set in by_size}
    return [test_set for test_set in test_sets if smallest[id(test_set.events)] is test_set]


class _Record(NamedTuple):
    """One record of a genome with mutations, cut into examples."""

    sample: Sample
    examples: list[Example]
    placements: list[Placement]
    tested: Bool[np.ndarray, "bases"]
    displaced: list[int]


def _cut_record(
    genome: Genome, task: MutationDetection, record: int, changes: Sequence[Mutation], length: int, oracle: bool
) -> _Record:
    reference = genome.fetch(record, 0, genome.lengths[record])
    sample = apply_mutations(reference, changes)
    examples, placements, displaced = [], [], []
    tested = np.zeros(len(sample.bases), np.bool_)
    spans = stretches(sample, length)
    for begin, end in spans:
        tested[begin:end] = True
    place: Callable[[int], int] = sample.reference_position.item
    if not oracle:
        anchors = chained_anchors(reference, sample.bases) or [Anchor(0, 0, 0)]  # else the same position
        spans = anchored_stretches(reference, sample.bases, anchors)
        place = partial(place_by_anchors, reference, sample.bases, anchors)
    for window in placed_windows(reference, task, sample, spans, length, place, oracle):
        examples.append(window.example())
        placements.append(Placement(window.first, window.low, window.high))
        if not sample.inserted[window.first]:
            displaced.append(abs(window.position - int(sample.reference_position[window.first])))
    return _Record(sample, examples, placements, tested, displaced)


def anchored_stretches(
    reference: UInt8[np.ndarray, "reference"], sample: UInt8[np.ndarray, "sample"], anchors: Sequence[Anchor]
) -> list[tuple[int, int]]:
    """The stretches [begin, end) of a sample by its anchors: a new one begins after each long indel."""
    bounds = [0]
    for left, right in pairwise(anchors):
        if abs(change := right.diagonal - left.diagonal) > LONG:
            bounds.append(turning_point(reference, sample, left, right) + max(0, -change))
    bounds.append(len(sample))
    return [(begin, end) for begin, end in pairwise(bounds) if begin < end]


def _distances(
    examples: Sequence[Example], placements: Sequence[Placement], bases: int
) -> Int[np.ndarray, "bases"] | None:
    """The distance of each base to its counterpart in the example in which it is tested."""
    distances = np.full(bases, -1)
    for example, (offset, low, high) in zip(examples, placements, strict=True):
        if example.distance is None:
            return None
        distances[offset + low : offset + high] = example.distance[low:high]
    return distances
