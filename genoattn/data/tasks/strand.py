"""Strand: is a window on the leading strand of replication, or is a stretch turned round in its surroundings?"""

from typing import final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.window_classification import WindowClassification
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.intervals import Interval
from genoattn.genome.replichores import replichores_of
from genoattn.genome.sequence_store import Genome
from genoattn.genome.simulate import Rates


@final
class Strand(WindowClassification):
    """The orientation of DNA without a reference, as an inversion or a misassembly changes it.

    Without `stretch` half of the windows are reverse-complemented, and the class says whether the shown strand is the
    leading or the lagging strand of replication at the middle of the window (see `find_replichores`). Its evidence
    (skewed composition, the direction of genes) is thin and spread over the whole window.

    With `stretch` so many bases in the middle of half of the windows are reverse-complemented in place, and the class
    says whether they are turned against their surroundings. The window itself is on a random strand, and no origin is
    asked for. The ends of the stretch, where it may cut genes, are part of the evidence.
    """

    def __init__(self, stretch: int | None = None):
        """Build the task.

        Args:
            stretch: Bases in the middle of a window that may be turned round; None: the whole window may be.

        Raises:
            UserError: `stretch` is below 1.
        """
        if stretch is not None and stretch < 1:
            raise UserError(f"task.stretch must be at least 1 base, or null, got {stretch}")
        self.stretch, self.one_strand, self.sites = stretch, stretch is None, int(stretch is not None)
        self.class_names = ("lagging", "leading") if stretch is None else ("in place", "turned round")
        symmetry = "none" if stretch is None else "invariant"
        self.outputs = {"class": TargetSpec(2, 1.0, level="window", strand_symmetry=symmetry)}

    def reference_length(self, length: int) -> int:
        if self.stretch is not None and self.stretch >= length:
            raise UserError(
                f"task.stretch={self.stretch} has no surroundings in data.length={length}; choose a longer data.length,"
                " or task.stretch=null"
            )
        return length

    def example_at(
        self, genome: Genome, window: Interval, length: int, rates: Rates, rng: np.random.Generator, reverse: bool
    ) -> Example:
        record, start, _ = window
        bases = genome.fetch(record, start, start + length)
        reverse = bool(rng.random() < 0.5)
        bases = reverse_complement(bases) if reverse else bases
        if self.stretch is not None:
            return self.example(bases, length, rates, rng)
        label = replichores_of(genome, record).leading(start + length // 2) != reverse
        return Example(bases, None, {"class": np.array([label], np.int8)}, ())

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        if self.stretch is None:
            raise ValueError("the leading strand is that of a place in a genome; see `example_at`")
        bases, label = reference[:length].copy(), bool(rng.random() < 0.5)
        size = min(self.stretch, length)  # a window of a curriculum may be shorter
        low = (length - size) // 2
        if label:
            bases[low : low + size] = reverse_complement(bases[low : low + size])
        return Example(bases, None, {"class": np.array([label], np.int8)}, (), site=(low, low + size))
