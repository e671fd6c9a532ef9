"""A sigmoid gate in any other layer, computed from the token itself."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.gate import Gate
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.parallel import Span
from genoattn.errors import UserError


@final
class GatedAttention(Attention):
    """Gated attention: the heads' outputs of the wrapped layer times sigmoid(x W + b), before their projection.

    There is a gate for each channel or for each head. A token sees what it sees in the wrapped layer, at the same cost
    and one projection more. A layer without `QKVProjection` is gated at its output, each gate of `gate_per=head` for an
    equal share of the channels. Paper: arXiv:2505.06708.

    Raises:
        UserError: The wrapped layer has gates already.
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
        projections = [module for module in self.wrapped.modules() if isinstance(module, QKVProjection)]
        for projection in projections:
            if projection.gate is not None:
                raise UserError(
                    "attention=gated adds the gates itself, so heads.gate of the wrapped layer must be none, and "
                    "attention.kinds.delta.output_gate false, got gates"
                )
            projection.gate = Gate(dim, dim if gate_per == "channel" else projection.count)
        self.gate = None if projections else Gate(dim, dim if gate_per == "channel" else heads.count)
        self.causal = causal
        self.complexity, self.receptive_field, self.stride = (
            self.wrapped.complexity,
            self.wrapped.receptive_field,
            self.wrapped.stride,
        )
        self.shard_multiple = self.wrapped.shard_multiple
        self.weights_sum_to_one = False
        self.asymmetry = self.wrapped.asymmetry

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._gated(x, layout, self.wrapped(x, layout))

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """A gate reads only its own token."""
        return self._gated(x, layout, self.wrapped(x, replace(layout, span=span)))

    def _gated(self, x: Tensor, layout: TokenLayout, y: Tensor) -> Tensor:
        return y if self.gate is None else self.gate(y, zero_padding(x, layout.padding_mask))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._gated(x, layout, self.wrapped.naive(x, layout))

    def init_state(self, batch: int) -> State:
        return self.wrapped.init_state(batch)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        y, state = self.wrapped.step(x, state, layout)
        return self._gated(x, layout, y), state

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        for start, stop, y in self.wrapped.forward_chunked(read_chunk, length, chunk):
            yield start, stop, y if self.gate is None else self._gated(*read_chunk(start, stop), y)

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.wrapped.describe_backend(device, dtype)

    def flops(self, length: int) -> int:
        """FLOPs of the wrapped layer and of the gate."""
        return self.wrapped.flops(length) + (0 if self.gate is None else self.gate.flops(length))

    def state_bytes(self, length: int) -> int:
        """State of the wrapped layer: a gate reads only its own token."""
        return self.wrapped.state_bytes(length)
