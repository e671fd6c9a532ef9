"""Memories of fixed size: what a shard adds to one, and what it meets of the shards before it or ahead of it."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.layout import Span
from genoattn.attention.parallel.collectives import gather, total


def total_states(states: Sequence[Tensor], span: Span) -> list[Tensor]:
    """The sums over all shards of several tensors, in one collective; all are of one dtype."""
    return _unpacked(total(_packed(states), span), states)


def gather_states(states: Sequence[Tensor], span: Span) -> list[Float[Tensor, "world ..."]]:
    """Several tensors of all shards, in one collective; all are of one dtype."""
    return _unpacked(gather(_packed(states), span), states)


def carried(
    added: Float[Tensor, "world ..."],
    span: Span,
    through: Callable[[int, Tensor], Tensor] = lambda _, state: state,
    ahead: bool = False,
) -> Float[Tensor, "..."]:
    """The memory that this shard meets: it begins empty and goes through the shards before it, one after another.

    Args:
        added: The memory after each shard from an empty one.
        span: The shard.
        through: `through(rank, state)` is what a shard leaves of a memory that it meets (default: all of it).
        ahead: From the right: the memory of the shards after this one.
    """
    state = added[:0].sum(0)  # for a gradient of 0 where there is no such shard
    for rank in range(span.world - 1, span.rank, -1) if ahead else range(span.rank):
        state = through(rank, state) + added[rank]
    return state


def _packed(states: Sequence[Tensor]) -> Tensor:
    return torch.cat([state.flatten() for state in states])


def _unpacked(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([state.numel() for state in like], dim=-1)
    return [part.unflatten(-1, state.shape) for part, state in zip(parts, like, strict=True)]
