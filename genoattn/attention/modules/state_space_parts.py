"""The heads of a state space layer that are scanned together."""

from typing import NamedTuple

import torch
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.dispatch import Backend
from genoattn.attention.modules.segment_copies import HeadPart
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.state_space import state_space_scan

LEFT, RIGHT = 0, 1
"""Indices of the two directions among their parameters: the side from which each begins."""


def turned_to(x: Tensor, at: int) -> Tensor:
    """The tokens in the order of a direction."""
    return x.flip(1) if at == RIGHT else x


class ScanInputs(NamedTuple):
    """Inputs of the recurrence in one direction, in its order of tokens."""

    c: Tensor
    b: Tensor
    written: Tensor
    """Values times the strengths of their steps, by head."""
    log_kept: Tensor
    """Logarithm of what each token keeps of the memory of a head."""


class StateSpacePart(HeadPart):
    """Heads of a state space layer that share a scan."""

    def inputs(self, whole: ScanInputs, layout: TokenLayout) -> ScanInputs:
        """Inputs of these heads and all copies: only the tokens of a copy's segment write and fade."""
        c, b, written, log_kept = whole
        written, log_kept = written[:, :, self.heads], log_kept[:, :, self.heads]
        if self.copies is None:
            return ScanInputs(c, b, written, log_kept)
        c, b, written, log_kept = (self.copies.repeat(t) for t in (c, b, written, log_kept))
        strangers = ~self.copies.members(layout, whole.c).flatten(0, 1)[..., None]
        return ScanInputs(c, b, written.masked_fill(strangers[..., None], 0), log_kept.masked_fill(strangers, 0))

    def read(self, whole: ScanInputs, layout: TokenLayout, engine: Backend) -> Tensor:
        """Outputs of a whole sequence."""
        return self.outputs(_scan_whole(self.inputs(whole, layout), engine), whole.c, layout)

    def read_turns(self, whole: ScanInputs, engine: Backend) -> Tensor:
        """Outputs of heads that see another segment, of a sequence whose two segments take turns from its first token.

        A token reads the memory of the other segment up to the token before it, so the two scans are over slices.
        """
        c, b, written, log_kept = whole.c, whole.b, whole.written[:, :, self.heads], whole.log_kept[:, :, self.heads]
        y = torch.zeros_like(written)
        for first in (1, 2):
            queries, keys = slice(first, None, 2), slice(first - 1, -1, 2)
            inputs = ScanInputs(c[:, queries], b[:, keys], written[:, keys], log_kept[:, keys])
            y[:, queries] = _scan_whole(inputs, engine)
        return y

    def read_naively(self, whole: ScanInputs, layout: TokenLayout) -> Tensor:
        """`read`, from the weight of every pair of tokens."""
        c, b, written, log_kept = (t.to(whole.written.dtype) for t in self.inputs(whole, layout))
        ahead = torch.ones(c.shape[1], c.shape[1], dtype=torch.bool, device=c.device).triu(1)
        faded = log_kept.cumsum(1).transpose(1, 2)
        kept = (faded[..., :, None] - faded[..., None, :]).masked_fill(ahead, float("-inf")).exp()
        weights = torch.einsum("btn,bsn->bts", c, b)[:, None] * kept
        return self.outputs(torch.einsum("bhts,bshp->bthp", weights, written), whole.c, layout)


def _scan_whole(inputs: ScanInputs, engine: Backend) -> Tensor:
    """Outputs of the recurrence from an empty memory."""
    if engine.uses_triton(inputs.c):
        return by_triton.state_space_scan(*inputs)
    c, _, written, _ = inputs
    memory = written.new_zeros(len(c), written.shape[2], c.shape[2], written.shape[3])
    return state_space_scan(*inputs, memory)[0]
