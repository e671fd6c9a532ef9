"""A batch of which several processes compute a shard each: every one has all ids, and the layout of its own tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

from genoattn.attention.base import TokenLayout, zero_padding
from genoattn.attention.layout import Span
from genoattn.attention.parallel import gather_tokens, shard, total_states
from genoattn.attention.parallel.collectives import processes
from genoattn.data.targets import IGNORE_INDEX


class ShardInputs(NamedTuple):
    """The inputs of a model for a shard; ids are those of the whole sequence, because an embedding reads neighbours."""

    ids: Integer[Tensor, "batch total"]
    reference_window: Integer[Tensor, "batch wide"] | None
    layout: TokenLayout
    pooling_weights: Float[Tensor, "batch sites shard"] | None

    @property
    def span(self) -> Span:
        """The tokens of the shard."""
        assert self.layout.span is not None
        return self.layout.span


def shard_inputs(
    ids: Integer[Tensor, "batch length"],
    reference_window: Integer[Tensor, "batch wide"] | None,
    layout: TokenLayout,
    pooling_weights: Float[Tensor, "batch sites length"] | None,
    group: Any,
    multiple: int,
) -> ShardInputs:
    """The inputs of a shard from those of the whole sequence, which is filled up with padding to shards of one length.

    Args:
        ids: Token ids.
        reference_window: Reference ids beside the tokens.
        layout: Layout of the whole sequence.
        pooling_weights: Weights of the tokens of each site.
        group: The processes.
        multiple: Tokens that a shard must be a multiple of.
    """
    _, own = shard(ids, layout, group, multiple)
    assert own.span is not None
    more, part = own.span.total - ids.shape[1], slice(own.span.start, own.span.stop)
    reference_window, pooling_weights = (
        None if t is None else F.pad(t, (0, more)) for t in (reference_window, pooling_weights)
    )
    weights = None if pooling_weights is None else pooling_weights[..., part]
    return ShardInputs(F.pad(ids, (0, more)), reference_window, own, weights)


def gather_answers(
    logits: Mapping[str, Float[Tensor, "batch _ _"]], names: Sequence[str], length: int, group: Any
) -> dict[str, Float[Tensor, "batch _ _"]]:
    """The logits with those of the named token heads for all `length` tokens, in one collective."""
    if not names:
        return dict(logits)
    rank, world = processes(group)
    span = Span(group, rank, world, logits[names[0]].shape[1], TokenLayout())
    whole = gather_tokens(torch.cat([logits[name] for name in names], -1), span)[:, :length]
    return dict(logits) | dict(zip(names, whole.split([logits[name].shape[-1] for name in names], -1), strict=True))


def own_labels(labels: Shaped[Tensor, "batch length"], shard: int, group: Any) -> Shaped[Tensor, "batch shard"]:
    """The labels of the `shard` tokens of this process; none at the padding that fills up the last shards."""
    rank, world = processes(group)
    labels = F.pad(labels, (0, world * shard - labels.shape[1]), value=IGNORE_INDEX)
    return labels[:, rank * shard : (rank + 1) * shard]


def pool_sites(
    x: Float[Tensor, "batch length dim"],
    pooling_weights: Float[Tensor, "batch sites length"] | None,
    padding_mask: Bool[Tensor, "batch length"] | None,
    span: Span | None = None,
) -> Float[Tensor, "batch 1 wide"]:
    """The first site, each other one minus the first, and the mean of all tokens, concatenated.

    With a `span` the tokens are those of a shard, and the result is that of the whole sequence on every process.
    """
    x = zero_padding(x, padding_mask)
    sums = [x.sum(1), *([] if pooling_weights is None else [pooling_weights.to(x.dtype) @ x])]
    mask, length = padding_mask, x.shape[1]
    if span is not None:
        sums, mask, length = total_states(sums, span), span.whole.padding_mask, span.total
    mean = sums[0] / (length if mask is None else mask.sum(1, keepdim=True))
    if pooling_weights is None:
        return mean[:, None]
    first, *others = sums[1].unbind(1)
    return torch.cat([first, *(other - first for other in others), mean], -1)[:, None]
