"""Block-sparse attention: each block of queries attends to the key blocks of highest score."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.ops.block_gather import (
    FUSED,
    at_least_float32,
    chunks_that_fit,
    selected_attention,
)
from genoattn.attention.ops.sizes import sizes


def select_blocks(
    q: Float[Tensor, "batch count block heads dim_head"],
    k: Float[Tensor, "batch count block heads dim_head"],
    real_q: Bool[Tensor, "batch count block"],
    real_k: Bool[Tensor, "batch count block"],
    *,
    causal: bool,
    blocks: int,
    pool: int,
) -> Int[Tensor, "batch count heads chosen"]:
    """Select the key blocks of each query block, in ascending order, after -1 for each missing block.

    The block itself and its neighbours (in a causal layer the one before) are always selected. The others have the
    highest scores: the largest product of the means of `pool` queries and of `pool` keys that follow one another. Only
    real tokens count; a block without a real key is never selected. In a causal layer the selection must not depend on
    later queries: the queries are those of the previous block and the first one of this block. A block without such
    queries takes the nearest blocks.
    """
    asking, keys = pools_of(q, real_q, pool), pools_of(k, real_k, pool)
    if causal:
        asking = earlier_pools(asking, q, real_q)
    return choose_by_pools(asking, keys, causal=causal, blocks=blocks)


class Pools(NamedTuple):
    """Means of the real tokens of each pool of each block, at least float32, or rounding would select other blocks."""

    means: Float[Tensor, "batch count parts heads dim_head"]
    real: Bool[Tensor, "batch count parts"]
    """True for pools with a real token."""


def pools_of(x: Tensor, real: Tensor, pool: int) -> Pools:
    """The pools of x `[batch, count, block, heads, dim_head]`, of which the tokens that are `real` count."""
    x, real = x.to(at_least_float32(x)).unflatten(2, (-1, pool)), real.unflatten(2, (-1, pool))
    sums = (real.to(x.dtype)[..., None, :] @ x.flatten(4)).squeeze(-2).unflatten(-1, x.shape[4:])
    return Pools(sums / real.sum(-1).clamp_min(1)[..., None, None], real.any(-1))


def earlier_pools(pools: Pools, q: Tensor, real: Tensor, before: Pools | None = None) -> Pools:
    """The queries that select for each block of a causal layer: the pools of the block before and its first query.

    `before` are those of the block before the first one.
    """
    means, some = (t[:, :-1] for t in pools)
    if before is None:
        means, some = F.pad(means, (0, 0) * 3 + (1, 0)), F.pad(some, (0, 0, 1, 0))
    else:
        means, some = torch.cat([before.means, means], dim=1), torch.cat([before.real, some], dim=1)
    means = torch.cat([means, q[:, :, :1].to(means.dtype)], dim=2)
    return Pools(means, torch.cat([some, real[:, :, :1]], dim=2))


def choose_by_pools(
    asking: Pools, keys: Pools, *, causal: bool, blocks: int, first: int = 0
) -> Int[Tensor, "batch count heads chosen"]:
    """`select_blocks` from the pools of the queries that select; `first` is the key block of the first query block."""
    batch, count, _, heads, _ = keys.means.shape
    queries, device = asking.means.shape[1], keys.means.device
    index = torch.arange(count, device=device)
    without_query = ~asking.real.any(-1)[:, None, :, None]  # blocks without a query to score with
    empty = ~keys.real.any(-1)[:, None, None, :]
    chosen = []
    for rows in chunks_that_fit(queries, 4 * batch * heads * count, sizes(device).selecting):  # four such below
        scores = _pool_scores(Pools(*(t[:, rows] for t in asking)), keys)
        ahead = index[None, :] - index[first : first + queries][rows, None]
        far = ahead.abs()
        scores = torch.where(without_query[:, :, rows], -far.to(scores.dtype), scores)
        scores.masked_fill_(far <= 1, float("inf")).masked_fill_(empty, float("-inf"))
        if causal:
            scores.masked_fill_(ahead > 0, float("-inf"))
        best = scores.topk(min(blocks, count), dim=-1, sorted=False)
        chosen.append(best.indices.masked_fill(best.values == float("-inf"), -1).sort(-1).values.transpose(1, 2))
    return torch.cat(chosen, dim=1)


def _pool_scores(asking: Pools, keys: Pools) -> Float[Tensor, "batch heads queries count"]:
    """The largest product of a pool of each query block with one of each key block, -inf if none is real."""
    batch, queries, asks, heads, _ = asking.means.shape
    count, parts = keys.means.shape[1:3]
    by_channel = keys.means.flatten(1, 2).permute(0, 2, 3, 1)  # [batch, heads, channels, count * parts]
    hidden, silent = ~keys.real.flatten(1)[:, None, None], ~asking.real
    largest = by_channel.new_empty(batch, heads, queries, count)
    most = sizes(by_channel.device).selecting
    for rows in chunks_that_fit(queries, batch * heads * count * parts * asks, most):
        scores = asking.means[:, rows].flatten(1, 2).transpose(1, 2) @ by_channel
        scores.masked_fill_(hidden | silent[:, rows].flatten(1)[:, None, :, None], float("-inf"))
        scores = scores.unflatten(2, (-1, asks)).unflatten(-1, (count, parts))
        torch.amax(scores, (3, 5), out=largest[:, :, rows])
    return largest


def in_blocks(x: Tensor, block: int) -> Float[Tensor, "batch count block heads dim_head"]:
    """Tokens x `[batch, length, heads, dim_head]` by block, with zeros at the end up to a whole block."""
    tail = -x.shape[1] % block
    return (F.pad(x, (0, 0, 0, 0, 0, tail)) if tail else x).unflatten(1, (-1, block))


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


def computed_dtype(v: Tensor) -> torch.dtype:
    """The dtype of attention to the selected blocks: that of autocast, or of the values."""
    device = v.device.type
    if device in FUSED:  # a CPU is slow in half precision
        return at_least_float32(v)
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else v.dtype


def sparse_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    blocks: int,
    pool: int,
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
        pool: Tokens that are scored together, a divisor of `block`.
        padding_mask: True for real tokens; the output is 0 at padding.
        key_mask: True for the keys to read, if not all real tokens; the output is 0 for a query without any.
    """
    if not q.numel():
        return v
    length, kind = q.shape[1], v.dtype
    tail = -length % block
    real_q, real_k = masks_by_block(q, block, padding_mask, key_mask)
    computed = computed_dtype(v)
    with torch.autocast(q.device.type, enabled=False):
        if tail:
            q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)) for t in (q, k, v))
        q, k, v = (t.unflatten(1, (-1, block)) for t in (q, k, v))
        chosen = select_blocks(q.detach(), k.detach(), real_q, real_k, causal=causal, blocks=blocks, pool=pool)
        q, k, v = (t.to(computed) for t in (q, k, v))
        y = selected_attention(q, k, v, chosen, real_k, causal).flatten(1, 2)[:, :length]
    return zero_padding(y, padding_mask).to(kind)
