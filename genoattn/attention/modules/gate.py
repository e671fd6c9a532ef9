"""A gate of the outputs of a layer, computed from the token itself."""

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

OPEN_BIAS = 2.0
"""Bias of a gate before training: sigmoid(2) = 0.88."""


@final
class Gate(nn.Module):
    """y ∘ sigmoid(x W + b), with `gates` gates for `dim` channels: each gates an equal share of neighbouring channels.

    With `swish` y ∘ silu(x W). Papers: arXiv:2505.06708; swish: RetNet, arXiv:2307.08621.
    """

    def __init__(self, dim: int, gates: int, swish: bool = False):
        super().__init__()
        self.open, self.swish = nn.Linear(dim, gates, bias=not swish), swish
        if not swish:
            nn.init.zeros_(self.open.weight)
            nn.init.constant_(self.open.bias, OPEN_BIAS)

    def forward(
        self, y: Float[Tensor, "batch length dim"], x: Float[Tensor, "batch length dim"]
    ) -> Float[Tensor, "batch length dim"]:
        """`y` gated by the tokens `x`."""
        opened = self.open(x)
        opened = F.silu(opened) if self.swish else opened.sigmoid()
        return (y.unflatten(-1, (opened.shape[-1], -1)) * opened[..., None]).flatten(-2)

    def flops(self, length: int) -> int:
        """FLOPs of the projection to the gates."""
        return 2 * length * self.open.in_features * self.open.out_features
