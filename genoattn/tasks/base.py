"""The contract of a task: from bases of a genome to an example with its truth, base by base, before any token."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, UInt8

from genoattn.genome.mutate import Event, Rates
from genoattn.objective import Output


class Example(NamedTuple):
    """One window: what is shown, and what is asked of each of its bases."""

    bases: UInt8[np.ndarray, "length"]
    beside: UInt8[np.ndarray, "wide"] | None
    """The reference laid beside the bases, `reach` bases longer at both ends; None where a task shows no reference."""
    targets: dict[str, Int8[np.ndarray, "length"]]
    """For each output the class (or 0 and 1) of each base, IGNORE where nothing is asked."""
    events: tuple[Event, ...]
    """The mutations in the window, in its own coordinates (0-based, half-open)."""


class Task(ABC):
    """Makes examples; knows neither tokenizer nor model."""

    outputs: dict[str, Output]
    reach: int
    """How many reference bases stand beside a window before its first and after its last base."""
    rates: Rates
    """The true rates, at which a model is tested and at which a curriculum ends."""

    @abstractmethod
    def span(self, length: int) -> int:
        """Reference bases needed for a window of `length` sample bases."""

    @abstractmethod
    def example(
        self, reference: UInt8[np.ndarray, "span"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        """A window of `length` sample bases, mutated at `rates`, from the first bases of `reference`."""
