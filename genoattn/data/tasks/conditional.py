"""Conditional language modelling: the bases of a strain are predicted, with those of its relative in the context."""

from typing import Literal, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import MASK, VISIBLE, ContextFormat, Example
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.genome.simulate import Rates, simulate
from genoattn.genome.strains import StrainBlock, simulated_block


@final
class Conditional(Task):
    """A strain given its relative: what tells the two apart is all that is left to learn.

    In the layout "interleaved" the bases of both alternate, r0 s0 r1 s1 …; the relative runs `lead` bases ahead, so
    that a causal model has seen the counterpart of a base before it predicts it. The first `lead` bases of the strain
    have their counterparts before the window and no label. In the layout "before" the context is relative, separator,
    strain. Each base is predicted at the token of the strain before it: a model without attention sees nothing of the
    relative there.

    No label but the sequence is needed. The strains of training are simulated, or real ones (`data.strains`).

    The settings from `rate` to `sizes` are the fields of `Rates` of simulated strains.

    Args:
        objective: "causal": every base from those before it; "masked": masked bases from both sides.
        layout: Order of the tokens of relative and strain.
        lead: Bases by which the relative runs ahead in an interleaved causal context; a deletion of more bases hides
            the counterpart for good.
        mask_fraction: Share of the bases of the strain that are masked (for "masked").

    Raises:
        UserError: A setting is out of range.
    """

    evaluator = "conditional"
    segment_count = 2

    def __init__(
        self,
        objective: Literal["causal", "masked"] = "causal",
        layout: Literal["interleaved", "before"] = "interleaved",
        lead: int = 16,
        mask_fraction: float = 0.15,
        rate: float = 0.01,
        snv: float = 0.8,
        mnv: float = 0.0,
        insertion: float = 0.1,
        deletion: float = 0.1,
        longest: int = 6,
        transitions: float = 2.0,
        duplication: float = 0.0,
        sizes: Literal["uniform", "log"] = "uniform",
    ):
        for name, word, words in (
            ("objective", objective, ("causal", "masked")),
            ("layout", layout, ("interleaved", "before")),
        ):
            if word not in words:
                raise UserError(f"task.{name} must be {' or '.join(map(repr, words))}, got {word!r}")
        if lead < 1:
            raise UserError(f"task.lead must be at least 1 base, got {lead}")
        if not 0 < mask_fraction < 1:
            raise UserError(f"task.mask_fraction must be a share of the bases above 0 and below 1, got {mask_fraction}")
        self.objective, self.layout, self.mask_fraction = objective, layout, mask_fraction
        self.causal, interleaved = objective == "causal", layout == "interleaved"
        self.lead = lead if self.causal and interleaved else 0
        self.rates = Rates(rate, snv, mnv, insertion, deletion, longest, transitions, duplication, sizes)
        self.context_format = ContextFormat(True, interleaved, answer_before=self.causal)
        self.outputs = {"base": TargetSpec(4, 1.0, strand_symmetry="none" if self.causal else "complement")}

    def reference_length(self, length: int) -> int:
        # A quarter more than the window replaces the bases that deletions remove.
        return length + self.lead + length // 4 + 32

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        if length <= self.lead:
            raise UserError(
                f"a window of {length} bases, as data.length or curriculum.length has it, must be longer than"
                f" task.lead={self.lead}"
            )
        relative = reference[: self.reference_length(length)]
        return self.window_of(simulated_block(relative, simulate(relative, rates, rng)), 0, length, rng)

    def window_of(self, block: StrainBlock, first: int, length: int, rng: np.random.Generator) -> Example:
        """The example of `length` bases of a strain from base `first` of a block; `rng` draws the masked bases.

        The bases of a long insertion, beside which there is no relative, have no label.
        """
        bases = block.sample.bases[first : first + length]
        relative = block.beside(first, self.lead, len(bases))
        known = (bases < 4) & (np.arange(len(bases)) >= self.lead) & (block.pieces[first : first + length] >= 0)
        masking = None
        if not self.causal:
            known &= rng.random(len(bases)) < self.mask_fraction
            masking = np.where(known, MASK, VISIBLE).astype(np.uint8)
        targets = {"base": np.where(known, bases.astype(np.int8), IGNORE_INDEX).astype(np.int8)}
        return Example(bases, None, targets, (), relative, masking=masking)

    def refuse(self, tokens_own: int, causal: bool, reads_on: int = 0) -> str:
        if tokens_own > 1 or reads_on:
            return "task=conditional predicts single bases, each a token; use tokenizer=nucleotide"
        if self.causal != causal:
            needed = f"needs model.causal={str(self.causal).lower()}, got {str(causal).lower()}"
            return f"task.objective={self.objective} {needed}"
        return ""
