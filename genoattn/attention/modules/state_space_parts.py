"""The heads of a state space layer that are scanned together."""

from typing import NamedTuple

import torch
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.segment_copies import HeadPart
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


def scan_turns(whole: ScanInputs, heads: slice, memory: Tensor) -> Tensor:
    """Outputs of heads that see another segment, of a sequence whose two segments take turns from its first token on.

    A token reads the memory of the other segment up to the token before it, so the two scans are over slices.
    """
    c, b, written, log_kept = whole.c, whole.b, whole.written[:, :, heads], whole.log_kept[:, :, heads]
    y = torch.zeros_like(written, dtype=memory.dtype)
    for first in (1, 2):
        queries, keys = slice(first, None, 2), slice(first - 1, -1, 2)
        y[:, queries], _ = state_space_scan(c[:, queries], b[:, keys], written[:, keys], log_kept[:, keys], memory)
    return y
