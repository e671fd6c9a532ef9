"""A sigmoid gate on the outputs of any other layer, computed from the token itself."""

from collections.abc import Callable, Iterator
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.projections import HeadOptions
from genoattn.errors import UserError

OPEN_BIAS = 2.0
"""Bias of a gate before training: sigmoid(2) = 0.88."""


@final
class GatedAttention(Attention):
    """Gated attention: y = wrapped(x) ∘ sigmoid(x W + b), with a gate for each channel or each head's share of them.

    A token sees what it sees in the wrapped layer, at the same cost and one projection more. The gate follows the
    wrapped layer's output projection, so that it fits layers without heads. Paper: after arXiv:2505.06708.
    """

    def __init__(
        self,
        dim: int,
        causal: bool,
        wrapped: Callable[..., Attention],
        gate_per: Literal["head", "channel"] = "channel",
        heads: HeadOptions = HeadOptions(),
    ):
        super().__init__()
        if dim % heads.count:
            raise UserError(f"heads.count must divide the model's dim of {dim}, got {heads.count}")
        self.wrapped = wrapped(dim=dim, causal=causal)
        self.gate = nn.Linear(dim, dim if gate_per == "channel" else heads.count)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, OPEN_BIAS)
        self.share = dim // self.gate.out_features
        self.causal = causal
        self.complexity, self.receptive_field, self.stride = (
            self.wrapped.complexity,
            self.wrapped.receptive_field,
            self.wrapped.stride,
        )
        self.weights_sum_to_one = False
        self.asymmetry = self.wrapped.asymmetry

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._gated(x, layout, self.wrapped(x, layout))

    def _gated(self, x: Tensor, layout: TokenLayout, y: Tensor) -> Tensor:
        opened = self.gate(zero_padding(x, layout.padding_mask)).sigmoid()
        return (y.unflatten(-1, (-1, self.share)) * opened[..., None]).flatten(-2)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        x = zero_padding(x, layout.padding_mask)
        opened = 1 / (1 + torch.exp(-(x @ self.gate.weight.T + self.gate.bias)))
        return self.wrapped.naive(x, layout) * opened.repeat_interleave(self.share, dim=-1)

    def init_state(self, batch: int) -> State:
        return self.wrapped.init_state(batch)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        y, state = self.wrapped.step(x, state, layout)
        return self._gated(x, layout, y), state

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        for start, stop, y in self.wrapped.forward_chunked(read_chunk, length, chunk):
            yield start, stop, self._gated(*read_chunk(start, stop), y)

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.wrapped.describe_backend(device, dtype)

    def flops(self, length: int) -> int:
        """FLOPs of the wrapped layer and of the gate."""
        return self.wrapped.flops(length) + 2 * length * self.gate.in_features * self.gate.out_features

    def state_bytes(self, length: int) -> int:
        """State of the wrapped layer: a gate reads only its own token."""
        return self.wrapped.state_bytes(length)
