"""The contract of a task: bases of a genome become an example with its labels, before any token."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Int8, UInt8

from genoattn.data.example import DEFAULT_FORMAT, ContextFormat, Example
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Sample
from genoattn.genome.sequence_store import Genome
from genoattn.genome.simulate import Rates


class Task(ABC):
    """Makes examples; does not depend on the tokenizer or the model.

    Attributes:
        evaluator: The evaluation of a model: "detection", "language", "classification", "variant_score", "windows",
            "window_scores" or "retrieval".
        side_by_side: True if the reference lies beside the bases, so that each token must own one base.
        accepts_short_records: True if a window may be shorter than `length`, as short records are.
        outputs: The outputs of the model by name.
        max_shift: Bases of the reference beside the sample, before its first and after its last base.
        segment_count: Sequences in one context.
        sites: Sites of a window that its class is read at, besides the mean of all bases.
        one_strand: True if the labels are of the strand that is shown, so that the other one may not be read for it.
        context_format: The token labels and positions that `collate` makes.
        rates: The mutation rates of tests and of the end of a curriculum.
    """

    evaluator: str
    side_by_side: ClassVar[bool] = False
    accepts_short_records: ClassVar[bool] = False
    outputs: dict[str, TargetSpec]
    max_shift: int = 0
    segment_count: int = 1
    sites: int = 0
    one_strand: bool = False
    context_format: ContextFormat = DEFAULT_FORMAT
    rates: Rates = Rates()

    @abstractmethod
    def reference_length(self, length: int) -> int:
        """Reference bases needed for a window of `length` sample bases."""

    @abstractmethod
    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        """Make an example from a window of the genome.

        Args:
            reference: Codes of the window, `[reference_length(length)]`.
            length: Sample bases.
            rates: The rates of mutations.
            rng: The only source of randomness.

        Returns:
            The sample and its labels.
        """

    def example_at(
        self, genome: Genome, window: Interval, length: int, rates: Rates, rng: np.random.Generator, reverse: bool
    ) -> Example:
        """Make an example from a place in a genome, read on its reverse strand if `reverse`; else as `example`."""
        reference = genome.fetch(*window)
        return self.example(reverse_complement(reference) if reverse else reference, length, rates, rng)

    def at_length(self, length: int) -> Self:
        """The same task in windows of another length, for a test."""
        return self

    def context_tokens(self, length: int) -> int:
        """Tokens of a context for a window of `length` sample bases, if every token owns one base."""
        if self.context_format.interleaved:
            return 2 * length
        return self.segment_count * (length + 1) - 1  # with the separators

    def refuse(self, tokens_own: int, causal: bool, reads_on: int = 0) -> str:
        """The reason why this task does not fit a model, "" if it fits.

        Args:
            tokens_own: Most bases that a token owns.
            causal: True if the model is causal.
            reads_on: Bases that a token reads beyond its own.
        """
        if (self.side_by_side or self.context_format.interleaved) and tokens_own > 1:
            order = "lie side by side" if self.side_by_side else "take turns"
            return (
                f"reference and sample {order}, which needs one token per base, and a token of this tokenizer"
                f" owns up to {tokens_own}; use tokenizer=nucleotide, tokenizer=kmer tokenizer.overlapping=true, or"
                " another task"
            )
        return ""


class MutationDetection(Task):
    """A task in which the model reads a reference and a sample, and every sample base is labelled as mutated or not.

    Attributes:
        same_start: True if sample and reference begin at the same base of the same strand, as an aligner needs it.
    """

    evaluator = "detection"
    same_start: bool = True

    @abstractmethod
    def build_example(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        """Make an example of a given sample.

        Args:
            beside: The reference beside the sample, from `max_shift` bases before `start`.
            sample: The sample.
            start: The reference base at which the sample starts (0-based); it is `beside[max_shift]`.
        """


def mutation_labels(sample: Sample) -> dict[str, Int8[np.ndarray, "length"]]:
    """1 for mutated bases, `IGNORE_INDEX` at other equivalent placements of an indel, else 0."""
    return {
        "substitution": sample.substituted.astype(np.int8),
        "insertion": _labels(sample.inserted, sample.ambiguous_inserted),
        "deletion": _labels(sample.deleted_before, sample.ambiguous_deleted_before),
    }


def inversion_labels(sample: Sample) -> Int8[np.ndarray, "length"]:
    """1 within the shortest inversions that give the sample, `IGNORE_INDEX` within longer equivalent ones, else 0."""
    labels = np.zeros(len(sample.bases), np.int8)
    inversions = [event for event in sample.events if event.kind == "inversion"]
    for event in inversions:
        labels[event.earliest : event.latest] = IGNORE_INDEX
    for event in inversions:
        labels[event.start : event.stop] = 1
    return labels


def _labels(mutated: np.ndarray, ambiguous: np.ndarray) -> Int8[np.ndarray, "length"]:
    labels = ambiguous * np.int8(IGNORE_INDEX)
    np.putmask(labels, mutated, 1)  # a fifth of the time of `np.where` and an index by a mask
    return labels
