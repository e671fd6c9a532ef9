"""Language modelling: masked bases are predicted from their surroundings, or each token from those before it."""

from typing import Literal, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import MASK, RANDOM, UNCHANGED, VISIBLE, ContextFormat, Example
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.genome.simulate import Rates

_SHARES = (0.8, 0.1, 0.1)
"""Shares of the labelled bases that become a mask, a random token, or stay (BERT, Devlin et al. 2019)."""


@final
class LanguageModeling(Task):
    """The model reads a genome without mutations; the tokens themselves are the labels.

    Only A, C, G and T are masked. A token that reads a masked base is masked, and is a label, as a whole.
    """

    evaluator = "language"
    accepts_short_records = True

    def __init__(
        self, objective: Literal["bert", "span", "causal"] = "bert", mask_fraction: float = 0.15, span_mean: float = 6.0
    ):
        """Build the task.

        Args:
            objective: "bert": single bases; "span": runs of bases, always masked; "causal": every next token.
            mask_fraction: Share of the bases that are labels (not for "causal").
            span_mean: Mean bases of a run; its length is geometrically distributed (for "span").

        Raises:
            UserError: A setting is out of range.
        """
        if objective not in ("bert", "span", "causal"):
            raise UserError(f"task.objective must be 'bert', 'span' or 'causal', got {objective!r}")
        if not 0 < mask_fraction < 1:
            raise UserError(f"task.mask_fraction must be a share of the bases above 0 and below 1, got {mask_fraction}")
        if not span_mean >= 1:
            raise UserError(f"task.span_mean must be at least 1 base, got {span_mean}")
        self.objective, self.mask_fraction, self.span_mean = objective, mask_fraction, span_mean
        self.context_format = ContextFormat(token_objective="next" if objective == "causal" else "hidden")
        self.outputs = {"token": TargetSpec(0, 1.0, level="token", strand_symmetry="none")}

    def reference_length(self, length: int) -> int:
        return length

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        bases = reference[:length]
        if self.objective == "causal":
            return Example(bases, None, {}, ())
        known = bases < 4
        masking = self._mask_bases(known, rng) if self.objective == "bert" else self._mask_runs(known, rng)
        return Example(bases, None, {}, (), masking=masking)

    def refuse(self, tokens_own: int, causal: bool, reads_on: int = 0) -> str:
        if self.objective == "causal" and not causal:
            return "task.objective=causal predicts each next token, which needs model.causal=true, and it is false"
        if self.objective != "causal" and causal:
            needed = "which needs model.causal=false, and it is true"
            return f"task.objective={self.objective} predicts bases from both sides, {needed}"
        return ""

    def _mask_bases(self, known: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "length"]:
        masking = rng.choice(np.array([MASK, RANDOM, UNCHANGED], np.uint8), len(known), p=_SHARES)
        return np.where(known & (rng.random(len(known)) < self.mask_fraction), masking, np.uint8(VISIBLE))

    def _mask_runs(self, known: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "length"]:
        masking = np.full(len(known), VISIBLE, np.uint8)
        positions = np.flatnonzero(known)
        left = round(self.mask_fraction * len(positions))
        while left > 0:
            start = int(rng.choice(positions))
            stop = start + int(rng.geometric(1 / self.span_mean))
            new = np.flatnonzero(known[start:stop] & (masking[start:stop] == VISIBLE))[:left] + start
            masking[new] = MASK
            left -= len(new)
        return masking


def fully_masked(example: Example) -> Example:
    """The same example with every labelled base masked, as in an evaluation."""
    if example.masking is None:
        return example
    return example._replace(masking=np.where(example.masking == VISIBLE, VISIBLE, MASK).astype(np.uint8))
