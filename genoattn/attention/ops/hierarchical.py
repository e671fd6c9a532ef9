"""Hierarchical attention by segments of queries, and its gradient; no scores are saved for the backward pass."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.modules.rotary import Rope, rotate
from genoattn.attention.ops.hierarchical_partition import KeySet, Workspace, key_sets
from genoattn.attention.ops.hierarchical_pooling import (
    NEAR_LEVELS,
    LevelBuffer,
    PooledTokens,
    chunk_unit,
    concatenate_into,
    levels,
    pool_levels,
    pool_to_level,
    unpool_gradients,
    unpooled_tokens,
)
from genoattn.attention.ops.hierarchical_softmax import softmax_over_sets, softmax_over_sets_backward
from genoattn.attention.ops.sizes import sizes


class Schedule(NamedTuple):
    """Settings that all segments of a sequence share."""

    length: int
    block: int
    causal: bool
    rope: Rope = Rope()

    @property
    def chunk_unit(self) -> int:
        """Number of tokens: segments begin at its multiples and read as many keys on either side."""
        return chunk_unit(self.length, self.block)

    def segments(self, size: int, first: int = 0, last: int | None = None) -> list[tuple[int, int]]:
        """Bounds of segments of at least one unit, of all tokens or of those from `first` to `last`."""
        size, last = max(1, size // self.chunk_unit) * self.chunk_unit, self.length if last is None else last
        return [(start, min(start + size, last)) for start in range(first, last, size)]

    def neighbours(self, start: int, stop: int) -> tuple[int, int]:
        """First and last token whose keys a segment reads one by one or in near cells."""
        return max(0, start - self.chunk_unit), stop if self.causal else min(self.length, stop + self.chunk_unit)

    def near_levels(self, pooled: PooledTokens, first: int, start: int, stop: int) -> LevelBuffer:
        """Near levels around a segment, from its cells and those beside it, which begin at token `first`."""
        end = self._whole(start, stop) + (0 if self.causal else self.chunk_unit)
        after = end - first - pooled.count.shape[1]
        return pool_levels(
            pooled,
            min(levels(self.length, self.block), NEAR_LEVELS),
            self.block,
            first - start + self.chunk_unit,
            after,
            rope=self.rope,
        )

    def far_levels(self, pooled: Iterable[PooledTokens]) -> LevelBuffer | None:
        """Levels above the near ones, from cells of the lowest of them; None if there are none."""
        high = levels(self.length, self.block) - NEAR_LEVELS
        return (
            pool_levels(concatenate_into(pooled, -(-self.length >> NEAR_LEVELS)), high, self.block, rope=self.rope)
            if high > 0
            else None
        )

    def sets(self, near_levels: LevelBuffer, far_levels: LevelBuffer | None, start: int, stop: int) -> list[KeySet]:
        """Key sets of the queries of a segment."""
        return key_sets(
            near_levels,
            far_levels,
            start=start,
            stop=self._whole(start, stop),
            length=self.length,
            block=self.block,
            causal=self.causal,
        )

    def rows(self, x: Tensor) -> Tensor:
        """Rows of a segment by sequence, head and position, with zeros to whole units; in at least float32."""
        x, tail = x.to(torch.promote_types(x.dtype, torch.float32)).transpose(1, 2), -x.shape[1] % self.chunk_unit
        return (F.pad(x, (0, 0, 0, tail)) if tail else x).flatten(0, 2)

    def _whole(self, start: int, stop: int) -> int:
        return start + -(-(stop - start) // self.chunk_unit) * self.chunk_unit


def attend_chunk(
    schedule: Schedule,
    start: int,
    q: Tensor,
    positions: Tensor | None,
    pooled: PooledTokens,
    first: int,
    far_levels: LevelBuffer | None,
    workspace: Workspace,
) -> Tensor:
    """Outputs of the queries from token `start` on; the cells of their keys begin at token `first`."""
    batch, count, heads, dim_head = q.shape
    near_levels = schedule.near_levels(pooled, first, start, start + count)
    rows = schedule.rows(_rotated(q, positions, schedule.rope)).mul(dim_head**-0.5)
    y = softmax_over_sets(rows, schedule.sets(near_levels, far_levels, start, start + count), workspace)
    return y.view(batch, heads, -1, dim_head)[:, :, :count].transpose(1, 2)


class Part(NamedTuple):
    """The queries of a part of a sequence, the tokens around them, and the cells of the whole."""

    start: int
    """Token of the first query, a multiple of the unit."""
    first: int
    """Token of the first key; keys reach a unit beyond the queries, as far as there are tokens."""
    count: Int[Tensor, "batch cells"] | None = None
    """Number of real tokens of each cell of the lowest far level of the whole sequence."""
    positions: Int[Tensor, "batch cells"] | None = None
    """Sum of their positions."""


class HierarchicalFunction(torch.autograd.Function):
    """`apply(q, k, v, positions, padding_mask, far_k, far_v, schedule, part)`; no more is saved for the backward pass.

    Positions and mask are those of the keys. The far cells are pooled here from all keys if they are not given.
    """

    @staticmethod
    def forward(ctx, q, k, v, positions, padding_mask, far_k, far_v, schedule: Schedule, part: Part):
        ctx.save_for_backward(q, k, v, positions, padding_mask, far_k, far_v)
        ctx.schedule, ctx.part = schedule, part
        rows = sizes(q.device).hierarchical_rows // (q.shape[0] * q.shape[2])
        segments = schedule.segments(rows, part.start, part.start + q.shape[1])
        far_levels = _far_levels(schedule, segments, part, k, v, positions, padding_mask, far_k, far_v)
        y, workspace = torch.empty(q.shape, dtype=q.dtype, device=q.device), Workspace()
        for start, stop in segments:
            first, last = schedule.neighbours(start, stop)
            pooled = _unpooled(k, v, positions, padding_mask, first - part.first, last - part.first)
            own, position_ids = _own(part, positions, start, stop)
            y[:, own] = attend_chunk(schedule, start, q[:, own], position_ids, pooled, first, far_levels, workspace)
        return y

    @staticmethod
    @first_order_only
    def backward(ctx, upstream):
        q, k, v, positions, padding_mask, far_k, far_v = ctx.saved_tensors
        schedule, part, (batch, _, heads, dim_head) = ctx.schedule, ctx.part, q.shape
        many = sizes(q.device).hierarchical_rows // (batch * heads)
        segments = schedule.segments(many, part.start, part.start + q.shape[1])
        far_levels = _far_levels(schedule, segments, part, k, v, positions, padding_mask, far_k, far_v)
        if far_levels is not None:
            far_levels = far_levels._replace(totals=(torch.zeros_like(far_levels.k), torch.zeros_like(far_levels.v)))
        dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
        workspace, done = Workspace(), 0
        for start, stop in segments:
            first, last = schedule.neighbours(start, stop)
            near = first - part.first, last - part.first
            pooled = _unpooled(k, v, positions, padding_mask, *near)
            near_levels = schedule.near_levels(pooled, first, start, stop)
            totals = (
                workspace(name, t, *t.shape).zero_()
                for name, t in (("near k", near_levels.k), ("near v", near_levels.v))
            )
            near_levels = near_levels._replace(totals=tuple(totals))
            own, position_ids = _own(part, positions, start, stop)
            rows = schedule.rows(_rotated(q[:, own], position_ids, schedule.rope)).mul(dim_head**-0.5)
            sets = schedule.sets(near_levels, far_levels, start, stop)
            d_rows = softmax_over_sets_backward(rows, schedule.rows(upstream[:, own]), sets, workspace)
            d_rotated = d_rows.mul_(dim_head**-0.5).view(batch, heads, -1, dim_head)[:, :, : stop - start]
            back = None if position_ids is None else -position_ids
            dq[:, own] = _rotated(d_rotated.transpose(1, 2), back, schedule.rope)
            for total, gradient in zip((dk, dv), unpool_gradients(near_levels), strict=True):
                total[:, near[0] : done] += gradient[:, : done - near[0]]
                total[:, done : near[1]] = gradient[:, done - near[0] :]
            done = near[1]
        of_cells: tuple[Tensor, ...] = () if far_levels is None else unpool_gradients(far_levels)
        if far_k is None:
            for total, gradient in zip((dk, dv), of_cells, strict=bool(of_cells)):
                _spread(gradient, total, padding_mask, segments)
            of_cells = ()
        return dq, dk, dv, None, None, *(of_cells or (None, None)), None, None


def _own(part: Part, positions: Tensor | None, start: int, stop: int) -> tuple[slice, Tensor | None]:
    """The queries of a segment among those of a part, and their positions."""
    of_keys = slice(start - part.first, stop - part.first)
    return slice(start - part.start, stop - part.start), None if positions is None else positions[:, of_keys]


def _rotated(x: Tensor, positions: Tensor | None, rope: Rope) -> Tensor:
    return x if positions is None else rotate(x, positions, rope)


def _unpooled(
    k: Tensor, v: Tensor, positions: Tensor | None, padding_mask: Tensor | None, start: int, stop: int
) -> PooledTokens:
    position_ids, real = (None if t is None else t[:, start:stop] for t in (positions, padding_mask))
    return unpooled_tokens(k[:, start:stop], v[:, start:stop], position_ids, real)


def _far_levels(
    schedule: Schedule,
    segments: list[tuple[int, int]],
    part: Part,
    k: Tensor,
    v: Tensor,
    positions: Tensor | None,
    padding_mask: Tensor | None,
    far_k: Tensor | None,
    far_v: Tensor | None,
) -> LevelBuffer | None:
    if far_k is not None and far_v is not None:
        assert part.count is not None
        return schedule.far_levels([PooledTokens(far_k, far_v, part.count, part.positions)])
    return schedule.far_levels(
        pool_to_level(_unpooled(k, v, positions, padding_mask, start, stop)) for start, stop in segments
    )


def _spread(gradient: Tensor, total: Tensor, padding_mask: Tensor | None, segments: list[tuple[int, int]]) -> None:
    """Add the gradient of the lowest stored cells, means of real tokens, to that of their tokens."""
    size = 1 << NEAR_LEVELS
    for start, stop in segments:
        real = (
            torch.ones_like(total[:, start:stop, 0, 0])
            if padding_mask is None
            else padding_mask[:, start:stop].to(total.dtype)
        )
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
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    key_mask: Bool[Tensor, "batch length"] | None = None,
    rope: Rope = Rope(),
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention over tokens nearby and cells of 2^l tokens farther away.

    A block of level l has `block` cells of 2^l tokens. A query reads the tokens of its block and of the neighbouring
    blocks, then level by level the cells of the neighbouring blocks that it has not read yet, so that it reads every
    token once. A cell is the mean key and the mean value of its real tokens, and the logarithm of their number.

    Args:
        q: Queries; padding may hold any finite values.
        k: Keys.
        v: Values.
        causal: Read only earlier tokens.
        block: Cells of a block.
        positions: Queries and mean keys are rotated by them.
        padding_mask: True for real tokens; the output is 0 at padding.
        key_mask: True for the keys to read, if not all real tokens; the output is 0 for a query without any.
        rope: Frequencies of the rotation.
    """
    if not q.numel():
        return v
    position_ids = None if positions is None else positions.expand(q.shape[:2])
    visible = padding_mask if key_mask is None else key_mask
    schedule = Schedule(q.shape[1], block, causal, rope)
    y = HierarchicalFunction.apply(q, k, v, position_ids, visible, None, None, schedule, Part(0, 0))
    return zero_padding(y, answerable(padding_mask, key_mask, causal))


def answerable(
    padding_mask: Bool[Tensor, "batch length"] | None, key_mask: Bool[Tensor, "batch length"] | None, causal: bool
) -> Bool[Tensor, "#batch length"] | None:
    """True for the real queries that have a key to read (None: all)."""
    if key_mask is None:
        return padding_mask
    some = key_mask.cummax(1).values if causal else key_mask.any(1, keepdim=True).expand_as(key_mask)
    return some if padding_mask is None else some & padding_mask
