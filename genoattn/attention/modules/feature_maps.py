"""Feature maps of linear attention, which replace the exponential of the softmax."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FEATURES = ("elu", "relu", "exp", "taylor", "signed")


def feature_map(
    x: Float[Tensor, "*shape channels"], name: str, by_head: bool = False
) -> Float[Tensor, "*shape features"]:
    """φ: elu(x) + 1, relu(x) + 0.01 or exp(x), channel by channel, or the features whose product is 1 + s + s²/2.

    s is q·k / sqrt(channels), so that Taylor features follow the softmax. All these products are positive, so that no
    denominator can cross 0. Signed features are the channels themselves: their products need another normalisation.
    With `by_head`, features elu of x [batch, length, heads, channels] lie in memory head by head.
    """
    if name == "signed":
        return x
    if name == "elu":
        return _EluPlusOne.apply(x, by_head)  # pyright: ignore[reportReturnType]
    if name == "relu":
        return F.relu(x) + 0.01
    if name == "exp":
        return x.exp()
    x = x * x.shape[-1] ** -0.25
    # Each pair of two channels once: twice the product, or half the square, is what s² / 2 holds of it.
    first, second = torch.triu_indices(x.shape[-1], x.shape[-1], device=x.device).unbind()
    weight = x.new_ones(len(first)).masked_fill(first == second, 0.5**0.5)
    pairs = x[..., first] * x[..., second] * weight
    return torch.cat([torch.ones_like(x[..., :1]), x, pairs], dim=-1)


class _EluPlusOne(torch.autograd.Function):
    """elu(x) + 1, whose slope is the smaller of its value and 1: torch's backward takes the exponential once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, by_head: bool) -> Tensor:
        y = x.permute(2, 0, 1, 3) if by_head else x
        y = torch.clamp(y, max=0, out=torch.empty(y.shape, dtype=y.dtype, device=y.device)).exp_().add_(y.clamp_min(0))
        y = y.permute(1, 2, 0, 3) if by_head else y
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return y.clamp_max(1).mul_(upstream[0]), None  # made of plain operators, so it has a derivative too


def feature_dim(channels: int, name: str) -> int:
    """Number of features of a head with `channels` channels."""
    return 1 + channels + channels * (channels + 1) // 2 if name == "taylor" else channels
