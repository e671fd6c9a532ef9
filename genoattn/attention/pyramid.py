"""Attention at several resolutions, side by side: windows at the fine ones, everything at the coarsest."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genoattn.attention.base import Attention, TokenLayout, zero_padding
from genoattn.attention.full import FullAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.modules.rotary import position_ids_of
from genoattn.attention.parallel import Span, halo, tied
from genoattn.attention.window import WindowAttention
from genoattn.errors import UserError


def pooled(
    x: Float[Tensor, "batch length dim"],
    padding_mask: Bool[Tensor, "batch length"],
    positions: Int[Tensor, "batch length"],
    pool: int,
) -> tuple[Float[Tensor, "batch cells dim"], TokenLayout]:
    """The means of `x` and of the positions over the real tokens of each cell of `pool`; a cell without is padding.

    `x` is 0 at padding, and positions are rounded down.
    """
    x, padding_mask, positions = (
        F.pad(t, (0, 0) * (t.dim() - 2) + (0, -t.shape[1] % pool)).unflatten(1, (-1, pool))
        for t in (x, padding_mask, positions)
    )
    count = padding_mask.sum(2)
    present = count.clamp_min(1)
    return x.sum(2) / present[..., None], TokenLayout(count > 0, (positions * padding_mask).sum(2) // present)


def spread(
    y: Float[Tensor, "batch cells dim"], pool: int, length: int, causal: bool, before: int = 0
) -> Float[Tensor, "batch length dim"]:
    """Each cell's answer at its tokens; in a causal layer at those that follow its last but one, and 0 before any.

    The first token comes `before` cells after the first one.
    """
    y = y.repeat_interleave(pool, dim=1)
    return (F.pad(y, (0, 0, pool - 1, 0)) if causal else y)[:, before * pool : before * pool + length]


def _places(x: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
    """The mask and the positions of the tokens x, written out."""
    mask = layout.padding_mask
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
    return mask, position_ids_of(x, layout.position_ids).expand(mask.shape)


@final
class PyramidAttention(Attention):
    """Attention at several resolutions: the sum over levels of softmax attention between cells of 1, 16, 256, … tokens.

    A token gets the output of its cell at every level; a causal token that of the last complete cell. A cell is the
    mean of its tokens. All levels but the last use a sliding window; the last sees everything, which is quadratic
    with a small constant: at 256 tokens a cell, 1/65536 of full attention. `heads.cross_segment` and
    `heads.rotate_values` have an effect at the level of single tokens alone: a larger cell may hold several segments.

    Cells begin at multiples of their size from the left, so a reversed sequence has the same cells only if its length
    is a multiple of the largest.
    """

    complexity = "quadratic"
    weights_sum_to_one = False

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        pool_sizes: Sequence[int] = (1, 16, 256),
        left: int = 64,
        right: int = 64,
    ):
        super().__init__()
        if list(pool_sizes[:1]) != [1] or any(fine >= coarse for fine, coarse in pairwise(pool_sizes)):
            raise UserError(
                "attention.pool_sizes must list the tokens of a cell at each level, 1 and then ever more, got"
                f" {list(pool_sizes)}"
            )
        # A pooled cell may hold tokens of several segments, and its position says little about theirs.
        coarse = replace(heads, cross_segment=0.0, rotate_values=False)
        self.causal = causal
        self.pool_sizes = tuple(pool_sizes)
        *windows, last = (heads if pool == 1 else coarse for pool in pool_sizes)
        self.levels = nn.ModuleList(WindowAttention(dim, causal, each, left, right) for each in windows)
        self.levels.append(FullAttention(dim, causal, last))
        self.dim = dim
        self.shard_multiple = math.lcm(*self.pool_sizes)
        self.asymmetry = next((level.asymmetry for level in self._each() if level.asymmetry is not None), None)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        length = x.shape[1]
        x = zero_padding(x, layout.padding_mask)
        padding_mask, positions = _places(x, layout)
        fine, *coarser = self._each()
        total = fine(x, layout)
        for pool, level in zip(self.pool_sizes[1:], coarser, strict=True):
            total = total + spread(level(*pooled(x, padding_mask, positions, pool)), pool, length, self.causal)
        return zero_padding(total, layout.padding_mask)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """Every level is computed over shards of its cells; a causal shard fetches the last answer before it."""
        x = zero_padding(x, layout.padding_mask)
        padding_mask, positions = _places(x, layout)
        whole = x[:, :1, :1].detach().expand(-1, span.total, -1)
        fine, *coarser = self._each()
        total = fine(x, replace(layout, span=span))
        for pool, level in zip(self.pool_sizes[1:], coarser, strict=True):
            cells, of_cells = pooled(x, padding_mask, positions, pool)
            some = replace(span, length=span.length // pool, whole=pooled(whole, *_places(whole, span.whole), pool)[1])
            y, before = level(cells, replace(of_cells, span=some)), 0
            if self.causal:
                wide = halo(y, some, 1, 0)
                y, before = tied(wide.x, wide.x), wide.before
            total = total + spread(y, pool, span.length, self.causal, before)
        return zero_padding(total, layout.padding_mask)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        length = x.shape[1]
        x = zero_padding(x, layout.padding_mask)
        padding_mask, positions = _places(x, layout)
        index, total = torch.arange(length, device=x.device), torch.zeros_like(x)
        for pool, level in zip(self.pool_sizes, self._each(), strict=True):
            cells = torch.arange(-(-length // pool), device=x.device)
            member = (index // pool == cells[:, None]) & padding_mask[:, None, :]
            count = member.sum(-1)
            means = member.to(x.dtype) @ x / count.clamp_min(1)[..., None]
            places = (member * positions[:, None, :]).sum(-1) // count.clamp_min(1)
            segments = layout.segment_ids if pool == 1 else None
            answers = level.naive(means, TokenLayout(count > 0, places, segments))
            answers = F.pad(answers, (0, 0, 1, 0))  # 0 before the first cell
            read = [(at + 1) // pool if self.causal else at // pool + 1 for at in range(length)]
            total = total + answers[:, read]
        return zero_padding(total, layout.padding_mask)

    def _each(self) -> list[WindowAttention | FullAttention]:
        levels = []
        for level in self.levels:
            assert isinstance(level, WindowAttention | FullAttention)
            levels.append(level)
        return levels

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        fine, coarsest = (self._each()[level].describe_backend(device, dtype) for level in (0, -1))
        return coarsest if len(self.pool_sizes) == 1 else f"{fine}; {coarsest} at the coarsest level"

    def flops(self, length: int) -> int:
        """Those of each level's attention over its cells."""
        return sum(level.flops(-(-length // pool)) for pool, level in zip(self.pool_sizes, self._each(), strict=True))

    def state_bytes(self, length: int) -> int:
        """Each level keeps its cells; a pooled level also keeps its last output and the sum of the next cell."""
        held = 0
        for pool, level in zip(self.pool_sizes, self._each(), strict=True):
            held += level.state_bytes(length // pool) + (4 * 2 * self.dim if pool > 1 else 0)
        return held
