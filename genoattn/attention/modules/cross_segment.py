"""Heads that see only the tokens of another segment: through channels of their own, so that no mask is stored."""

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
"""Added to the score of a key that is hidden: its weight underflows to exactly 0, and float16 holds the number."""


Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, float | None], Tensor]
"""Softmax attention of q, k and v [batch, length, heads, channels], its scores times a scale (None: the usual)."""


def cross_segment_attention(
    attend: Attend,
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    cross_heads: int,
    layout: TokenLayout,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`attend` for the first heads as they are; the last `cross_heads` see no key of their own segment.

    A query of theirs that sees no other segment answers 0.
    """
    if not cross_heads:
        return attend(q, k, v, None)
    own, dim_head = q.shape[2] - cross_heads, q.shape[3]
    member = segment_one_hot(layout.segment_ids, q)
    extra = segment_channels(dim_head, member.shape[2])
    marks = _channels(member, q, extra, cross_heads)
    # A score of HIDDEN more for every pair of one segment: the product of two channels that say which segment it is.
    wide_q = torch.cat([q[:, :, own:], marks * dim_head**0.5], dim=-1)
    wide_k = torch.cat([k[:, :, own:], marks * HIDDEN], dim=-1)
    real = member if layout.padding_mask is None else member & layout.padding_mask[:, :, None]
    wide_v = torch.cat([v[:, :, own:], _channels(real, v, extra, cross_heads)], dim=-1)
    y = attend(wide_q, wide_k, wide_v, dim_head**-0.5)
    # The values' channels hold the weight that went to each segment: 1 to others in all, or 0 where none was seen.
    elsewhere = y[..., dim_head : dim_head + member.shape[2]].masked_fill(member[:, :, None], 0).sum(-1, keepdim=True)
    y = y[..., :dim_head].masked_fill(elsewhere < 0.5, 0)
    return torch.cat([attend(q[:, :, :own], k[:, :, :own], v[:, :, :own], None), y], dim=2) if own else y


def _channels(member: Tensor, like: Tensor, channels: int, heads: int) -> Tensor:
    return F.pad(member.to(like.dtype), (0, channels - member.shape[2]))[:, :, None].expand(-1, -1, heads, -1)


def segment_channels(dim_head: int, needed: int) -> int:
    """At least the channels needed, to a multiple of the 8 that fused kernels on a GPU ask for."""
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
    """True where a token belongs to a segment, of all that any token of the batch belongs to (None: one)."""
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
    """The same answer from the whole square of scores, for references."""
    if not cross_heads:
        return reference_attention(q, k, v, visible=visible, bias=bias)
    own = q.shape[2] - cross_heads
    another = visible & False if segments is None else visible & (segments[:, :, None] != segments[:, None, :])
    plain = reference_attention(q[:, :, :own], k[:, :, :own], v[:, :, :own], visible=visible)
    return torch.cat([plain, reference_attention(q[:, :, own:], k[:, :, own:], v[:, :, own:], visible=another)], dim=2)
