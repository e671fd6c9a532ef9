"""A sigmoid gate on the answers of any other layer, computed from the token itself."""

from collections.abc import Callable, Iterator
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, Layout, Read, State, blank
from genoattn.errors import UserError

OPEN = 2.0  # a gate's bias at first: sigmoid(2) lets 0.88 of the answer through


@final
class GatedAttention(Attention):
    """The inner layer's answer times sigmoid(x W + b): a number for each channel, or for each head's share of them.

    The gate stands after the inner layer's own projection, so that it fits over layers that have no heads.
    """

    def __init__(
        self,
        dim: int,
        causal: bool,
        inner: Callable[..., Attention],
        per: Literal["head", "channel"] = "channel",
        heads: int = 4,
    ):
        super().__init__()
        if dim % heads:
            raise UserError(f"attention.heads must divide the model's dim of {dim}, got {heads}")
        self.inner = inner(dim=dim, causal=causal)
        self.gate = nn.Linear(dim, dim if per == "channel" else heads)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, OPEN)
        self.share = dim // self.gate.out_features
        self.causal = causal
        self.cost, self.reach, self.stride = self.inner.cost, self.inner.reach, self.inner.stride
        self.averages = False
        self.sided = self.inner.sided

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._gated(x, layout, self.inner(x, layout))

    def _gated(self, x: Tensor, layout: Layout, y: Tensor) -> Tensor:
        opened = self.gate(blank(x, layout.keep)).sigmoid()
        return (y.unflatten(-1, (-1, self.share)) * opened[..., None]).flatten(-2)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        x = blank(x, layout.keep)
        opened = 1 / (1 + torch.exp(-(x @ self.gate.weight.T + self.gate.bias)))
        return self.inner.naive(x, layout) * opened.repeat_interleave(self.share, dim=-1)

    def init_state(self, batch: int) -> State:
        return self.inner.init_state(batch)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: Layout = Layout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        y, state = self.inner.step(x, state, layout)
        return self._gated(x, layout, y), state

    def stream(self, read: Read, length: int, segment: int) -> Iterator[tuple[int, int, Tensor]]:
        for start, stop, y in self.inner.stream(read, length, segment):
            yield start, stop, self._gated(*read(start, stop), y)

    def backend(self, device: torch.device) -> str:
        return self.inner.backend(device)

    def flops(self, length: int) -> int:
        """The inner layer's and the gate's."""
        return self.inner.flops(length) + 2 * length * self.gate.in_features * self.gate.out_features

    def state_bytes(self, length: int) -> int:
        """The inner layer's: a gate reads its own token alone."""
        return self.inner.state_bytes(length)
