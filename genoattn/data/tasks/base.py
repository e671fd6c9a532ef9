"""The contract of a task: from bases of a genome to an example with its truth, base by base, before any token."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Int8, UInt8

from genoattn.data.example import DEFAULT_FORMAT, ContextFormat, Example
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.genome.mutations import Sample
from genoattn.genome.simulate import Rates


class Task(ABC):
    """Makes examples; knows neither tokenizer nor model."""

    evaluator: ClassVar[str]
    """How a model trained for it is examined: "detection", "language", "classification" or "retrieval"."""
    side_by_side: ClassVar[bool] = False
    """True where a reference is laid beside the bases, so that each token must own one base."""
    accepts_short_records: ClassVar[bool] = False
    """True where a window may be shorter than asked for, as a short record is."""
    outputs: dict[str, TargetSpec]
    max_shift: int = 0
    """How many bases of a reference that is laid beside stand before a window's first and after its last base."""
    segment_count: int = 1
    """How many sequences stand in one context."""
    context_format: ContextFormat = DEFAULT_FORMAT
    rates: Rates = Rates()
    """The true rates, at which a model is tested and at which a curriculum ends."""

    @abstractmethod
    def reference_length(self, length: int) -> int:
        """Reference bases needed for a window of `length` sample bases."""

    @abstractmethod
    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        """A window of `length` sample bases, mutated at `rates`, from the first bases of `reference`."""

    def refuse(self, tokens_own: int, causal: bool, reads_on: int = 0) -> str:
        """Why this task cannot be set to a model; empty if it can.

        Its tokens own so many bases and read `reads_on` beyond them, and it is causal or not.
        """
        if self.side_by_side and tokens_own > 1:
            return (
                "it lays reference and sample side by side, one token a base, and a token of this tokenizer owns up to"
                f" {tokens_own}; use tokenizer=nucleotide, tokenizer=kmer tokenizer.overlapping=true, or another task"
            )
        return ""


class MutationDetection(Task):
    """A task that shows a reference and a sample, and asks of each sample base whether it is mutated."""

    evaluator = "detection"
    same_start: bool = True
    """True where sample and reference begin at the same place on the same strand, as an aligner takes them."""

    @abstractmethod
    def build_example(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        """The example of a sample that starts at reference base `start`, which is beside[reach]."""


def mutation_labels(sample: Sample) -> dict[str, Int8[np.ndarray, "length"]]:
    """What is asked of every base: 1 where it is mutated, IGNORE where an indel could as well be placed, else 0."""
    return {
        "substitution": sample.substituted.astype(np.int8),
        "insertion": _asked(sample.inserted, sample.ambiguous_inserted),
        "deletion": _asked(sample.deleted_before, sample.ambiguous_deleted_before),
    }


def inversion_labels(sample: Sample) -> Int8[np.ndarray, "length"]:
    """1 within the shortest inversions that give the sample, IGNORE where longer ones would reach, else 0."""
    asked = np.zeros(len(sample.bases), np.int8)
    found = [event for event in sample.events if event.kind == "inversion"]
    for event in found:
        asked[event.earliest : event.latest] = IGNORE_INDEX
    for event in found:
        asked[event.start : event.stop] = 1
    return asked


def _asked(true: np.ndarray, ambiguous: np.ndarray) -> Int8[np.ndarray, "length"]:
    return np.where(true, 1, np.where(ambiguous, IGNORE_INDEX, 0)).astype(np.int8)
