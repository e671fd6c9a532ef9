"""Reference and sample side by side: which sample bases are mutated, and before which are reference bases gone."""

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE, Output
from genoattn.data.tasks.base import Comparison, truth
from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN
from genoattn.genome.mutations import Sample, apply, cut, moved
from genoattn.genome.simulate import Rates, plant


@final
class Aligned(Comparison):
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
        reach: int = 24,
        shift_weight: float = 0.3,
        anchor: int | None = None,
    ):
        if not 0 <= reach <= 63:
            raise UserError(f"task.reach must lie within 0 and 63 bases, got {reach}")
        if shift_weight < 0:
            raise UserError(f"task.shift_weight must be at least 0, got {shift_weight}")
        if anchor is not None and anchor <= 2 * reach:
            raise UserError(f"task.anchor must be above {2 * reach} bases (twice task.reach), or null, got {anchor}")
        self.rates = Rates(rate, snv, mnv, insertion, deletion, longest, transitions, duplication)
        self.reach, self.anchor = reach, anchor
        self.outputs = {"substitution": Output(1, 1.0), "insertion": Output(1, 1.0)}
        self.outputs["deletion"] = Output(1, 1.0, mirror="gap")
        if shift_weight > 0:
            self.outputs["shift"] = Output(2 * reach + 1, shift_weight, mirror="own")

    def span(self, length: int) -> int:
        # A quarter more than the window: what deletions take away must come from somewhere.
        return self.reach + length + max(self.reach, length // 4 + 32)

    def example(
        self, reference: UInt8[np.ndarray, "span"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        source = reference[self.reach :]
        sample = cut(apply(source, plant(source, rates, rng)), 0, length)
        if self.anchor is None or length <= self.anchor:
            return self.lay(reference[: length + 2 * self.reach], sample, 0)
        return _joined([self._piece(reference, sample, at) for at in range(0, length, self.anchor)], 2 * self.reach)

    def _piece(self, reference: UInt8[np.ndarray, "span"], sample: Sample, at: int) -> Example:
        """Sample bases from `at` to the next anchor, beside what follows the counterpart of the base before them."""
        assert self.anchor is not None
        start = int(sample.origin[at - 1]) + int(not sample.inserted[at - 1]) if at else 0
        part = cut(sample, at, at + self.anchor)
        beside = reference[start : start + len(part.bases) + 2 * self.reach]
        short = len(part.bases) + 2 * self.reach - len(beside)
        return self.lay(np.pad(beside, (0, short), constant_values=UNKNOWN), part, start)

    def lay(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        targets = truth(sample)
        if "shift" in self.outputs:
            shift = sample.origin - start - np.arange(len(sample.bases))
            near = np.abs(shift) <= self.reach
            targets["shift"] = np.where(near, shift + self.reach, IGNORE).astype(np.int8)
        return Example(sample.bases, beside, targets, sample.events)


def _joined(pieces: Sequence[Example], gap: int) -> Example:
    """Examples end to end as one; between the bases of any two stand `gap` N's, of which nothing is asked."""
    offsets = np.cumsum([0, *(len(piece.bases) + gap for piece in pieces[:-1])]).tolist()

    def chain(rows: Sequence[np.ndarray], filler: int) -> np.ndarray:
        between = np.full(gap, filler, rows[0].dtype)
        return np.concatenate([part for row in rows for part in (between, row)][1:])

    beside = [piece.beside for piece in pieces if piece.beside is not None]
    targets = {name: chain([piece.targets[name] for piece in pieces], IGNORE) for name in pieces[0].targets}
    events = (moved(event, by) for piece, by in zip(pieces, offsets, strict=True) for event in piece.events)
    return Example(chain([piece.bases for piece in pieces], UNKNOWN), np.concatenate(beside), targets, tuple(events))
