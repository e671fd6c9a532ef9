"""Mutation detection with the reference beside the sample, base by base."""

from typing import Literal, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example, concatenate_examples
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tasks.base import MutationDetection, mutation_labels
from genoattn.errors import UserError
from genoattn.genome.mutations import Sample, apply_mutations, slice_sample
from genoattn.genome.simulate import Rates, simulate, write_copies
from genoattn.genome.windows import slice_padded


@final
class SideBySide(MutationDetection):
    """Sample base i lies beside reference base i; after each indel the two are shifted against each other.

    An indel in a repeat has several equivalent placements: the left-aligned one is labelled, the others have no label.
    Over a long window the shifts of many indels add up to more than `max_shift`. With `realign_every` the sample is
    cut into pieces, and the reference starts again beside the true counterpart of each, as the anchors of an aligner
    would place it. Between two pieces are `2 max_shift` N without labels. `build_example` does not realign.
    """

    side_by_side = True

    def __init__(
        self,
        rate: float = 0.02,
        snv: float = 0.7,
        mnv: float = 0.0,
        insertion: float = 0.15,
        deletion: float = 0.15,
        longest: int = 6,
        transitions: float = 2.0,
        duplication: float = 0.3,
        sizes: Literal["uniform", "log"] = "uniform",
        contraction: float = 0.0,
        max_shift: int = 24,
        shift_weight: float = 0.3,
        realign_every: int | None = None,
    ):
        """Build the task; the settings from `rate` to `sizes` are the fields of `Rates`.

        Args:
            contraction: Share of deletions that remove one of two copies; the second is written into the reference.
            max_shift: A sample base is compared with the reference up to so many bases to both sides.
            shift_weight: Weight of the auxiliary output "shift": sample base i is reference base i + shift.
            realign_every: Sample bases of a piece; None: no pieces.

        Raises:
            UserError: A setting is out of range.
        """
        if not 0 <= max_shift <= 63:
            raise UserError(f"task.max_shift must lie within 0 and 63 bases, got {max_shift}")
        if not 0 <= contraction <= 1:
            raise UserError(f"task.contraction must be a share between 0 and 1, got {contraction}")
        if shift_weight < 0:
            raise UserError(f"task.shift_weight must be at least 0, got {shift_weight}")
        if realign_every is not None and realign_every <= 2 * max_shift:
            raise UserError(
                f"task.realign_every must be above {2 * max_shift} bases (twice task.max_shift), or null, got"
                f" {realign_every}"
            )
        self.rates = Rates(rate, snv, mnv, insertion, deletion, longest, transitions, duplication, sizes)
        self.max_shift, self.realign_every, self.contraction = max_shift, realign_every, contraction
        self.outputs = {"substitution": TargetSpec(1, 1.0), "insertion": TargetSpec(1, 1.0)}
        self.outputs["deletion"] = TargetSpec(1, 1.0, strand_symmetry="between_bases")
        if shift_weight > 0:
            self.outputs["shift"] = TargetSpec(2 * max_shift + 1, shift_weight, strand_symmetry="none")

    def reference_length(self, length: int) -> int:
        # A quarter more than the window replaces the bases that deletions remove.
        return self.max_shift + length + max(self.max_shift, length // 4 + 32)

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        source = reference[self.max_shift :]
        mutations = simulate(source, rates, rng)
        if self.contraction:
            source = write_copies(source, mutations, self.contraction, rng)
            reference = np.concatenate([reference[: self.max_shift], source])
        sample = slice_sample(apply_mutations(source, mutations), 0, length)
        if self.realign_every is None or length <= self.realign_every:
            return self.build_example(reference[: length + 2 * self.max_shift], sample, 0)
        firsts = range(0, length, self.realign_every)
        pieces = [self._piece(reference, sample, first, self.realign_every) for first in firsts]
        return concatenate_examples(pieces, 2 * self.max_shift)

    def _piece(
        self, reference: UInt8[np.ndarray, "reference_length"], sample: Sample, first: int, length: int
    ) -> Example:
        """`length` sample bases from `first`, beside the reference that follows the counterpart of the base before."""
        start = int(sample.reference_position[first - 1]) + int(not sample.inserted[first - 1]) if first else 0
        piece = slice_sample(sample, first, first + length)
        stop = start + len(piece.bases) + 2 * self.max_shift
        return self.build_example(slice_padded(reference, start, stop), piece, start)

    def build_example(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        targets = mutation_labels(sample)
        if "shift" in self.outputs:
            first = start - self.max_shift
            shift = sample.reference_position - np.arange(first, first + len(sample.bases))
            targets["shift"] = shift.astype(np.int8)
            np.putmask(targets["shift"], (shift < 0) | (shift > 2 * self.max_shift), IGNORE_INDEX)
        return Example(sample.bases, beside, targets, sample.events)
