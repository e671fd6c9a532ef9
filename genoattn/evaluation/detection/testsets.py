"""What a detector is tested on: mutations planted in held-out blocks, and genomes with those that nature made."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from genoattn.data.example import Example
from genoattn.data.targets import COLUMNS, IGNORE_INDEX
from genoattn.data.tasks.base import MutationDetection
from genoattn.evaluation.bootstrap import resampled_average_precision, resamples
from genoattn.evaluation.detection.candidates import (
    EVENT_KINDS,
    HEADLINE_KINDS,
    KINDS,
    LONG_KINDS,
    collect_scored_calls,
    kind_of,
)
from genoattn.evaluation.detection.metrics import DetectionMetrics, best_threshold, detection_metrics, per_base_auprc
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Event, Mutation, Sample, apply_mutations, shifted, slice_sample
from genoattn.genome.sequence_store import Genome
from genoattn.genome.windows import slice_padded, tiles

STRETCH = 8192
"""Bases of a window that are resampled as one."""


Scorer = Callable[[Sequence[Example]], list[Float[np.ndarray, "length columns"]]]
"""Gives every base of each example a probability of each output, in the order of COLUMNS; the last may be left out."""


@dataclass(frozen=True)
class TestSet:
    """Examples laid end to end: bases [low, high) of example n are the trial's from base offset + low on."""

    name: str
    examples: Sequence[Example]
    places: Sequence[tuple[int, int, int]]
    """(offset, low, high) of each example."""
    events: Sequence[Event]
    targets: Mapping[str, np.ndarray]
    """By output, in the order of COLUMNS, 0 or 1 for each base of the trial, IGNORE where nothing is asked, as where an
    indel could as well be placed."""
    windows: Int[np.ndarray, "bases"]
    """The number of the window that each base belongs to when windows are resampled."""
    tested: Bool[np.ndarray, "bases"]
    """False at bases that do not count."""
    blocks: Sequence[Hashable] = ()
    """The stretch of the genome that each window was drawn from, where windows were drawn."""
    distance: Int[np.ndarray, "bases"] | None = None
    """How far back each base has its counterpart in its context, -1 where it has none; None: it lies beside it."""

    @property
    def bases(self) -> int:
        """Sample bases, tested or not."""
        return len(self.windows)

    def scores(self, scorer: Scorer) -> Float[np.ndarray, "bases columns"]:
        """The scores of all of the trial's bases."""
        table = np.zeros((self.bases, len(self.targets)))
        for scored, (offset, low, high) in zip(scorer(self.examples), self.places, strict=True):
            table[offset + low : offset + high, : scored.shape[1]] = scored[low:high, : table.shape[1]]
        return table


def simulated_test_set(name: str, examples: Sequence[Example]) -> TestSet:
    """A trial of windows as a task makes them; bases that have nothing to be compared with are not tested.

    What is resampled are windows, or stretches of `STRETCH` bases of longer ones: few long windows would leave
    intervals that say nothing.
    """
    lengths = [len(example.bases) for example in examples]
    offsets = np.cumsum([0, *lengths[:-1]]).tolist()
    stretches = [[min(STRETCH, length - at) for at in range(0, length, STRETCH)] for length in lengths]
    places = [(offset, 0, length) for offset, length in zip(offsets, lengths, strict=True)]
    asked = [output for output in COLUMNS if output in examples[0].targets]
    return TestSet(
        name,
        examples,
        places,
        [shifted(event, by) for example, by in zip(examples, offsets, strict=True) for event in example.events],
        {output: np.concatenate([example.targets[output] for example in examples]) for output in asked},
        np.repeat(np.arange(sum(map(len, stretches))), [size for sizes in stretches for size in sizes]),
        np.concatenate([example.targets["substitution"] != IGNORE_INDEX for example in examples]),
        [
            (*example.block, part)
            for example, sizes in zip(examples, stretches, strict=True)
            for part in range(len(sizes))
        ],
        _distances(examples, places, sum(lengths)),
    )


def variant_test_set(
    name: str,
    genome: Genome,
    task: MutationDetection,
    mutations: Mapping[int, Sequence[Mutation]],
    length: int,
    held_out: Sequence[Interval],
) -> tuple[TestSet, TestSet | None]:
    """A whole genome with known mutations, and the part of it in blocks `held_out` of the reference (None: no such).

    The genome is cut into overlapping windows of which the middle is tested. `mutations` are by record; records that
    have none are not tested. A window starts at a sample base that stands in the reference too, so that both begin
    together; what an indel does to the bases after it is the detector's to find, but after a long one the next window
    begins: how far it reaches is not to be seen in one window.
    """
    pieces = [_record(genome, task, record, changes, length) for record, changes in mutations.items()]
    offsets = np.cumsum([0, *(len(piece.sample.bases) for piece in pieces)]).tolist()
    targets: dict[str, list[np.ndarray]] = {output: [] for output in COLUMNS if output in task.outputs}
    inside: list[np.ndarray] = []
    for record, piece in zip(mutations, pieces, strict=True):
        truth = task.build_example(genome.fetch(record, 0, genome.lengths[record]), piece.sample, 0).targets
        for output, columns in targets.items():
            columns.append(truth[output])
        origin = piece.sample.reference_position
        blocks = [(origin >= block.start) & (origin < block.stop) for block in held_out if block.record == record]
        inside.append(np.logical_or.reduce([np.zeros(len(origin), np.bool_), *blocks]))
    examples = [example for piece in pieces for example in piece.examples]
    places = [
        (offset + start, low, high)
        for piece, offset in zip(pieces, offsets, strict=False)
        for start, low, high in piece.places
    ]
    whole = TestSet(
        name,
        examples,
        places,
        [shifted(event, by) for piece, by in zip(pieces, offsets, strict=False) for event in piece.sample.events],
        {output: np.concatenate(columns) for output, columns in targets.items()},
        np.arange(offsets[-1]) // length,
        np.concatenate([piece.tested for piece in pieces]),
        distance=_distances(examples, places, offsets[-1]),
    )
    chosen = np.concatenate(inside) & whole.tested
    return whole, part(whole, f"{name}, held out", chosen) if chosen.any() else None


