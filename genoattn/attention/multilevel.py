"""Hierarchical attention by segments of queries: what is held meanwhile does not grow with the scores."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from genoattn.attention.cells import NEAR, Cells, Runs, coarse_cells, joined, levels, pool, token_cells, unit, unpool
from genoattn.attention.heads import rotate
from genoattn.attention.partition import Scratch, answer, gradients, partition

ROWS = 8192
"""Queries of all sequences and heads that are answered at once: their scores stay in the cache."""


def segments(length: int, sequences: int, block: int) -> list[tuple[int, int]]:
    """Where segments begin and end; they begin at multiples of the unit."""
    size = max(1, ROWS // sequences // unit(length, block)) * unit(length, block)
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def rows_of(x: Tensor, whole: int) -> Tensor:
    """[batch * heads * queries, dim_head] in float32 at least, with zeros to a multiple of `whole` queries."""
    exact = torch.promote_types(x.dtype, torch.float32)
    return F.pad(x.to(exact).transpose(1, 2), (0, 0, 0, -x.shape[1] % whole)).flatten(0, 2)


def answer_segment(
    q: Tensor, positions: Tensor | None, cells: Cells, held: Runs | None, scratch: Scratch,
    *, start: int, first: int, length: int, block: int, causal: bool,
) -> Tensor:  # fmt: skip
    """The answers at tokens from `start` on, as many as there are queries, from cells of tokens from `first` on."""
    batch, count, heads, dim_head = q.shape
    whole = unit(length, block)
    near, stop = pool_near(cells, start, start + count, first, length, block, causal)
    rows = rows_of(q if positions is None else rotate(q, positions), whole) * dim_head**-0.5
    parts = partition(near, held, start=start, stop=stop, length=length, block=block, causal=causal)
    y = answer(rows, parts, near, held, scratch)
    return y.view(batch, heads, -1, dim_head)[:, :, :count].transpose(1, 2)


def pool_near(
    cells: Cells, start: int, stop: int, first: int, length: int, block: int, causal: bool
) -> tuple[Runs, int]:
    """The near levels from one unit before `start` to one after `stop`, and `stop` rounded up to a unit."""
    whole = unit(length, block)
    rounded = start + -(-(stop - start) // whole) * whole
    last = first + cells.count.shape[1]
    end = rounded if causal else rounded + whole
    return pool(cells, min(levels(length, block), NEAR), block, first - (start - whole), end - last), rounded


def beside(start: int, stop: int, length: int, block: int, causal: bool) -> slice:
    """The tokens whose near cells a segment reads."""
    whole = unit(length, block)
    return slice(max(0, start - whole), stop if causal else min(length, stop + whole))


def cut(k: Tensor, v: Tensor, positions: Tensor | None, keep: Tensor | None, at: slice) -> Cells:
    return token_cells(
        k[:, at], v[:, at], None if positions is None else positions[:, at], None if keep is None else keep[:, at]
    )


def hold(parts: Iterable[Cells], length: int, block: int) -> Runs:
    """The levels above the near ones, from cells of the lowest of them."""
    return pool(joined(parts), levels(length, block) - NEAR, block)


class HierarchicalFunction(torch.autograd.Function):
    """`forward(q, k, v, positions, keep, causal, block)`; nothing but those is saved for the gradient."""

    @staticmethod
    def forward(ctx, q, k, v, positions, keep, causal, block):
        ctx.save_for_backward(q, k, v, positions, keep)
        ctx.causal, ctx.block = causal, block
        batch, length, heads, _ = q.shape
        pieces = segments(length, batch * heads, block)
        held = _hold(k, v, positions, keep, pieces, block)
        out, scratch = torch.empty(q.shape, dtype=q.dtype, device=q.device), Scratch()
        for start, stop in pieces:
            at = beside(start, stop, length, block, causal)
            out[:, start:stop] = answer_segment(
                q[:, start:stop], None if positions is None else positions[:, start:stop],
                cut(k, v, positions, keep, at), held, scratch,
                start=start, first=at.start, length=length, block=block, causal=causal,
            )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        q, k, v, positions, keep = ctx.saved_tensors
        causal, block = ctx.causal, ctx.block
        batch, length, heads, dim_head = q.shape
        whole, pieces = unit(length, block), segments(length, batch * heads, block)
        held = _hold(k, v, positions, keep, pieces, block)
        held_total = None if held is None else (torch.zeros_like(held.k), torch.zeros_like(held.v))
        dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
        scratch, ready = Scratch(), 0
        for start, stop in pieces:
            turns = None if positions is None else positions[:, start:stop]
            at = beside(start, stop, length, block, causal)
            near, rounded = pool_near(cut(k, v, positions, keep, at), start, stop, at.start, length, block, causal)
            parts = partition(near, held, start=start, stop=rounded, length=length, block=block, causal=causal)
            piece = q[:, start:stop] if turns is None else rotate(q[:, start:stop], turns)
            rows = rows_of(piece, whole) * dim_head**-0.5
            totals = scratch("k", near.k, *near.k.shape).zero_(), scratch("v", near.v, *near.v.shape).zero_()
            d_rows = gradients(
                rows, rows_of(upstream[:, start:stop], whole), parts, near, held, (totals, held_total), scratch
            )
            d_piece = d_rows.view(batch, heads, -1, dim_head)[:, :, : stop - start].transpose(1, 2) * dim_head**-0.5
            dq[:, start:stop] = d_piece if turns is None else rotate(d_piece, -turns)
            for total, part in zip((dk, dv), unpool(near, *totals), strict=True):
                total[:, at.start : ready] += part[:, : ready - at.start]
                total[:, ready : at.stop] = part[:, ready - at.start :]
            ready = at.stop
        if held is not None:
            _spread(unpool(held, *held_total), (dk, dv), keep, pieces)
        return dq, dk, dv, None, None, None, None


def _hold(k, v, positions, keep, pieces, block: int) -> Runs | None:
    length = k.shape[1]
    if levels(length, block) <= NEAR:
        return None
    return hold((coarse_cells(cut(k, v, positions, keep, slice(*piece))) for piece in pieces), length, block)


def _spread(gradients, totals, keep, pieces) -> None:
    """Add the gradients of the lowest cells held to those of their tokens."""
    size = 1 << NEAR
    for start, stop in pieces:
        for total, gradient in zip(totals, gradients, strict=True):
            count = torch.ones_like(total[:, start:stop, 0, 0]) if keep is None else keep[:, start:stop].to(total.dtype)
            pairs = F.pad(count, (0, -(stop - start) % size)).unflatten(1, (-1, size))
            share = (pairs / pairs.sum(2, keepdim=True).clamp_min(1)).flatten(1)[:, : stop - start]
            wide = gradient[:, start // size : -(-stop // size)].repeat_interleave(size, dim=1)[:, : stop - start]
            total[:, start:stop] += wide.to(total.dtype) * share[..., None, None]
