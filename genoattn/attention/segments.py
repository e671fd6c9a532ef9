"""Heads that see only the tokens of another segment: through channels of their own, so that no mask is stored."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import Layout
from genoattn.attention.heads import dense_attention
from genoattn.errors import UserError

HIDDEN = -30000.0
"""Added to the score of a key that is hidden: its weight underflows to exactly 0, and float16 holds the number."""

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, float | None], Tensor]
"""Softmax attention of q, k and v [batch, length, heads, channels], its scores times a scale (None: the usual)."""


def crossing_heads(cross: float, heads: int) -> int:
    """How many of the heads see only another segment; raises UserError at a share that names none."""
    if not 0 <= cross <= 1:
        raise UserError(f"attention.cross is a share of the heads, from 0 to 1, got {cross}")
    if cross and not round(cross * heads):
        raise UserError(f"attention.cross of {cross} of {heads} heads is less than half a head; give 0 or more heads")
    return round(cross * heads)


def attend_by_segment(
    attend: Attend,
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    crossing: int,
    layout: Layout,
    left: int,
    right: int,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`attend` for the first heads as they are; the last `crossing` see no key of their own segment.

    `left` and `right` say how far `attend` reaches; a query that sees no other segment within them answers 0.
    """
    if not crossing:
        return attend(q, k, v, None)
    own, dim_head = q.shape[2] - crossing, q.shape[3]
    member = membership(layout.segments, q)
    extra = extra_channels(dim_head, member.shape[2])
    # A score of HIDDEN more for every pair of one segment: the product of two channels that say which segment it is.
    marks = F.pad(member.to(q.dtype), (0, extra - member.shape[2]))[:, :, None].expand(-1, -1, crossing, -1)
    wide_q = torch.cat([q[:, :, own:], marks * dim_head**0.5], dim=-1)
    wide_k = torch.cat([k[:, :, own:], marks * HIDDEN], dim=-1)
    y = attend(wide_q, wide_k, F.pad(v[:, :, own:], (0, extra)), dim_head**-0.5)[..., :dim_head]
    blind = ~sees_another(member, layout.keep, left, right)
    y = y.masked_fill(blind[:, :, None, None], 0)
    return torch.cat([attend(q[:, :, :own], k[:, :, :own], v[:, :, :own], None), y], dim=2) if own else y


def extra_channels(dim_head: int, needed: int) -> int:
    """At least the channels needed, to a multiple of the 8 that fused kernels on a GPU ask for."""
    return needed + -(dim_head + needed) % 8


def membership(
    segments: Int[Tensor, "batch length"] | None, x: Float[Tensor, "batch length ..."]
) -> Bool[Tensor, "batch length segments"]:
    """True where a token belongs to a segment, of all that any token of the batch belongs to (None: one)."""
    if segments is None:
        return torch.ones(*x.shape[:2], 1, dtype=torch.bool, device=x.device)
    return segments[..., None] == segments.unique()


def sees_another(
    member: Bool[Tensor, "batch length segments"], keep: Bool[Tensor, "batch length"] | None, left: int, right: int
) -> Bool[Tensor, "batch length"]:
    """True where a real token of another segment stands within `left` and `right` of a token."""
    length = member.shape[1]
    real = member if keep is None else member & keep[:, :, None]
    counts = F.pad(real.cumsum(1), (0, 0, 1, 0))
    index = torch.arange(length, device=member.device)
    within = counts[:, (index + right + 1).clamp_max(length)] - counts[:, (index - left).clamp_min(0)]
    return within.masked_fill(member, 0).any(-1)


def dense_by_segment(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    visible: Bool[Tensor, "#batch length length"],
    crossing: int,
    segments: Int[Tensor, "batch length"] | None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """The same answer from the whole square of scores, for references."""
    own = q.shape[2] - crossing
    another = visible & False if segments is None else visible & (segments[:, :, None] != segments[:, None, :])
    plain = dense_attention(q[:, :, :own], k[:, :, :own], v[:, :, :own], visible=visible)
    return torch.cat([plain, dense_attention(q[:, :, own:], k[:, :, own:], v[:, :, own:], visible=another)], dim=2)
