"""A short depthwise convolution of the projections of a token with those of its neighbours in its own segment."""

from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genoattn.attention.base import TokenLayout, zero_padding
from genoattn.attention.ops.sizes import sizes

SHORT_CONV = "short convolutions look to the left"
"""Reason of the asymmetry of a layer with short convolutions."""


class Past(NamedTuple):
    """The last tokens before a part of a sequence, 0 at padding, and the segments that they belong to."""

    x: Float[Tensor, "batch past channels"]
    segments: Int[Tensor, "batch past"]

    def before(self, x: Tensor, layout: TokenLayout) -> "Past":
        """These tokens and those of a part that follows them."""
        ids = layout.segment_ids
        ids = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device) if ids is None else ids
        x = zero_padding(x, layout.padding_mask)
        return Past(torch.cat([self.x, x.to(self.x.dtype)], dim=1), torch.cat([self.segments, ids], dim=1))

    def layout_before(self, layout: TokenLayout) -> TokenLayout:
        """The segments of these tokens and of a part that follows them."""
        if layout.segment_ids is None or not self.segments.shape[1]:
            return layout
        return TokenLayout(segment_ids=torch.cat([self.segments, layout.segment_ids], dim=1))

    def last(self, count: int) -> "Past":
        """The last `count` tokens, or all if they are fewer; copies, so that the rest need not be kept."""
        start = max(0, self.x.shape[1] - count)
        return Past(self.x[:, start:].clone(), self.segments[:, start:].clone())


def no_past(batch: int, channels: int, like: Tensor) -> Past:
    """The tokens before the first one: none."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    x = torch.zeros(batch, 0, channels, dtype=dtype, device=like.device)
    return Past(x, torch.zeros(batch, 0, dtype=torch.long, device=like.device))


@final
class ShortConvolution(nn.Module):
    """Depthwise convolution of a token with its neighbours: the first, second, … on each side in its own segment.

    They are 1, 2, … tokens away where a segment stands together, and 2, 4, … where two segments take turns. In other
    orders too a neighbour counts only within `reach`: the 2 · `left` tokens before and the 2 · `right` tokens after.

    Args:
        channels: Channels of a token.
        left: Neighbours before the token itself.
        right: Neighbours after it.
        alone: Begin with the token alone, and not with weights that are independent of each other.
    """

    def __init__(self, channels: int, left: int, right: int = 0, alone: bool = False):
        super().__init__()
        self.left, self.right = left, right
        width = left + 1 + right
        bound = (3 / width) ** 0.5  # independent neighbours keep their variance
        weight = torch.empty(width, channels)
        self.weight = nn.Parameter(weight.normal_(std=0.02) if alone else weight.uniform_(-bound, bound))
        if alone:
            self.weight.data[left] += 1

    @property
    def reach(self) -> tuple[int, int]:
        """Tokens to the left and to the right that an output depends on."""
        return 2 * self.left, 2 * self.right

    def forward(
        self, x: Float[Tensor, "batch tokens channels"], layout: TokenLayout = TokenLayout(), past: int = 0
    ) -> Float[Tensor, "batch length channels"]:
        """Convolve a sequence, without outputs for its first `past` tokens; of their layout the segments count."""
        if not x.numel():
            return x[:, past:] * self.weight.sum()
        weight = self.weight.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            if layout.segment_ids is None or len(layout.segments) == 1:
                y = _convolve(x, weight, self.left)
            elif layout.alternating:
                y = _convolve(x, weight, self.left, 2)
            elif layout.boundary is not None:
                parts = x[:, : layout.boundary], x[:, layout.boundary :]
                y = torch.cat([_convolve(part, weight, self.left) for part in parts], dim=1)
            else:
                y = self._gathered(x, weight, layout.segment_ids)
        return y[:, past:] if past else y

    def _gathered(self, x: Tensor, weight: Tensor, segments: Tensor) -> Tensor:
        """The convolution in any order of segments."""
        y, padded = x * weight[self.left], F.pad(x, (0, 0, 0, 1))
        for side, count in ((-1, self.left), (1, self.right)):
            for rank, index in enumerate(_neighbours(segments, side, count), start=1):
                y = y + padded.take_along_dim(index[..., None], dim=1) * weight[self.left + side * rank]
        return y

    def naive(
        self, x: Float[Tensor, "batch length channels"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length channels"]:
        """`forward` as a sum over all pairs of tokens of a segment whose ranks in it differ by that of a weight."""
        ids = layout.segment_ids
        ids = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device) if ids is None else ids
        index, same = torch.arange(x.shape[1], device=x.device), ids[:, :, None] == ids[:, None, :]
        rank = same.tril(-1).sum(-1)
        offset, further = index[None, :] - index[:, None], rank[:, None, :] - rank[:, :, None]
        near = same & (offset >= -2 * self.left) & (offset <= 2 * self.right)
        taps = [(near & (further == at - self.left)).to(x.dtype) @ x * w for at, w in enumerate(self.weight)]
        return torch.stack(taps).sum(0)


def _neighbours(segments: Tensor, side: int, count: int) -> list[Tensor]:
    """Indices of the first, second, … neighbour of each token on a side in its segment; `length` if there is none."""
    length = segments.shape[1]
    index, rank = torch.arange(length, device=segments.device), torch.zeros_like(segments)
    found = [torch.full_like(segments, length) for _ in range(count)]
    for distance in range(1, min(2 * count + 1, length)):
        at = index + side * distance
        same = (at >= 0) & (at < length) & (segments[:, at.clamp(0, length - 1)] == segments)
        rank = rank + same
        found = [torch.where(same & (rank == n), at, old) for n, old in enumerate(found, start=1)]
    return found


def _convolve(x: Tensor, weight: Tensor, left: int, dilation: int = 1) -> Tensor:
    return _Convolution.apply(x, weight, left, dilation)  # type: ignore[return-value]


class _Convolution(torch.autograd.Function):
    """Convolution of x [batch, length, channels] with weight [width, channels], some tokens at a time.

    Torch's `conv1d` wants the channels first, and its backward pass takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, left: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.left, ctx.dilation = left, dilation
        right = len(weight) - 1 - left
        length, y = x.shape[1], torch.empty_like(x)
        padded = F.pad(x, (0, 0, left * dilation, right * dilation))
        for start, stop in _pieces(x, 0, length):
            piece = torch.mul(padded[:, start:stop], weight[0], out=y[:, start:stop])
            for at in range(1, len(weight)):
                piece.addcmul_(padded[:, start + at * dilation : stop + at * dilation], weight[at])
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        right = len(weight) - 1 - ctx.left
        dx = _convolve(dy, weight.flip(0), right, ctx.dilation) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None, None, None
        wide, sums = torch.promote_types(x.dtype, torch.float32), []
        for shift in range(-ctx.left * ctx.dilation, right * ctx.dilation + 1, ctx.dilation):
            total = x.new_zeros(x.shape[2], dtype=wide)
            for start, stop in _pieces(x, max(0, -shift), x.shape[1] - max(0, shift)):
                total = total + (dy[:, start:stop] * x[:, start + shift : stop + shift]).sum((0, 1), dtype=wide)
            sums.append(total)
        return dx, torch.stack(sums).to(weight.dtype), None, None


def _pieces(x: Tensor, first: int, last: int) -> list[tuple[int, int]]:
    """Bounds of the tokens that are computed together: few enough for the cache of a CPU."""
    step = max(1, sizes(x.device).convolved // x[:, 0].numel())
    return [(start, min(start + step, last)) for start in range(first, last, step)]
