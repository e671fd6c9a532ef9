"""The long convolution of channels that see only the tokens of another segment."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.segment_copies import SegmentCopies
from genoattn.attention.ops.long_convolution import long_convolution


def convolution_across(
    x: Float[Tensor, "batch channels length"],
    taps: Float[Tensor, "channels offsets"],
    zero: int,
    layout: TokenLayout,
) -> Float[Tensor, "batch channels length"]:
    """`long_convolution` where y_i sums over the tokens j of other segments than that of token i.

    Where two segments take turns, each token reads the other segment by every second offset of the filter, at the cost
    of `long_convolution`. In other orders there is a convolution for each segment, of all tokens outside it.
    """
    if len(layout.segments) < 2:
        return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
    if layout.alternating:
        return _turns(x, taps, zero)
    copies = SegmentCopies(layout.segments)
    members = copies.members(layout, x.transpose(1, 2))[:, :, None]
    seen = x.expand(len(members), *x.shape).masked_fill(members, 0)
    y = long_convolution(seen.flatten(0, 1), taps, zero).view_as(seen)
    return y.masked_fill(~members, 0).sum(0)


def _turns(x: Tensor, taps: Tensor, zero: int) -> Tensor:
    """Tokens 2s + p read tokens 2r + 1 - p by the taps of offsets 2(s - r) + 2p - 1, which are a filter of s - r."""
    length = x.shape[-1]
    size = (length + 1) // 2
    middle = size - 1 if zero else 0
    padded = F.pad(taps, (1, 1))  # offset 0 has the index zero + 1
    parts = []
    for parity in (0, 1):
        first = zero - 2 * middle + 2 * parity
        odd = padded[:, first : first + 2 * (middle + size) - 1 : 2]
        keys = x[..., 1 - parity :: 2]
        parts.append(long_convolution(F.pad(keys, (0, size - keys.shape[-1])), odd, middle))
    return torch.stack(parts, dim=-1).flatten(-2)[..., :length]
