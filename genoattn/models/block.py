"""One block of the backbone, and the convolutions around the attention layer."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genoattn.attention.base import Attention, State, TokenLayout, contract_error, zero_padding
from genoattn.attention.modules.streaming import overlapping_chunks, slice_layout
from genoattn.attention.parallel import halo
from genoattn.errors import UserError
from genoattn.models.recompute import checkpointed_mlp

AttentionFactory: TypeAlias = Callable[..., Attention]
"""Builds the attention layer of a block; called as `factory(dim=…, causal=…)`."""

ActivationCheckpointing: TypeAlias = Literal["none", "mlp", "block"]

ROWS = 1024
"""Tokens that go through the MLP together in `forward_chunked`."""


@final
class Convolution(nn.Module):
    """A depthwise convolution over `kernel` real tokens, centred on each token, or ending at it if causal.

    It takes every `step`-th token: with 2, those of the same sequence of an interleaved context.
    """

    def __init__(self, dim: int, kernel: int, causal: bool, step: int = 1):
        super().__init__()
        if kernel % 2 == 0:
            raise UserError(f"model.block_conv must be odd, so that it has a centre, or 0 for none, got {kernel}")
        self.weight = nn.Conv1d(dim, dim, kernel, groups=dim, dilation=step)
        self.sides = _sides(kernel, causal, step)

    def forward(
        self, x: Float[Tensor, "batch length dim"], padding_mask: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length dim"]:
        return self.weight(F.pad(zero_padding(x, padding_mask).transpose(1, 2), self.sides)).transpose(1, 2)


@final
class ConvStem(nn.Module):
    """A convolution over `width` real tokens, centred on each token or (`causal`) ending at it, a GELU and a norm.

    Its scale starts at 2, twice that of the embedding: the bases around a position identify it better than its own.
    `step` is that of `Convolution`.
    """

    def __init__(self, dim: int, width: int, causal: bool, step: int = 1):
        super().__init__()
        if width % 2 == 0:
            raise UserError(f"model.stem_conv must be odd, so that it has a centre, or 0 for none, got {width}")
        self.weight, self.norm = nn.Conv1d(dim, dim, width, dilation=step), nn.RMSNorm(dim)
        nn.init.constant_(self.norm.weight, 2)
        self.sides, self.step = _sides(width, causal, step), step

    def forward(
        self, x: Float[Tensor, "batch length dim"], padding_mask: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length dim"]:
        mixed = self.weight(F.pad(zero_padding(x, padding_mask).transpose(1, 2), self.sides)).transpose(1, 2)
        return self.norm(F.gelu(mixed).to(self.norm.weight.dtype))  # autocast makes a convolution narrow, not a norm

    def from_indicators(
        self,
        indicators: Float[Tensor, "batch length kinds"],
        vectors: Float[Tensor, "kinds dim"],
        padding_mask: Bool[Tensor, "batch length"] | None,
    ) -> Float[Tensor, "batch length dim"]:
        """`forward` of x = indicators @ vectors: the vectors are convolved once instead of every token.

        With fewer kinds than channels it is several times quicker, and no gradient goes to the tokens.
        """
        length, kernel = indicators.shape[1], self.weight.weight
        taps = torch.einsum("kd,edw->ewk", vectors, kernel).flatten(1)
        wide = F.pad(zero_padding(indicators, padding_mask), (0, 0, *self.sides))
        read = [wide[:, tap * self.step : tap * self.step + length] for tap in range(kernel.shape[-1])]
        return self.norm(F.gelu(F.linear(torch.cat(read, -1), taps, self.weight.bias)))


def _sides(kernel: int, causal: bool, step: int) -> tuple[int, int]:
    """Tokens to the left and to the right that a convolution reads."""
    return ((kernel - 1) * step, 0) if causal else (kernel // 2 * step, kernel // 2 * step)


class BlockState(NamedTuple):
    """The memory of a causal block: the state of its attention layer, and the tokens that its convolution reads."""

    attention: State
    read: Float[Tensor, "batch read dim"]


@final
class Block(nn.Module):
    """One block of the backbone: x + attention(x), x + convolution(x) if there is one, x + MLP(x), each after a norm.

    The convolution follows the attention layer: a token compares what it looked up with what its neighbours looked up.

    Args:
        dim: Channels of the residual stream.
        width: Channels of the MLP.
        conv: Tokens of the convolution, an odd number; 0 leaves it out.
        causal: True if no token may see a later one.
        attention: Builds the attention layer.
        activation_checkpointing: Activations that the backward pass recomputes to save memory: "none", "mlp" (those
            of the MLP) or "block" (all except the input of the block).
        conv_step: Tokens from one to the next that the convolution takes.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        conv: int,
        causal: bool,
        attention: AttentionFactory,
        activation_checkpointing: ActivationCheckpointing = "none",
        conv_step: int = 1,
    ):
        super().__init__()
        self.conv = Convolution(dim, conv, causal, conv_step) if conv else None
        self.conv_norm = nn.RMSNorm(dim) if conv else None
        self.attention_norm, self.attention = nn.RMSNorm(dim), attention(dim=dim, causal=causal)
        if error := contract_error(self.attention):
            raise UserError(error)
        self.mlp_norm = nn.RMSNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim))
        self.activation_checkpointing: ActivationCheckpointing = activation_checkpointing

    def forward(self, x: Float[Tensor, "batch length dim"], layout: TokenLayout) -> Float[Tensor, "batch length dim"]:
        if self.activation_checkpointing == "block" and self.training:
            return checkpoint(self._forward, x, layout, use_reentrant=False)
        return self._forward(x, layout)

    def _forward(self, x: Tensor, layout: TokenLayout) -> Tensor:
        x = x + self.attention(self.attention_norm(x), layout)
        if self.conv is not None and self.conv_norm is not None:
            x = x + self._convolved(self.conv, self.conv_norm(x), layout)
        last = self.mlp[-1]
        # A LoRA adapter in place of the last layer is not linear in its own parameters.
        if self.activation_checkpointing == "mlp" and self.training and type(last) is nn.Linear:
            inner = nn.Sequential(self.mlp_norm, *list(self.mlp)[:-1])
            return x + checkpointed_mlp(inner, last, x, list(inner.parameters()))
        return x + self.mlp(self.mlp_norm(x))

    def _convolved(self, conv: Convolution, x: Tensor, layout: TokenLayout) -> Tensor:
        if layout.span is None:
            return conv(x, layout.padding_mask)
        wide = halo(x, layout.span, *conv.sides)
        return wide.inner(conv(wide.x, wide.layout.padding_mask))

    def forward_chunked(self, x: Float[Tensor, "batch length dim"], layout: TokenLayout, chunk: int) -> None:
        """The same as `forward`, in place, `chunk` tokens at a time."""
        length = x.shape[1]
        attended = self.attention.forward_chunked(
            lambda a, b: (self.attention_norm(x[:, a:b]), slice_layout(layout, x, a, b)), length, chunk
        )
        for start, stop, y in attended:
            x[:, start:stop] += y
            if self.conv is None:
                self._add_mlp(x[:, start:stop])
        if self.conv is not None and self.conv_norm is not None:
            norm = self.conv_norm
            for piece in overlapping_chunks(
                lambda a, b: (norm(x[:, a:b]), slice_layout(layout, x, a, b)), length, chunk, *self.conv.sides
            ):
                own = x[:, piece.start : piece.stop]
                own += piece.inner(self.conv(piece.x, piece.layout.padding_mask))
                self._add_mlp(own)

    def init_state(self, batch: int) -> BlockState:
        """The state before the first token; raises UserError if the attention layer has none."""
        return BlockState(
            self.attention.init_state(batch), self.mlp_norm.weight.new_zeros(batch, 0, len(self.mlp_norm.weight))
        )

    def step(self, x: Float[Tensor, "batch length dim"], state: BlockState) -> tuple[Tensor, BlockState]:
        """The next tokens of a causal block without padding, and the state after them; the old state stays valid."""
        y, attention = self.attention.step(self.attention_norm(x), state.attention)
        x, read = x + y, state.read
        if self.conv is not None and self.conv_norm is not None:
            wide = torch.cat([read, self.conv_norm(x)], 1)
            x = x + self.conv(wide, None)[:, read.shape[1] :]
            read = wide[:, max(wide.shape[1] - self.conv.sides[0], 0) :]
        return x + self.mlp(self.mlp_norm(x)), BlockState(attention, read)

    def _add_mlp(self, x: Tensor) -> None:
        """Add the MLP of the tokens to them, in place, some rows at a time."""
        for rows in x.split(ROWS, dim=1):
            rows += self.mlp(self.mlp_norm(rows))