class _Record(NamedTuple):
    """One record of a genome with mutations, cut into examples."""

    sample: Sample
    examples: list[Example]
    places: list[tuple[int, int, int]]
    tested: Bool[np.ndarray, "bases"]


def _record(genome: Genome, task: MutationDetection, record: int, changes: Sequence[Mutation], length: int) -> _Record:
    reference = genome.fetch(record, 0, genome.lengths[record])
    reach = task.max_shift
    sample = apply_mutations(reference, changes)
    examples, places = [], []
    tested = np.zeros(len(sample.bases), np.bool_)
    for begin, end in stretches(sample, length):
        tested[begin:end] = True
        for start, low, high in tiles(begin, end, length):
            first = start
            while first > begin and sample.inserted[first]:
                first -= 1
            window = slice_sample(sample, first, start + length)
            origin = int(sample.reference_position[first])
            beside = slice_padded(reference, origin - reach, origin + len(window.bases) + reach)
            examples.append(task.build_example(beside, window, origin))
            places.append((first, low + start - first, high + start - first))
    return _Record(sample, examples, places, tested)


def stretches(sample: Sample, length: int) -> list[tuple[int, int]]:
    """Where sample bases [begin, end) can be tested: each stretch begins anew with the reference after a long indel.

    A stretch takes in the base before which bases are gone, or the first eighth of a window of a long insertion: the
    rest of it has no reference that it could stand beside.
    """
    found, begin = [], 0
    for event in sample.events:
        if kind_of(event) in LONG_KINDS:
            found.append((begin, min(event.stop, event.start + max(1, length // 8))))
            begin = event.stop
    found.append((begin, len(sample.bases)))
    return [(begin, end) for begin, end in found if begin < end]


def part(trial: TestSet, name: str, tested: Bool[np.ndarray, "bases"]) -> TestSet:
    """The same trial with only the bases `tested`, and only the examples that they need."""
    needed = [n for n, (offset, low, high) in enumerate(trial.places) if tested[offset + low : offset + high].any()]
    return replace(
        trial,
        name=name,
        examples=[trial.examples[number] for number in needed],
        places=[trial.places[number] for number in needed],
        tested=tested,
    )


def thresholds(trial: TestSet, scores: Float[np.ndarray, "bases columns"]) -> dict[str, float]:
    """The score of best F1 for each output of the trial; one half where it holds no such mutation."""
    found = collect_scored_calls(scores, trial.events, trial.windows, trial.tested)
    chosen = (*HEADLINE_KINDS, "inversion")
    best = {COLUMNS[KINDS[kind]]: best_threshold(scored) for kind, scored in found.items() if kind in chosen}
    return {output: best.get(output, 0.5) for output in trial.targets}


def measure(
    test_set: TestSet, scores: Float[np.ndarray, "bases columns"], thresholds: Mapping[str, float], resamples: int = 200
) -> dict[str, DetectionMetrics]:
    """How well the scores find the trial's mutations, by kind; a figure per base leaves out those of `EVENT_KINDS`."""
    short = test_set.tested.copy()
    for event in test_set.events:
        if kind_of(event) in EVENT_KINDS:
            short[event.earliest : event.latest] = False
    measured = {}
    for kind, scored in collect_scored_calls(scores, test_set.events, test_set.windows, test_set.tested).items():
        column = KINDS[kind]
        target = test_set.targets[COLUMNS[column]]
        asked = short & (target != IGNORE_INDEX)
        told = kind not in EVENT_KINDS
        base_auprc = per_base_auprc(scores[:, column], target == 1, asked) if told else float("nan")
        bases = int(test_set.tested.sum())
        measured[kind] = detection_metrics(scored, thresholds[COLUMNS[column]], base_auprc, bases, resamples, seed=0)
    return measured


def replicates(
    trial: TestSet, scores: Float[np.ndarray, "bases columns"], count: int
) -> dict[str, Float[np.ndarray, "draws"]]:
    """By kind, AUPRC in `count` resamples of the stretches of the genome that the trial's windows were drawn from."""
    owners, draws = resamples(trial.blocks, count)
    found = collect_scored_calls(scores, trial.events, owners[trial.windows], trial.tested)
    return {kind: resampled_average_precision(scored, draws) for kind, scored in found.items()}


def _distances(
    examples: Sequence[Example], places: Sequence[tuple[int, int, int]], bases: int
) -> Int[np.ndarray, "bases"] | None:
    """How far back each of a trial's bases has its counterpart, as the example in which it is tested shows it."""
    found = np.full(bases, -1)
    for example, (offset, low, high) in zip(examples, places, strict=True):
        if example.distance is None:
            return None
        found[offset + low : offset + high] = example.distance[low:high]
    return found
