"""Attention of query blocks over gathered key blocks, a group of query blocks at a time, and its gradient."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.ops.sizes import sizes

MASKED_SCORE = -1e30
"""Added to the score of an invisible key: below any score, and finite, so that no row becomes NaN."""


FUSED = frozenset({"cpu"})
"""Device types with torch's flash kernel for CPUs; on others matrix products and a softmax replace it."""


def chunks_that_fit(total: int, each: int, most: int) -> Iterator[slice]:
    """Slices of `total` items of `each` elements, with at most `most` elements in a slice, or one item."""
    step = max(1, most // each)
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


class GatheredAttention(torch.autograd.Function):
    """Attention of q [blocks, heads, block, channels] to blocks of k and v [rows, block, channels].

    For each block and head, `chosen` [blocks, heads, few] are rows of k and v, or -1, and in a causal layer `own`
    [blocks, heads] the row of the block itself. `real` [rows, block] are the keys that may be seen.

    Both passes gather the keys and values of a group of blocks at a time. The backward pass adds to one gradient for
    all groups: the backward pass of a gather would make one as long as the sequence for each group.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, real: Tensor, own: Tensor | None, scale: float
    ) -> Tensor:
        k, v = k.contiguous(), v.contiguous()
        y, lse = torch.empty_like(q), torch.empty(q.shape[:3], dtype=at_least_float32(q), device=q.device)
        each = chosen[0].numel() * q.shape[2] * max(q.shape[2:])
        for rows in chunks_that_fit(len(q), each, sizes(q.device).gathered):
            index, mask = _index_and_mask(chosen, real, rows, own, lse.dtype)
            few_k, few_v = _gather(k, index), _gather(v, index)
            part, part_lse = _attend(q[rows].flatten(0, 1), few_k, few_v, mask, scale)
            if mask is not None:  # queries that see no key: the weights of exp(score - infinity) are 0 in backward
                nothing = part_lse < MASKED_SCORE / 2
                part, part_lse = part.masked_fill(nothing[..., None], 0), part_lse.masked_fill(nothing, float("inf"))
            y[rows], lse[rows] = part.view_as(y[rows]), part_lse.view_as(lse[rows])
        ctx.save_for_backward(q, k, v, chosen, real, own, y, lse)
        ctx.scale = scale
        return y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, chosen, real, own, y, lse = ctx.saved_tensors
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(t.shape, dtype=lse.dtype, device=t.device) for t in (k, v))
        each = chosen[0].numel() * q.shape[2] * max(q.shape[2:])
        for rows in chunks_that_fit(len(q), each, sizes(q.device).gathered):
            index, mask = _index_and_mask(chosen, real, rows, own, lse.dtype)
            few_k, few_v = _gather(k, index), _gather(v, index)
            queries, dy, output, total = (t[rows].flatten(0, 1) for t in (q, upstream[0], y, lse))
            part, few_dk, few_dv = _attend_backward(dy, queries, few_k, few_v, output, total, mask, ctx.scale)
            dq[rows] = part.view_as(dq[rows])
            for gradient, few in ((dk, few_dk), (dv, few_dv)):
                flat = gradient.flatten(1)
                flat.index_add_(0, index.flatten(), few.reshape(-1, flat.shape[1]).to(flat.dtype))
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None, None, None


def selected_attention(
    q: Float[Tensor, "batch count block heads dim_head"],
    k: Float[Tensor, "batch count block heads dim_head"],
    v: Float[Tensor, "batch count block heads dim_head"],
    chosen: Int[Tensor, "batch count heads few"],
    real: Bool[Tensor, "batch count block"],
    causal: bool,
) -> Float[Tensor, "batch count block heads dim_head"]:
    """Softmax attention of each query block over the tokens of its chosen key blocks; any finite value at padding."""
    # A row of keys is a block and a head, of all sequences, so that groups need not end where a sequence does.
    heads = q.shape[3]
    own = torch.arange(chosen[..., 0].numel(), device=q.device).view(-1, heads)
    first = own[:, 0].view(len(q), -1)[:, :1, None, None] + torch.arange(heads, device=q.device)[:, None]
    table = torch.where(chosen < 0, chosen, chosen * heads + first).flatten(0, 1)
    q, k, v = (t.flatten(0, 1).transpose(1, 2) for t in (q, k, v))
    k, v = (t.flatten(0, 1) for t in (k, v))
    seen = real.flatten(0, 1).repeat_interleave(heads, dim=0)
    y = GatheredAttention.apply(q, k, v, table, seen, own if causal else None, q.shape[-1] ** -0.5)
    assert isinstance(y, Tensor)
    return y.transpose(1, 2).unflatten(0, real.shape[:2])


def at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Chosen blocks one after another: [blocks * heads, keys, channels]."""
    return x.flatten(1).index_select(0, index.flatten()).view(len(index), -1, x.shape[2])


def _index_and_mask(
    chosen: Tensor, real: Tensor, rows: slice, own: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Rows of the keys of a group, and the mask to add to their scores.

    The mask is [blocks * heads, block or 1, keys], or None if all keys are visible.
    """
    blocks = chosen[rows]
    index = blocks.clamp_min(0)
    visible = real[index] & (blocks >= 0)[..., None]
    mask = None
    if real.device.type != "cpu" or not visible.all():  # on a GPU the question would cost more
        mask = torch.where(visible, 0.0, MASKED_SCORE).to(dtype).flatten(2).flatten(0, 1)[:, None]
    if own is not None:  # a block's own, if it has a key to read, is the last of its blocks
        block = real.shape[1]
        ahead = torch.ones(block, block, dtype=torch.bool, device=real.device).triu(1)
        last = blocks[..., -1] == own[rows]
        ends = F.pad(torch.where(ahead, MASKED_SCORE, 0.0).to(dtype), (visible.shape[2] * block - block, 0))[None]
        ends = ends if last.device.type == "cpu" and last.all() else ends * last.flatten()[:, None, None]
        mask = ends if mask is None else mask + ends
    return index.flatten(0, 1), mask


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Softmax attention and its log-sum-exp, for each item of the batch."""
    if q.device.type in FUSED:
        mask = None if mask is None else mask[:, None]
        y, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q[:, None], k[:, None], v[:, None], attn_mask=mask, scale=scale
        )
        return y[:, 0], lse[:, 0]
    scores = _scores(q, k, mask, scale)
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse


def _attend_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    if q.device.type in FUSED:
        mask = None if mask is None else mask[:, None]
        dy, q, k, v, y, lse = (t[:, None] for t in (dy, q, k, v, y, lse))
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            dy, q, k, v, y, lse, 0.0, False, attn_mask=mask, scale=scale
        )
        return gradients[0][:, 0], gradients[1][:, 0], gradients[2][:, 0]
    weights = (_scores(q, k, mask, scale) - lse[..., None]).exp()
    shared = (dy * y).sum(-1, keepdim=True, dtype=lse.dtype)
    dscores = (weights * ((dy @ v.transpose(1, 2)) - shared) * scale).to(q.dtype)
    return dscores @ k, dscores.transpose(1, 2) @ q, weights.to(dy.dtype).transpose(1, 2) @ dy


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    scores = (q @ k.transpose(1, 2)).to(at_least_float32(q)) * scale
    return scores if mask is None else scores + mask
