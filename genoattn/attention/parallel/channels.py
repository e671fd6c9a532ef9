"""Channels of all tokens in place of all channels of a shard, and back, for what mixes each channel by itself."""

from jaxtyping import Shaped
from torch import Tensor

from genoattn.attention.layout import Span
from genoattn.attention.parallel.collectives import exchange


def own_channels(channels: int, span: Span) -> slice:
    """The channels that this process has of all tokens; none if there are more processes than channels."""
    first = sum(_counts(channels, span)[: span.rank])
    return slice(first, first + _counts(channels, span)[span.rank])


def to_channels(x: Shaped[Tensor, "batch shard channels"], span: Span) -> Shaped[Tensor, "batch own total"]:
    """The channels of `own_channels` at all tokens."""
    counts = _counts(x.shape[2], span)
    came = exchange(x.permute(2, 0, 1), counts, [counts[span.rank]] * span.world, span)
    return came.unflatten(0, (span.world, counts[span.rank])).permute(2, 1, 0, 3).flatten(2)


def to_shards(
    y: Shaped[Tensor, "batch own total"], span: Span, channels: int
) -> Shaped[Tensor, "batch channels shard"]:
    """All channels at the tokens of the shard: what `to_channels` did, undone."""
    rows = y.unflatten(2, (span.world, span.length)).permute(2, 1, 0, 3).flatten(0, 1)
    return exchange(rows, [y.shape[1]] * span.world, _counts(channels, span), span).transpose(0, 1)


def _counts(channels: int, span: Span) -> list[int]:
    """Number of channels of each process."""
    return [channels * (rank + 1) // span.world - channels * rank // span.world for rank in range(span.world)]
