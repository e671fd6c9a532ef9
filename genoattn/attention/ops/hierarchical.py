"""Hierarchical attention by segments of queries, and its gradient: nothing of the size of the scores is kept."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import TokenLayout, zero_padding
from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.modules.rotary import rotate
from genoattn.attention.ops.hierarchical_partition import Part, Scratch, partition
from genoattn.attention.ops.hierarchical_pooling import (
    NEAR,
    Cells,
    Runs,
    coarse_cells,
    collected,
    levels,
    pool,
    token_cells,
    unit,
    unpool,
)
from genoattn.attention.ops.hierarchical_softmax import answer, gradients

ROWS = 8192
"""Queries of all sequences and heads together that are answered at once: their scores stay in the cache."""


class Plan(NamedTuple):
    """What is the same for all segments of a sequence."""

    length: int
    block: int
    causal: bool

    @property
    def unit(self) -> int:
        """Segments begin at multiples of so many tokens, and read the keys of as many on either side."""
        return unit(self.length, self.block)

    def segments(self, size: int) -> list[tuple[int, int]]:
        """Where segments of at least one unit begin and end."""
        size = max(1, size // self.unit) * self.unit
        return [(start, min(start + size, self.length)) for start in range(0, self.length, size)]

    def beside(self, start: int, stop: int) -> tuple[int, int]:
        """The tokens whose keys a segment reads one by one or in near cells."""
        return max(0, start - self.unit), stop if self.causal else min(self.length, stop + self.unit)

    def near(self, cells: Cells, first: int, start: int, stop: int) -> Runs:
        """The near levels around a segment, from its cells and those beside it, which begin at token `first`."""
        end = self._whole(start, stop) + (0 if self.causal else self.unit)
        after = end - first - cells.count.shape[1]
        return pool(cells, min(levels(self.length, self.block), NEAR), self.block, first - start + self.unit, after)

    def held(self, cells: Iterable[Cells]) -> Runs | None:
        """The levels above the near ones, from cells of the lowest of them (None: there are none)."""
        high = levels(self.length, self.block) - NEAR
        return pool(collected(cells, -(-self.length >> NEAR)), high, self.block) if high > 0 else None

    def parts(self, near: Runs, held: Runs | None, start: int, stop: int) -> list[Part]:
        """What a segment's queries read."""
        return partition(
            near, held, start=start, stop=self._whole(start, stop), length=self.length, block=self.block,
            causal=self.causal,
        )  # fmt: skip

    def rows(self, x: Tensor) -> Tensor:
        """A segment's channels by sequence, head and place, with zeros to whole units; in float32 at least."""
        x, tail = x.to(torch.promote_types(x.dtype, torch.float32)).transpose(1, 2), -x.shape[1] % self.unit
        return (F.pad(x, (0, 0, 0, tail)) if tail else x).flatten(0, 2)

    def _whole(self, start: int, stop: int) -> int:
        return start + -(-(stop - start) // self.unit) * self.unit


def answer_segment(
    plan: Plan, start: int, q: Tensor, positions: Tensor | None, cells: Cells, first: int, held: Runs | None,
    scratch: Scratch,
) -> Tensor:  # fmt: skip
    """The answers to queries from token `start` on, their keys' cells beginning at token `first`."""
    batch, count, heads, dim_head = q.shape
    near = plan.near(cells, first, start, start + count)
    rows = plan.rows(_turned(q, positions)).mul(dim_head**-0.5)
    y = answer(rows, plan.parts(near, held, start, start + count), scratch)
    return y.view(batch, heads, -1, dim_head)[:, :, :count].transpose(1, 2)


class HierarchicalFunction(torch.autograd.Function):
    """`apply(q, k, v, positions, keep, causal, block)`; only those are kept for the gradient."""

    @staticmethod
    def forward(ctx, q, k, v, positions, keep, causal: bool, block: int):
        ctx.save_for_backward(q, k, v, positions, keep)
        ctx.plan = plan = Plan(q.shape[1], block, causal)
        segments = plan.segments(ROWS // (q.shape[0] * q.shape[2]))
        held = _held(plan, segments, k, v, positions, keep)
        y, scratch = torch.empty(q.shape, dtype=q.dtype, device=q.device), Scratch()
        for start, stop in segments:
            first, last = plan.beside(start, stop)
            cells = _cut(k, v, positions, keep, first, last)
            turns = None if positions is None else positions[:, start:stop]
            y[:, start:stop] = answer_segment(plan, start, q[:, start:stop], turns, cells, first, held, scratch)
        return y

    @staticmethod
    @first_order_only
    def backward(ctx, upstream):
        q, k, v, positions, keep = ctx.saved_tensors
        plan, (batch, _, heads, dim_head) = ctx.plan, q.shape
        segments = plan.segments(ROWS // (batch * heads))
        held = _held(plan, segments, k, v, positions, keep)
        if held is not None:
            held = held._replace(totals=(torch.zeros_like(held.k), torch.zeros_like(held.v)))
        dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
        scratch, done = Scratch(), 0
        for start, stop in segments:
            first, last = plan.beside(start, stop)
            near = plan.near(_cut(k, v, positions, keep, first, last), first, start, stop)
            totals = (scratch(name, t, *t.shape).zero_() for name, t in (("near k", near.k), ("near v", near.v)))
            near = near._replace(totals=tuple(totals))
            turns = None if positions is None else positions[:, start:stop]
            rows = plan.rows(_turned(q[:, start:stop], turns)).mul(dim_head**-0.5)
            d_rows = gradients(
                rows, plan.rows(upstream[:, start:stop]), plan.parts(near, held, start, stop), scratch
            ).mul_(dim_head**-0.5)
            d_turned = d_rows.view(batch, heads, -1, dim_head)[:, :, : stop - start].transpose(1, 2)
            dq[:, start:stop] = _turned(d_turned, None if turns is None else -turns)
            for total, part in zip((dk, dv), unpool(near), strict=True):
                total[:, first:done] += part[:, : done - first]
                total[:, done:last] = part[:, done - first :]
            done = last
        if held is not None:
            for total, gradient in zip((dk, dv), unpool(held), strict=True):
                _spread(gradient, total, keep, segments)
        return dq, dk, dv, None, None, None, None


def _turned(x: Tensor, positions: Tensor | None) -> Tensor:
    return x if positions is None else rotate(x, positions)


def _cut(k: Tensor, v: Tensor, positions: Tensor | None, keep: Tensor | None, start: int, stop: int) -> Cells:
    turns, real = (None if t is None else t[:, start:stop] for t in (positions, keep))
    return token_cells(k[:, start:stop], v[:, start:stop], turns, real)


def _held(
    plan: Plan, segments: list[tuple[int, int]], k: Tensor, v: Tensor, positions: Tensor | None, keep: Tensor | None
) -> Runs | None:
    return plan.held(coarse_cells(_cut(k, v, positions, keep, start, stop)) for start, stop in segments)


def _spread(gradient: Tensor, total: Tensor, keep: Tensor | None, segments: list[tuple[int, int]]) -> None:
    """Add the gradient of the lowest cells held, means of real tokens, to that of their tokens."""
    size = 1 << NEAR
    for start, stop in segments:
        real = torch.ones_like(total[:, start:stop, 0, 0]) if keep is None else keep[:, start:stop].to(total.dtype)
        real = F.pad(real, (0, -real.shape[1] % size)).unflatten(1, (-1, size))
        share = real / real.sum(2, keepdim=True).clamp_min(1)
        wide = gradient[:, start // size : -(-stop // size), None] * share[..., None, None]
        total[:, start:stop] += wide.flatten(1, 2)[:, : stop - start]


def hierarchical_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    positions: Int[Tensor, "#batch length"] | None = None,
    keep: Bool[Tensor, "batch length"] | None = None,
    seen: Bool[Tensor, "batch length"] | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention over tokens nearby and cells of 2^l of them farther away; 0 at padding.

    Blocks of level l are `block` cells of 2^l tokens. A query reads the tokens of its block and of those beside it;
    then, level by level, of the blocks beside its own what it has not read yet, in that level's cells. Every token is
    so read once. A cell stands for its real tokens by their mean key, mean value and the logarithm of their count.
    With `positions` queries and means are turned. At padding q, k and v may hold anything finite. Where not all real
    tokens are, `seen` says which are; a query that sees none answers something finite.
    """
    if not q.numel():
        return v
    turns = None if positions is None else positions.expand(q.shape[:2])
    shown = keep if seen is None else seen
    return zero_padding(HierarchicalFunction.apply(q, k, v, turns, shown, causal, block), keep)


def _across(
    attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, causal: bool
) -> Tensor:
    """Each segment's queries over the tokens of all others, in cells without its own; 0 where there are none."""
    y = torch.zeros_like(q)
    if layout.segment_ids is None:
        return y
    for segment in layout.segment_ids.unique():
        own = layout.segment_ids == segment
        others = ~own if layout.padding_mask is None else ~own & layout.padding_mask
        some = others.cummax(1).values if causal else others.any(1, keepdim=True)
        y = torch.where((own & some)[:, :, None, None], attend(q, k, v, seen=others), y)
    return y
