"""A detector on two assemblies: windows of their aligned blocks, probabilities per base, and calls with alleles."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from genoattn.data.example import Example
from genoattn.data.targets import MUTATION_OUTPUTS
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.errors import UserError
from genoattn.genome.assembly_placement import LEAST_PLACED, Block, Placement
from genoattn.genome.calls import MutationCall, call_of
from genoattn.genome.mutations import LONG, Event, Sample, apply_mutations, slice_sample
from genoattn.genome.record_bases import Bases
from genoattn.genome.simulate import Rates
from genoattn.genome.windows import slice_padded, tiles
from genoattn.models.card import ModelCard
from genoattn.models.predictor import Predictor

COLUMN = {"snv": 0, "mnv": 0, "insertion": 1, "deletion": 2}
"""The output that detects each kind of event, by its number in MUTATION_OUTPUTS."""

DIGITS = 4
"""Decimals of a score before it is compared and written: the last bits depend on how windows are batched."""

CHUNK = 256
"""Windows of a block that are scored together whatever else is scored, so that their numbers have the same bits."""

WindowScorer = Callable[[Sequence[Example]], Iterable[Float[np.ndarray, "length columns"]]]
"""Gives each base of each example a probability for every output of MUTATION_OUTPUTS."""


class PlacedWindow(NamedTuple):
    """A window of a sample beside the reference; bases [low, high) of it, counted from `first`, are scored."""

    task: MutationDetection
    reference: Bases
    sample: Sample
    first: int
    stop: int
    low: int
    high: int
    position: int
    """The reference base beside the first base."""

    @property
    def scored(self) -> slice:
        """The bases of the sample that are scored."""
        return slice(self.first + self.low, self.first + self.high)

    def example(self) -> Example:
        """The window as an example of its task."""
        piece, flank = slice_sample(self.sample, self.first, self.stop), self.task.max_shift
        beside = slice_padded(self.reference, self.position - flank, self.position + len(piece.bases) + flank)
        return self.task.build_example(beside, piece, self.position)._replace(masking=None)


class BlockWindows(NamedTuple):
    """A block with the windows of it that are scored, in chunks of `CHUNK`."""

    block: Block
    sample: Sample
    task: MutationDetection
    windows: list[PlacedWindow]

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return -(-len(self.windows) // CHUNK)

    def chunk(self, number: int) -> list[PlacedWindow]:
        """The windows of a chunk, from 0."""
        return self.windows[CHUNK * number : CHUNK * (number + 1)]

    def bases(self, number: int) -> int:
        """The bases that a chunk scores."""
        return sum(window.high - window.low for window in self.chunk(number))


class ScoredBlock(NamedTuple):
    """A block with the probabilities of its sample bases, in the direction of the reference."""

    block: Block
    sample: Sample
    table: Float[np.ndarray, "bases 3"]
    """Substitution, insertion, and deletion before the base."""
    tested: Bool[np.ndarray, "bases"]
    """False in the rest of a long insertion, which has no reference beside it."""
    task: MutationDetection
    """The detector's task."""

    def probability(self, event: Event) -> float | None:
        """The highest probability of the event's kind among its equivalent placements; None of too long an indel."""
        if event.kind in ("insertion", "deletion") and event.size > longest_indel(self.task):
            return None
        return float(self.table[event.earliest : event.latest, COLUMN[event.kind]].max())

    def score(self, event: Event) -> float | None:
        """The probability of the event, given that the two sequences differ there."""
        probability, column = self.probability(event), COLUMN[event.kind]
        if probability is None:
            return None
        return round(where_sequences_differ(probability, expected_rates(self.task.rates)[column]), DIGITS)

    def per_reference_base(self) -> Float[np.ndarray, "reference"]:
        """The highest probability of a mutation at each reference base of the block; NaN where nothing was tested."""
        size = self.block.stop - self.block.start
        highest = np.full(size + 1, -1.0)
        tested = np.flatnonzero(self.tested)
        np.maximum.at(highest, self.sample.reference_position[tested], self.table[tested].max(1))
        for event in self.sample.events:
            if event.kind == "deletion" and (probability := self.probability(event)) is not None:
                highest[event.reference : event.reference + event.size] = probability
        return np.where(highest < 0, np.nan, highest.round(DIGITS))[:size]


def longest_indel(task: MutationDetection) -> int:
    """Bases of the longest indel that a model of this task can tell."""
    return max(LONG, min(task.rates.longest, task.max_shift))


def expected_rates(rates: Rates) -> tuple[float, float, float]:
    """Substitutions, insertions and deletions per base at the rates of a task."""
    _, insertion, deletion = rates.boundaries()
    return rates.rate * insertion, rates.rate * (deletion - insertion), rates.rate * (1 - deletion)


