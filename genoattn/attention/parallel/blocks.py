"""Blocks of keys that the queries of a shard choose: those alone are fetched, each from its own process."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.layout import Span
from genoattn.attention.modules.cross_segment import View
from genoattn.attention.ops.block_gather import GatheredAttention
from genoattn.attention.ops.block_sparse import (
    Pools,
    choose_by_pools,
    computed_dtype,
    earlier_pools,
    masks_by_block,
    pools_of,
)
from genoattn.attention.parallel.collectives import exchange, gather
from genoattn.attention.parallel.shards import fetch, gather_tokens, mask_of_all


def fetch_rows(
    x: Shaped[Tensor, "rows ..."], span: Span, wanted: Int[Tensor, "wanted"]
) -> Shaped[Tensor, "wanted ..."]:
    """Rows that each process chooses for itself: row i of process r has the number r · rows + i.

    Args:
        x: Rows of this process, as many as of any other.
        span: The processes.
        wanted: Numbers of the rows, in order.
    """
    counts = torch.bincount(wanted // len(x), minlength=span.world)
    asked = gather(counts, span)
    give, take = asked[:, span.rank].tolist(), counts.tolist()
    own = exchange(wanted % len(x), take, give, span)
    return exchange(x.index_select(0, own), give, take, span)


def block_before(x: Shaped[Tensor, "batch count ..."], span: Span) -> Shaped[Tensor, "batch few ..."]:
    """The last of the blocks x of the shard before; none before the first shard."""
    count = x.shape[1]
    return fetch(x, replace(span, length=count), lambda rank: [(rank * count - 1, rank * count)] if rank else [])


def selected_over_shards(
    q: Float[Tensor, "batch count block heads dim_head"],
    k: Float[Tensor, "batch count block heads dim_head"],
    v: Float[Tensor, "batch count block heads dim_head"],
    chosen: Int[Tensor, "batch count heads few"],
    real: Bool[Tensor, "batch total block"],
    causal: bool,
    span: Span,
) -> Float[Tensor, "batch count block heads dim_head"]:
    """`selected_attention` of the blocks of a shard; `chosen` and `real` count the blocks of the whole sequence."""
    batch, count, _, heads, width = q.shape
    sequence = torch.arange(batch, device=q.device)[:, None, None, None]
    head = torch.arange(heads, device=q.device)[:, None]
    each = batch * count * heads  # rows of a process, a block and a head each

    def row(at: Tensor) -> Tensor:
        return at // count * each + (sequence * count + at % count) * heads + head

    found, numbers = chosen >= 0, torch.where(chosen < 0, -1, row(chosen.clamp_min(0)))
    mine = row((span.rank * count + torch.arange(count, device=q.device))[:, None, None])[..., 0]
    wanted, table = numbers[found].unique(return_inverse=True)
    table = torch.full_like(chosen, -1).masked_scatter(found, table)
    wanted = wanted if len(wanted) else mine.flatten()[:1]
    rows = torch.cat([k, v], dim=-1).transpose(2, 3).flatten(0, 2)
    k, v = fetch_rows(rows, span, wanted).chunk(2, dim=-1)
    place = wanted % each // heads
    seen = real[place // count, wanted // each * count + place % count]
    own = torch.where(numbers[..., -1] == mine, table[..., -1], -2).flatten(0, 1) if causal else None
    q = q.flatten(0, 1).transpose(1, 2)
    y = GatheredAttention.apply(q, k, v, table.flatten(0, 1), seen, own, width**-0.5)
    assert isinstance(y, Tensor)
    return y.transpose(1, 2).unflatten(0, (batch, count))


def sparse_over_shards(
    q: Float[Tensor, "batch shard heads dim_head"],
    k: Float[Tensor, "batch shard heads dim_head"],
    v: Float[Tensor, "batch shard heads dim_head"],
    view: View,
    span: Span,
    *,
    block: int,
    blocks: int,
    pool: int,
) -> Float[Tensor, "batch shard heads dim_head"]:
    """`sparse_attention` of a shard: the means of keys that are scored are gathered. Masks are those of all tokens."""
    kind, computed, mask = v.dtype, computed_dtype(v), mask_of_all(q, span, view.padding_mask)
    real_q, real_k = masks_by_block(mask, block, mask, view.key_mask)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = (t.unflatten(1, (-1, block)) for t in (q, k, v))
        with torch.no_grad():
            chosen = _selected(q, k, real_q, real_k, view.causal, blocks, pool, span)
        q, k, v = (t.to(computed) for t in (q, k, v))
        y = selected_over_shards(q, k, v, chosen, real_k, view.causal, span)
    return zero_padding(y.flatten(1, 2), mask[:, span.start : span.stop]).to(kind)


def _selected(
    q: Tensor, k: Tensor, real_q: Tensor, real_k: Tensor, causal: bool, blocks: int, pool: int, span: Span
) -> Tensor:
    """The key blocks of the query blocks of a shard, of the whole sequence."""
    first = span.rank * q.shape[1]
    own = slice(first, first + q.shape[1])
    asking = pools_of(q, real_q[:, own], pool)
    if causal:
        means = block_before(asking.means, span)
        some = real_q[:, first - 1 : first].unflatten(2, (-1, pool)).any(-1)
        asking = earlier_pools(asking, q, real_q[:, own], Pools(means, some) if first else None)
    means = gather_tokens(pools_of(k, real_k[:, own], pool).means, span)
    keys = Pools(means, real_k.unflatten(2, (-1, pool)).any(-1))
    return choose_by_pools(asking, keys, causal=causal, blocks=blocks, first=first)
