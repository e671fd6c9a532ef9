"""Heads that see only the tokens of another segment, without a stored mask.

A context of two segments, A (reference) and B (sample), has tokens a1 a2 b1 b2. These heads must see

             a1   a2   b1   b2                  A = a1 a2, B = b1 b2
        a1    .    .    x    x                  x: seen
        a2    .    .    x    x                  .: hidden
        b1    x    x    .    .
        b2    x    x    .    .

A fused kernel multiplies queries and keys and takes no such mask, so the mask becomes part of the product:

1. Every token gets one more channel for each segment: 1 in the channel of its own segment, 0 in the others.
2. The channels of the keys are multiplied by HIDDEN, a large negative number.
3. The product of a query and a key therefore has HIDDEN added if both are of one segment, and 0 if not.
4. The softmax gives a key of the own segment a weight of exactly 0 in floating point, if another key is left.
5. Without another key all weights stay in the own segment, and the output must be 0.
6. To detect this, the values get the same channels: their outputs hold the weight that went to each segment.
7. If less than half of the weight went to other segments, the output is set to 0.
8. The trick needs scores far below 30,000, which `heads.qk_norm` guarantees.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.projections import QKVProjection
from genoattn.attention.modules.reference import reference_attention

HIDDEN = -30000.0
"""Added to the score of a hidden key: its weight underflows to exactly 0, and the number fits into float16."""


Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, float | None], Tensor]
"""Softmax attention of q, k, v `[batch, length, heads, channels]` and the factor of the scores (None: the usual)."""


def cross_segment_attention(
    attend: Attend,
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    cross_heads: int,
    layout: TokenLayout,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Apply `attend`, with the last `cross_heads` heads limited to keys of other segments.

    Their output is 0 if there is no other segment to see.
    """
    if not cross_heads:
        return attend(q, k, v, None)
    own, dim_head = q.shape[2] - cross_heads, q.shape[3]
    member = segment_one_hot(layout.segment_ids, q)
    extra = segment_channels(dim_head, member.shape[2])
    marks = _channels(member, q, extra, cross_heads)
    wide_q = torch.cat([q[:, :, own:], marks * dim_head**0.5], dim=-1)
    wide_k = torch.cat([k[:, :, own:], marks * HIDDEN], dim=-1)
    real = member if layout.padding_mask is None else member & layout.padding_mask[:, :, None]
    wide_v = torch.cat([v[:, :, own:], _channels(real, v, extra, cross_heads)], dim=-1)
    y = attend(wide_q, wide_k, wide_v, dim_head**-0.5)
    elsewhere = y[..., dim_head : dim_head + member.shape[2]].masked_fill(member[:, :, None], 0).sum(-1, keepdim=True)
    y = y[..., :dim_head].masked_fill(elsewhere < 0.5, 0)
    return torch.cat([attend(q[:, :, :own], k[:, :, :own], v[:, :, :own], None), y], dim=2) if own else y


def _channels(member: Tensor, like: Tensor, channels: int, heads: int) -> Tensor:
    return F.pad(member.to(like.dtype), (0, channels - member.shape[2]))[:, :, None].expand(-1, -1, heads, -1)


def segment_channels(dim_head: int, needed: int) -> int:
    """Number of added channels: those needed, rounded up so that a head is a multiple of 8 as GPU kernels ask for."""
    return needed + -(dim_head + needed) % 8


def scored_channels(heads: QKVProjection) -> int:
    """Channels of all heads together in the product of queries and keys, for sequences of one segment."""
    return sum(_widths(heads, 1))


def head_widths(heads: QKVProjection) -> set[int]:
    """The widths of heads that a backend computes, for contexts of two segments."""
    return set(_widths(heads, 2))


def _widths(heads: QKVProjection, segments: int) -> list[int]:
    own, cross, dim_head = heads.count - heads.cross_heads, heads.cross_heads, heads.dim_head
    return [dim_head] * own + [dim_head + segment_channels(dim_head, segments)] * cross


def segment_one_hot(
    segments: Int[Tensor, "batch length"] | None, x: Float[Tensor, "batch length ..."]
) -> Bool[Tensor, "batch length segments"]:
    """True in the column of a token's segment; one column for each segment of the batch (None: one segment)."""
    if segments is None:
        return torch.ones(*x.shape[:2], 1, dtype=torch.bool, device=x.device)
    return segments[..., None] == segments.unique()


def reference_cross_segment_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    visible: Bool[Tensor, "#batch length length"],
    cross_heads: int,
    segments: Int[Tensor, "batch length"] | None,
    bias: Float[Tensor, "heads length length"] | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`cross_segment_attention` over the full score matrix, for `naive`."""
    if not cross_heads:
        return reference_attention(q, k, v, visible=visible, bias=bias)
    own = q.shape[2] - cross_heads
    another = visible & False if segments is None else visible & (segments[:, :, None] != segments[:, None, :])
    plain = reference_attention(q[:, :, :own], k[:, :, :own], v[:, :, :own], visible=visible)
    return torch.cat([plain, reference_attention(q[:, :, own:], k[:, :, own:], v[:, :, own:], visible=another)], dim=2)
