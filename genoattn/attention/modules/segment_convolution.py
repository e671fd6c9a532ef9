"""Short convolutions of queries, keys and values over the preceding tokens of a token's own sequence."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genoattn.attention.base import TokenLayout, zero_padding

SHORT_CONV = "short convolutions look to the left"
"""Reason of the asymmetry of a layer with short convolutions."""


class Past(NamedTuple):
    """The last tokens before a part of a sequence, 0 at padding, and the segments that they belong to."""

    x: Float[Tensor, "batch past dim"]
    segments: Int[Tensor, "batch past"]

    def before(self, x: Tensor, layout: TokenLayout) -> "Past":
        """These tokens and those of a part that follows them."""
        ids = layout.segment_ids
        ids = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device) if ids is None else ids
        x = zero_padding(x, layout.padding_mask)
        return Past(torch.cat([self.x, x.to(self.x.dtype)], dim=1), torch.cat([self.segments, ids], dim=1))

    def last(self, count: int) -> "Past":
        """The last `count` tokens, or all if they are fewer; copies, so that the rest need not be kept."""
        start = max(0, self.x.shape[1] - count)
        return Past(self.x[:, start:].clone(), self.segments[:, start:].clone())


def no_past(batch: int, dim: int, like: Tensor) -> Past:
    """The tokens before the first one: none."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    x = torch.zeros(batch, 0, dim, dtype=dtype, device=like.device)
    return Past(x, torch.zeros(batch, 0, dtype=torch.long, device=like.device))


@final
class SegmentConvolution(nn.Module):
    """Each channel is a learned sum of a token and the `width - 1` tokens before it, at first the token alone.

    Tokens of another segment count as 0. In sequences whose two segments take turns, the tokens before it are those of
    its own segment. With `activation` SiLU follows.
    """

    def __init__(self, channels: int, width: int, activation: bool = False):
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.zeros(width, channels))
        nn.init.normal_(self.weight, std=0.02)
        with torch.no_grad():
            self.weight[0] += 1

    @property
    def reach(self) -> int:
        """Tokens to the left that an output depends on."""
        return 2 * (len(self.weight) - 1)

    def forward(
        self, x: Float[Tensor, "batch tokens channels"], segments: Int[Tensor, "batch tokens"] | None, past: int
    ) -> Float[Tensor, "batch length channels"]:
        """The sums for all tokens but the first `past`."""
        step = 2 if TokenLayout(segment_ids=segments).alternating else 1
        y = x[:, past:] * self.weight[0]
        for tap in range(1, len(self.weight)):
            back = tap * step
            skipped = max(0, back - past)  # the first tokens have no token so far back
            if skipped >= y.shape[1]:
                break
            start = past + skipped
            earlier = x[:, start - back : x.shape[1] - back]
            if segments is not None and step == 1:
                other = segments[:, start:] != segments[:, start - back : x.shape[1] - back]
                earlier = earlier.masked_fill(other[..., None], 0)
            more = earlier * self.weight[tap]
            y = torch.cat([y[:, :skipped], y[:, skipped:] + more], dim=1) if skipped else y + more
        return F.silu(y) if self.activation else y
