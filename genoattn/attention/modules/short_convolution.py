"""A short depthwise convolution of the projections of a token with those of its neighbours."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


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
        self.weight = nn.Parameter(torch.empty(channels, 1, width).uniform_(-(width**-0.5), width**-0.5))

    def forward(
        self, x: Float[Tensor, "batch channels length"], before: Float[Tensor, "batch channels left"] | None = None
    ) -> Float[Tensor, "batch channels length"]:
        """Convolve a sequence, channels first; `before` are the `left` tokens before it (None: zeros)."""
        if not x.numel():
            return x * self.weight.sum()
        x = F.pad(x, (0 if before is not None else self.left, self.right))
        x = x if before is None else torch.cat([before.to(x.dtype), x], dim=-1)
        return F.conv1d(x, self.weight, groups=len(self.weight))

    def naive(self, x: Float[Tensor, "batch channels length"]) -> Float[Tensor, "batch channels length"]:
        """`forward` as a sum over shifted sequences."""
        length, x = x.shape[-1], F.pad(x, (self.left, self.right))
        shifted = torch.stack([x[..., at : at + length] for at in range(self.weight.shape[-1])], dim=-1)
        return (shifted * self.weight).sum(-1)

    def flops(self, length: int) -> int:
        """FLOPs for one sequence."""
        return 2 * length * self.weight.numel()
