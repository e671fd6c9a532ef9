"""The control: values and their projection back, as in every layer, and no mixing between tokens."""

from collections.abc import Iterator
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding


@final
class NoAttention(Attention):
    """Each token sees itself alone; what a model with this layer cannot do, mixing is needed for.

    It keeps the value and the output projection of the other layers and drops queries and keys, which would have
    nothing to weigh.
    """

    complexity = "linear"

    def __init__(self, dim: int, causal: bool):
        super().__init__()
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.causal = causal
        self.weights_sum_to_one = False
        self.receptive_field = (0, 0)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self.out(self.value(zero_padding(x, layout.padding_mask)))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return zero_padding(x, layout.padding_mask) @ (self.out.weight @ self.value.weight).T

    def init_state(self, batch: int) -> State:
        return ()

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        return self(x, layout), ()

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        for start in range(0, length, chunk):
            stop = min(start + chunk, length)
            yield start, stop, self(*read_chunk(start, stop))

    def flops(self, length: int) -> int:
        """The two projections."""
        return 4 * length * self.value.in_features**2

    def state_bytes(self, length: int) -> int:
        """Nothing: a next token reads none before it."""
        return 0
