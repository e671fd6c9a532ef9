"""A short depthwise convolution of the projections of a token with those of its neighbours."""

from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CACHE_ELEMENTS = 2**18
"""Elements of a tensor that is computed at a time on a CPU."""


@final
class ShortConvolution(nn.Module):
    """Depthwise convolution y_i = Σ_j w_{j - i} ∘ x_j over the tokens within reach.

    Args:
        channels: Channels of a token.
        left: Tokens seen before the token itself.
        right: Tokens seen after it.
    """

    def __init__(self, channels: int, left: int, right: int = 0):
        super().__init__()
        self.left, self.right = left, right
        width = left + 1 + right
        bound = (3 / width) ** 0.5  # independent neighbours keep their variance
        self.weight = nn.Parameter(torch.empty(width, channels).uniform_(-bound, bound))

    def forward(
        self, x: Float[Tensor, "batch length channels"], before: Float[Tensor, "batch left channels"] | None = None
    ) -> Float[Tensor, "batch length channels"]:
        """Convolve a sequence; `before` are the `left` tokens before it (None: zeros)."""
        if not x.numel():
            return x * self.weight.sum()
        weight = self.weight.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            y = _convolve(x, weight, self.left)
            if before is None or not self.left:
                return y
            few = min(self.left, x.shape[1])
            seen = _convolve(F.pad(before.to(x.dtype), (0, 0, 0, few)), weight, self.left)[:, self.left :]
        return torch.cat([y[:, :few] + seen, y[:, few:]], dim=1)

    def last(
        self, x: Float[Tensor, "batch length channels"], before: Float[Tensor, "batch left channels"]
    ) -> Float[Tensor, "batch left channels"]:
        """The last `left` tokens, which those after `x` see, in the dtype of `before`."""
        start = x.shape[1] - self.left
        return x[:, start:].to(before.dtype, copy=True) if start >= 0 else torch.cat([before, x], 1)[:, x.shape[1] :]

    def naive(self, x: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch length channels"]:
        """`forward` as a sum over shifted sequences."""
        length, x = x.shape[1], F.pad(x, (0, 0, self.left, self.right))
        return torch.stack([x[:, at : at + length] * weight for at, weight in enumerate(self.weight)]).sum(0)


def _convolve(x: Tensor, weight: Tensor, left: int) -> Tensor:
    return _Convolution.apply(x, weight, left)  # type: ignore[return-value]


class _Convolution(torch.autograd.Function):
    """Convolution of x [batch, length, channels] with weight [width, channels], some tokens at a time.

    Torch's `conv1d` wants the channels first, and its backward pass takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, left: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.left = left
        length, padded, y = x.shape[1], F.pad(x, (0, 0, left, len(weight) - 1 - left)), torch.empty_like(x)
        for start, stop in _pieces(x, 0, length):
            piece = torch.mul(padded[:, start:stop], weight[0], out=y[:, start:stop])
            for at in range(1, len(weight)):
                piece.addcmul_(padded[:, start + at : stop + at], weight[at])
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        dx = _convolve(dy, weight.flip(0), len(weight) - 1 - ctx.left) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None, None
        wide, sums = torch.promote_types(x.dtype, torch.float32), []
        for shift in range(-ctx.left, len(weight) - ctx.left):
            total = x.new_zeros(x.shape[2], dtype=wide)
            for start, stop in _pieces(x, max(0, -shift), x.shape[1] - max(0, shift)):
                total = total + (dy[:, start:stop] * x[:, start + shift : stop + shift]).sum((0, 1), dtype=wide)
            sums.append(total)
        return dx, torch.stack(sums).to(weight.dtype), None


def _pieces(x: Tensor, first: int, last: int) -> list[tuple[int, int]]:
    """Bounds of the tokens that are computed together: few enough for the cache of a CPU."""
    step = max(1, CACHE_ELEMENTS // x[:, 0].numel()) if x.device.type == "cpu" else max(1, last - first)
    return [(start, min(start + step, last)) for start in range(first, last, step)]
