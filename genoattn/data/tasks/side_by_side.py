"""Reference and sample side by side: which sample bases are mutated, and before which are reference bases gone."""

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tasks.base import MutationDetection, mutation_labels
from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN
from genoattn.genome.mutations import Sample, apply_mutations, shifted, slice_sample
from genoattn.genome.simulate import Rates, simulate


@final
class SideBySide(MutationDetection):
    """Sample base i stands beside reference base i; after each indel the two drift apart.

    `reach` says how far beside its own place a sample base is compared with the reference (0: with its own place
    alone); `shift_weight` is the weight of naming the drift (sample base i is reference base i + shift), an auxiliary
    answer that is due at every base. An indel has several right placements in a repeat: the left-aligned one is asked
    for and nothing is asked about the others.

    Over a long window the drift of many indels adds up and leaves the reach. With `anchor` the reference is laid anew
    every so many sample bases, beside the true counterpart of the next one, as the coarse chain of anchors that an
    aligner finds first would do: the drift begins again at 0, `2 reach` N's stand in the sample between the pieces,
    and nothing is asked of them. It is done for examples that are drawn, not where a sample is laid (`lay`).
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
        max_shift: int = 24,
        shift_weight: float = 0.3,
        realign_every: int | None = None,
    ):
        if not 0 <= max_shift <= 63:
            raise UserError(f"task.max_shift must lie within 0 and 63 bases, got {max_shift}")
        if shift_weight < 0:
            raise UserError(f"task.shift_weight must be at least 0, got {shift_weight}")
        if realign_every is not None and realign_every <= 2 * max_shift:
            raise UserError(
                f"task.realign_every must be above {2 * max_shift} bases (twice task.max_shift), or null, got"
                f" {realign_every}"
            )
        self.rates = Rates(rate, snv, mnv, insertion, deletion, longest, transitions, duplication)
        self.max_shift, self.realign_every = max_shift, realign_every
        self.outputs = {"substitution": TargetSpec(1, 1.0), "insertion": TargetSpec(1, 1.0)}
        self.outputs["deletion"] = TargetSpec(1, 1.0, strand_symmetry="between_bases")
        if shift_weight > 0:
            self.outputs["shift"] = TargetSpec(2 * max_shift + 1, shift_weight, strand_symmetry="none")

    def reference_length(self, length: int) -> int:
        # A quarter more than the window: what deletions take away must come from somewhere.
        return self.max_shift + length + max(self.max_shift, length // 4 + 32)

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        source = reference[self.max_shift :]
        sample = slice_sample(apply_mutations(source, simulate(source, rates, rng)), 0, length)
        if self.realign_every is None or length <= self.realign_every:
            return self.build_example(reference[: length + 2 * self.max_shift], sample, 0)
        return _joined(
            [self._piece(reference, sample, at) for at in range(0, length, self.realign_every)], 2 * self.max_shift
        )

    def _piece(self, reference: UInt8[np.ndarray, "reference_length"], sample: Sample, at: int) -> Example:
        """Sample bases from `at` to the next anchor, beside what follows the counterpart of the base before them."""
        assert self.realign_every is not None
        start = int(sample.reference_position[at - 1]) + int(not sample.inserted[at - 1]) if at else 0
        part = slice_sample(sample, at, at + self.realign_every)
        beside = reference[start : start + len(part.bases) + 2 * self.max_shift]
        short = len(part.bases) + 2 * self.max_shift - len(beside)
        return self.build_example(np.pad(beside, (0, short), constant_values=UNKNOWN), part, start)

    def build_example(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        targets = mutation_labels(sample)
        if "shift" in self.outputs:
            shift = sample.reference_position - start - np.arange(len(sample.bases))
            near = np.abs(shift) <= self.max_shift
            targets["shift"] = np.where(near, shift + self.max_shift, IGNORE_INDEX).astype(np.int8)
        return Example(sample.bases, beside, targets, sample.events)


def _joined(pieces: Sequence[Example], gap: int) -> Example:
    """Examples end to end as one; between the bases of any two stand `gap` N's, of which nothing is asked."""
    offsets = np.cumsum([0, *(len(piece.bases) + gap for piece in pieces[:-1])]).tolist()

    def chain(rows: Sequence[np.ndarray], filler: int) -> np.ndarray:
        between = np.full(gap, filler, rows[0].dtype)
        return np.concatenate([part for row in rows for part in (between, row)][1:])

    beside = [piece.reference_window for piece in pieces if piece.reference_window is not None]
    targets = {name: chain([piece.targets[name] for piece in pieces], IGNORE_INDEX) for name in pieces[0].targets}
    events = (shifted(event, by) for piece, by in zip(pieces, offsets, strict=True) for event in piece.events)
    return Example(chain([piece.bases for piece in pieces], UNKNOWN), np.concatenate(beside), targets, tuple(events))
