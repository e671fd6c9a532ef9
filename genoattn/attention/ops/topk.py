"""Top-k attention: each query attends to its keys of highest score, computed for blocks of queries."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.ops.sizes import sizes


def topk_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys heads dim_head"],
    v: Float[Tensor, "batch keys heads dim_head"],
    *,
    causal: bool,
    allowed: Int[Tensor, "batch queries"],
    most: int,
    padding_mask: Bool[Tensor, "batch queries"] | None = None,
    key_mask: Bool[Tensor, "batch keys"] | None = None,
    before: int = 0,
) -> Float[Tensor, "batch queries heads dim_head"]:
    """Softmax attention of each query over its `allowed` visible keys of highest score, or all if they are fewer.

    The scores of some queries are in memory at a time, in the backward pass too. The selection has no gradient.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        causal: Hide later tokens.
        allowed: Number of keys of each query.
        most: A number that no query has more keys than; it may be above the number of all keys.
        padding_mask: True for real tokens; the output is 0 at padding.
        key_mask: True for the keys to read, if not all real tokens; the output is 0 for a query without any.
        before: Keys before that of the first query of a causal layer.
    """
    if not q.numel():
        return v
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        real = padding_mask if key_mask is None else key_mask
        real = torch.ones(k.shape[:2], dtype=torch.bool, device=q.device) if real is None else real
        settings = before if causal else None, q.shape[-1] ** -0.5
        y = _TopK.apply(*(t.to(wide).transpose(1, 2) for t in (q, k, v)), allowed, most, ~real, *settings)
    assert isinstance(y, Tensor)
    return zero_padding(y.transpose(1, 2), padding_mask).to(v.dtype)


def _weights(q: Tensor, k: Tensor, allowed: Tensor, most: int, unread: Tensor, own: int | None, scale: float) -> Tensor:
    """Weights of a block of queries over the keys: [batch, heads, rows, keys].

    `own` is the key of the first query of a causal layer.
    """
    if q.device.type == "cpu":  # on a GPU the question would cost more than what it saves
        most = int(allowed.max())
    scores = (q @ k.transpose(-1, -2)).mul_(scale)
    hidden = unread[:, None, None, : k.shape[2]]
    if own is not None:
        index = torch.arange(k.shape[2], device=q.device)
        hidden = hidden | (index > index[own : own + q.shape[2], None])
    best = scores.masked_fill_(hidden, float("-inf")).topk(min(most, k.shape[2]), dim=-1)
    rank = torch.arange(best.values.shape[-1], device=q.device)
    left_out = (rank >= allowed[:, None, :, None]) | (best.values == float("-inf"))
    # A row without a visible key becomes a softmax of equal scores, whose weights are then set to 0.
    weights = best.values.masked_fill_(left_out, -1e30).softmax(-1).masked_fill_(left_out, 0)
    return scores.zero_().scatter_(-1, best.indices, weights)  # the only square in memory


def _blocks(q: Tensor, keys: int, before: int | None) -> Iterator[tuple[slice, int, int | None]]:
    """Blocks of queries, each with the end of the keys that it may see and, causal, the key of its first query."""
    rows = sizes(q.device).topk_rows
    for start in range(0, q.shape[2], rows):
        own = None if before is None else before + start
        yield slice(start, start + rows), keys if own is None else min(own + rows, keys), own


class _TopK(torch.autograd.Function):
    """`before` is the number of keys before that of the first query of a causal layer, None for one that is not."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        allowed: Tensor,
        most: int,
        unread: Tensor,
        before: int | None,
        scale: float,
    ) -> Tensor:
        y = torch.empty_like(q, memory_format=torch.contiguous_format)
        for rows, end, own in _blocks(q, k.shape[2], before):
            weights = _weights(q[:, :, rows], k[:, :, :end], allowed[:, rows], most, unread, own, scale)
            y[:, :, rows] = weights @ v[:, :, :end]
        ctx.save_for_backward(q, k, v, allowed, unread, y)
        ctx.most, ctx.before, ctx.scale = most, before, scale
        return y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, allowed, unread, y = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        shared = (upstream[0] * y).sum(-1, keepdim=True)
        for rows, end, own in _blocks(q, k.shape[2], ctx.before):
            weights = _weights(q[:, :, rows], k[:, :, :end], allowed[:, rows], ctx.most, unread, own, ctx.scale)
            dy = upstream[0][:, :, rows]
            dv[:, :, :end] += weights.transpose(-1, -2) @ dy
            dscores = (dy @ v[:, :, :end].transpose(-1, -2)).sub_(shared[:, :, rows]).mul_(weights).mul_(ctx.scale)
            dq[:, :, rows] = dscores @ k[:, :, :end]
            dk[:, :, :end] += dscores.transpose(-1, -2) @ q[:, :, rows]
        return dq, dk, dv, None, None, None, None, None
