"""The control: values and their projection back, as in every layer, and no mixing between tokens."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, Layout, blank


@final
class NoAttention(Attention):
    """Each token sees itself alone; what a model with this layer cannot do, mixing is needed for.

    It keeps the value and the output projection of the other layers and drops queries and keys, which would have
    nothing to weigh.
    """

    cost = "linear"

    def __init__(self, dim: int, causal: bool):
        super().__init__()
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.causal = causal
        self.averages = False
        self.reach = (0, 0)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        return self.out(self.value(blank(x, layout.keep)))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        return blank(x, layout.keep) @ (self.out.weight @ self.value.weight).T

    def flops(self, length: int) -> int:
        """The two projections."""
        return 4 * length * self.value.in_features**2

    def state_bytes(self, length: int) -> int:
        """Nothing: a next token reads none before it."""
        return 0
