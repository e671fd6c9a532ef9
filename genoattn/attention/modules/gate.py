"""A sigmoid gate of the outputs of a layer, computed from the token itself."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

OPEN_BIAS = 2.0
"""Bias of a gate before training: sigmoid(2) = 0.88."""


@final
class Gate(nn.Module):
    """y ∘ sigmoid(x W + b), with `gates` gates for `dim` channels: each gates an equal share of neighbouring channels.

    Paper: arXiv:2505.06708.
    """

    def __init__(self, dim: int, gates: int):
        super().__init__()
        self.open = nn.Linear(dim, gates)
        nn.init.zeros_(self.open.weight)
        nn.init.constant_(self.open.bias, OPEN_BIAS)

    def forward(
        self, y: Float[Tensor, "batch length dim"], x: Float[Tensor, "batch length dim"]
    ) -> Float[Tensor, "batch length dim"]:
        """`y` gated by the tokens `x`."""
        gates = self.open.out_features
        return (y.unflatten(-1, (gates, -1)) * self.open(x).sigmoid()[..., None]).flatten(-2)

    def flops(self, length: int) -> int:
        """FLOPs of the projection to the gates."""
        return 2 * length * self.open.in_features * self.open.out_features
