"""One sequence over several processes: what a layer needs to compute its shard.

Every process holds a shard of the tokens of each sequence, and a layer exchanges no more than it must: the neighbours
of the shard (`halo`), any tokens that it names (`fetch`), all of them (`gather_tokens`), or memories of fixed size
(`gather_states`, `total_states`, `carried`). All are differentiable collectives of torch. Every process takes part in
each of them, forwards and backwards.
"""

from genoattn.attention.layout import Span
from genoattn.attention.parallel.channels import own_channels, to_channels, to_shards
from genoattn.attention.parallel.collectives import exchange, gather, total
from genoattn.attention.parallel.shards import (
    Wide,
    fetch,
    gather_tokens,
    halo,
    mask_of_all,
    positions_of_all,
    shard,
    tied,
)
from genoattn.attention.parallel.states import carried, gather_states, total_states

__all__ = [
    "Span",
    "Wide",
    "carried",
    "exchange",
    "fetch",
    "gather",
    "gather_states",
    "gather_tokens",
    "halo",
    "mask_of_all",
    "own_channels",
    "positions_of_all",
    "shard",
    "tied",
    "to_channels",
    "to_shards",
    "total",
    "total_states",
]
