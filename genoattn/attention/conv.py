"""A depthwise convolution in place of attention: fixed weights within a stated reach; the baseline of local layers."""

from collections.abc import Iterator
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.streaming import overlapping_chunks
from genoattn.errors import UserError


@final
class ConvolutionAttention(Attention):
    """Depthwise convolution: y_i = W_o Σ_j w_{j - i} ∘ (W_v x_j) over j in [i - left, i + right].

    A token sees its neighbours with learned weights that do not depend on their content. Time is linear in the length.
    """

    complexity = "linear"

    def __init__(self, dim: int, causal: bool, left: int = 16, right: int = 16):
        super().__init__()
        for name, value in (("left", left), ("right", right)):
            if value < 0:
                raise UserError(f"attention.{name} must be 0 or more tokens, got {value}")
        self.causal = causal
        self.weights_sum_to_one = False
        self.asymmetry = "weights to the left and to the right are learned apart"
        self.left, self.right = self.receptive_field = (left, 0 if causal else right)
        self.value = nn.Linear(dim, dim, bias=False)
        self.mix = nn.Conv1d(dim, dim, self.left + 1 + self.right, groups=dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        if not x.numel():
            return self.out(self.value(x))
        values = self.value(zero_padding(x, layout.padding_mask)).transpose(1, 2)
        mixed = self.mix(F.pad(values, (self.left, self.right))).transpose(1, 2)
        return self.out(zero_padding(mixed, layout.padding_mask))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        values = F.pad(self.value(zero_padding(x, layout.padding_mask)), (0, 0, self.left, self.right))
        shifted = [values[:, at : at + x.shape[1]] for at in range(self.left + 1 + self.right)]
        mixed = (torch.stack(shifted, dim=-1) * self.mix.weight[:, 0]).sum(-1)
        return self.out(zero_padding(mixed, layout.padding_mask))

    def init_state(self, batch: int) -> State:
        if not self.causal:
            return super().init_state(batch)
        return (self.out.weight.new_zeros(batch, self.left, self.out.in_features),)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        values = torch.cat([state[0], self.value(zero_padding(x, layout.padding_mask))], dim=1)
        mixed = self.mix(values.transpose(1, 2)).transpose(1, 2)
        return self.out(zero_padding(mixed, layout.padding_mask)), (values[:, x.shape[1] :].to(state[0].dtype),)

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        for part in overlapping_chunks(read_chunk, length, chunk, self.left, self.right):
            yield part.start, part.stop, part.inner(self(part.x, part.layout))

    def flops(self, length: int) -> int:
        """The two projections and the sums."""
        dim = self.value.in_features
        return 4 * length * dim**2 + 2 * length * dim * (self.left + 1 + self.right)

    def state_bytes(self, length: int) -> int:
        """The values within reach to the left."""
        return 4 * min(length, self.left) * self.value.in_features
