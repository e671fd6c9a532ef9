"""Block-sparse attention: each block of queries attends to the key blocks of highest score."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.ops.block_gather import FUSED, GatheredAttention, at_least_float32, chunks_that_fit


def select_blocks(
    q: Float[Tensor, "batch count block heads dim_head"],
    k: Float[Tensor, "batch count block heads dim_head"],
    real_q: Bool[Tensor, "batch count block"],
    real_k: Bool[Tensor, "batch count block"],
    *,
    causal: bool,
    blocks: int,
) -> Int[Tensor, "batch count heads chosen"]:
    """Select the key blocks of each query block, in ascending order, after -1 for each missing block.

    The block itself and its neighbours (in a causal layer the one before) are always selected. The others have the
    highest scores: the product of the mean query and the mean key. Only real tokens count; a block without a real key
    is never selected. In a causal layer the selection must not depend on later queries: the mean query is that of the
    previous block and of the first query of this block. A block without such queries takes the nearest blocks.
    """
    batch, count, _, heads, _ = q.shape
    sums, reals = _sums(q, real_q), real_q.sum(-1)
    if causal:
        first = real_q[:, :, 0]
        sums = F.pad(sums[:, :-1], (0, 0, 0, 0, 1, 0)) + q[:, :, 0] * first[..., None, None]
        reals = F.pad(reals[:, :-1], (1, 0)) + first
    mean_q = (sums / reals.clamp_min(1)[..., None, None]).transpose(1, 2)
    without_query = (reals == 0)[:, None, :, None]  # blocks without a query to score with
    means = _sums(k, real_k) / real_k.sum(-1).clamp_min(1)[..., None, None]
    index = torch.arange(count, device=q.device)
    empty = ~real_k.any(-1)[:, None, None, :]
    parts = []
    for rows in chunks_that_fit(count, batch * heads * count, q.device):
        scores = mean_q[:, :, rows] @ means.permute(0, 2, 3, 1)
        ahead = index[None, :] - index[rows, None]
        scores = torch.where(without_query[:, :, rows], -ahead.abs().to(scores.dtype), scores)
        scores = scores.masked_fill(ahead.abs() <= 1, float("inf")).masked_fill(empty, float("-inf"))
        if causal:
            scores = scores.masked_fill(ahead > 0, float("-inf"))
        best = scores.topk(min(blocks, count), dim=-1, sorted=False)
        parts.append(best.indices.masked_fill(best.values == float("-inf"), -1).sort(-1).values.transpose(1, 2))
    return torch.cat(parts, dim=1)


def _sums(x: Tensor, real: Tensor) -> Tensor:
    """Sum of each block over its real tokens, in at least float32: [batch, count, heads, channels]."""
    return (real.to(x.dtype)[:, :, None, :] @ x.flatten(3)).view(*x.shape[:2], *x.shape[3:]).to(at_least_float32(x))


def masks_by_block(
    x: Float[Tensor, "batch length ..."],
    block: int,
    padding_mask: Bool[Tensor, "batch length"] | None,
    key_mask: Bool[Tensor, "batch length"] | None,
) -> tuple[Bool[Tensor, "batch count block"], Bool[Tensor, "batch count block"]]:
    """Masks of the real queries and of the keys to read, both by block."""
    real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if padding_mask is None else padding_mask
    queries, keys = (
        F.pad(mask, (0, -mask.shape[1] % block)).unflatten(1, (-1, block))
        for mask in (real, real if key_mask is None else key_mask)
    )
    return queries, keys


def sparse_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    blocks: int,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    key_mask: Bool[Tensor, "batch length"] | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention of each block of queries over the key blocks of `select_blocks`.

    The selection has no gradient. Padding may hold any finite values.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        causal: Hide later tokens.
        block: Tokens of a block.
        blocks: Key blocks of each query block.
        padding_mask: True for real tokens; the output is 0 at padding.
        key_mask: True for the keys to read, if not all real tokens; the output is 0 for a query without any.
    """
    if not q.numel():
        return v
    length, kind = q.shape[1], v.dtype
    tail = -length % block
    real_q, real_k = masks_by_block(q, block, padding_mask, key_mask)
    with torch.autocast(q.device.type, enabled=False):
        taken = at_least_float32(v) if q.device.type in FUSED else kind  # a CPU is slow in half precision
        q, k, v = (t.to(taken) for t in (q, k, v))
        if tail:
            q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)) for t in (q, k, v))
        q, k, v = (t.unflatten(1, (-1, block)) for t in (q, k, v))
        chosen = select_blocks(q.detach(), k.detach(), real_q, real_k, causal=causal, blocks=blocks)
        # Block c of sequence b becomes block b * count + c of all, so that groups need not end where a sequence does.
        first = torch.arange(len(q), device=q.device)[:, None, None, None] * q.shape[1]
        chosen = torch.where(chosen < 0, chosen, chosen + first).flatten(0, 1)
        q, k, v = (t.flatten(0, 1).transpose(1, 2) for t in (q, k, v))
        y = GatheredAttention.apply(q, k, v, chosen, real_k.flatten(0, 1), causal, q.shape[-1] ** -0.5)
    assert isinstance(y, Tensor)
    y = y.transpose(1, 2).unflatten(0, real_k.shape[:2]).flatten(1, 2)[:, :length]
    return zero_padding(y, padding_mask).to(kind)