def stretches(sample: Sample, length: int, longest: int = LONG) -> list[tuple[int, int]]:
    """The stretches [begin, end) of a sample that can be tested: a new one begins after each indel above `longest`.

    A stretch includes the first base after a long deletion, and the first eighth of a window of a long insertion: the
    rest of the insertion has no reference beside it.
    """
    bounds, begin = [], 0
    for event in sample.events:
        if event.kind in ("insertion", "deletion") and event.size > longest:
            bounds.append((begin, min(event.stop, event.start + max(1, length // 8))))
            begin = event.stop
    bounds.append((begin, len(sample.bases)))
    return [(begin, end) for begin, end in bounds if begin < end]


def placed_windows(
    reference: Bases,
    task: MutationDetection,
    sample: Sample,
    spans: Iterable[tuple[int, int]],
    length: int,
    place: Callable[[int], int],
    step_back: bool = True,
) -> Iterator[PlacedWindow]:
    """Overlapping windows of the spans of a sample, each beside the reference base that `place` gives for its first.

    Args:
        reference: The reference.
        task: The task that makes the examples.
        sample: The sample with its alignment.
        spans: Bases [begin, end) of the sample that are scored.
        length: Bases of a window.
        place: Gives the reference position of a sample base.
        step_back: True: a window does not begin within an insertion.
    """
    for begin, end in spans:
        for start, low, high in tiles(begin, end, length):
            first = start
            while step_back and first > begin and sample.inserted[first]:
                first -= 1
            moved = start - first
            yield PlacedWindow(task, reference, sample, first, start + length, low + moved, high + moved, place(first))


def windows_of_block(
    block: Block, reference: Bases, contig: Bases, task: MutationDetection, length: int, everywhere: bool = True
) -> BlockWindows:
    """The windows of a block; they are overlapping, and the middle of each counts.

    Args:
        block: The block.
        reference: The record of the reference that holds it.
        contig: The contig of the sample that holds it.
        task: The detector's task.
        length: Bases of a window.
        everywhere: True: all windows. False: those in which the two sequences differ; elsewhere nothing is tested.
    """
    sample = apply_mutations(reference[block.start : block.stop], block.mutations)
    assert np.array_equal(sample.bases, block.oriented(contig))
    spans = stretches(sample, length, longest_indel(task))
    # Beyond the block the reference goes on, as it does within a genome.
    shifted = sample._replace(reference_position=sample.reference_position + block.start)
    place: Callable[[int], int] = shifted.reference_position.item
    windows = placed_windows(reference, task, shifted, spans, length, place)
    if not everywhere:
        differing = np.zeros(len(sample.bases), np.bool_)
        for event in sample.events:
            differing[event.earliest : event.latest] = True
        windows = (window for window in windows if differing[window.scored].any())
    return BlockWindows(block, sample, task, list(windows))


def score_chunk(windows: BlockWindows, number: int, scorer: WindowScorer) -> Float32[np.ndarray, "bases 3"]:
    """The probabilities of the bases that a chunk of windows scores, one window after the other."""
    chunk = windows.chunk(number)
    scores = scorer([window.example() for window in chunk])
    parts = [rows[window.low : window.high] for window, rows in zip(chunk, scores, strict=True)]
    return np.concatenate(parts).astype(np.float32)


def scored_block(windows: BlockWindows, chunks: Iterable[Float32[np.ndarray, "bases 3"]]) -> ScoredBlock:
    """A block with the probabilities of all of its chunks, in their order."""
    tested = np.zeros(len(windows.sample.bases), np.bool_)
    table = np.zeros((len(windows.sample.bases), len(MUTATION_OUTPUTS)), np.float32)
    for number, rows in enumerate(chunks):
        done = 0
        for window in windows.chunk(number):
            size = window.high - window.low
            table[window.scored] = rows[done : done + size]
            tested[window.scored] = True
            done += size
    return ScoredBlock(windows.block, windows.sample, table, tested, windows.task)


def score_block(
    block: Block, reference: Bases, contig: Bases, task: MutationDetection, length: int, scorer: WindowScorer
) -> ScoredBlock:
    """Put all windows of a block through a detector; the arguments are those of `windows_of_block`."""
    windows = windows_of_block(block, reference, contig, task, length)
    return scored_block(windows, (score_chunk(windows, number, scorer) for number in range(windows.chunks)))


def calls_of(scored: ScoredBlock, reference: Bases) -> Iterator[MutationCall]:
    """Every difference of a block as a call with its probability, whatever that is, in the order of the reference.

    Differences with an ambiguous letter are left out: nothing is known of them.
    """
    for event in scored.sample.events:
        removed = event.size if event.kind != "insertion" else 0
        start = scored.block.start + event.reference
        inserted = scored.sample.bases[event.start : event.stop if event.kind != "deletion" else event.start]
        if (reference[start : start + removed] < 4).all() and (inserted < 4).all():
            yield call_of(scored.block, event, reference, inserted, scored.score(event))


def is_called(call: MutationCall, threshold: float) -> bool:
    """True if a mutation is at least so probable, or if the alignment alone tells it."""
    return call.score is None or call.score >= threshold


def where_sequences_differ(probability: float, rate: float) -> float:
    """The probability of a mutation at a place where two sequences differ.

    A model says how probable a mutation is at a base of which nothing else is known: a share `rate` of the bases of its
    training has one. Where an alignment shows a difference, a mutation and none are taken as equally likely instead;
    the odds change by the ratio of the two expectations (Bayes' theorem).
    """
    if not 0 < rate < 1:
        return probability
    likely, unlikely = probability * (1 - rate), (1 - probability) * rate
    return likely / (likely + unlikely)


def related(placement: Placement, least: float = LEAST_PLACED) -> Placement:
    """The placement; raises UserError if it holds a smaller share of the sample's bases than two relatives have."""
    if placement.share < least:
        raise UserError(
            f"only {placement.share:.1%} of the sample's bases have a place on the reference, and at least {least:.0%}"
            " are needed: the two seem to be unrelated"
        )
    return placement


def detection_task(task: Task) -> MutationDetection:
    """The task of a detector; raises UserError for the task of another model."""
    if not isinstance(task, MutationDetection):
        raise UserError(f"this model was trained for {type(task).__name__}; it does not detect mutations")
    return task


def window_scorer(predictor: Predictor, card: ModelCard, both_strands: bool | None = None) -> WindowScorer:
    """The probabilities of a model, over both strands as it was trained unless said otherwise."""
    both = card.scores_both_strands if both_strands is None else both_strands
    return lambda examples: predictor.probabilities_per_base(examples, MUTATION_OUTPUTS, both)
