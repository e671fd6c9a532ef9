"""One layer of the backbone, and the convolutions that may stand before anything is mixed."""

from collections.abc import Callable
from typing import Literal, TypeAlias, final

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.modules.streaming import cut, segments
from genoattn.errors import UserError
from genoattn.models.recompute import tokenwise

AttentionFactory: TypeAlias = Callable[..., Attention]


Recompute: TypeAlias = Literal["nothing", "tokens", "blocks"]


ROWS = 1024
"""Tokens of a stream that go through an MLP together."""


@final
class Convolution(nn.Module):
    """A depthwise convolution over `kernel` real tokens, centred, or ending at its own when causal."""

    def __init__(self, dim: int, kernel: int, causal: bool):
        super().__init__()
        if kernel % 2 == 0:
            raise UserError(f"model.conv must be odd, so that it has a centre, or 0 for none, got {kernel}")
        self.weight = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.sides = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)

    def forward(
        self, x: Float[Tensor, "batch length dim"], keep: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length dim"]:
        return self.weight(F.pad(blank(x, keep).transpose(1, 2), self.sides)).transpose(1, 2)


@final
class Motif(nn.Module):
    """A convolution over `width` real tokens, centred or (`ends`) ending at its own, a GELU and a norm.

    At first twice as strong as the embedding: a base says less about its place than what surrounds it.
    """

    def __init__(self, dim: int, width: int, ends: bool):
        super().__init__()
        if width % 2 == 0:
            raise UserError(f"model.motif must be odd, so that it has a centre, or 0 for none, got {width}")
        self.weight, self.norm = nn.Conv1d(dim, dim, width), nn.RMSNorm(dim)
        nn.init.constant_(self.norm.weight, 2)
        self.sides = (width - 1, 0) if ends else (width // 2, width // 2)

    def forward(
        self, x: Float[Tensor, "batch length dim"], keep: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length dim"]:
        return self.norm(F.gelu(self.weight(F.pad(blank(x, keep).transpose(1, 2), self.sides)).transpose(1, 2)))


@final
class Block(nn.Module):
    """One layer of the backbone: a convolution where asked for, the attention layer, and an MLP, each added to x.

    The MLP has `width` channels. In training a block keeps for the backward pass everything that helps (`recompute` of
    "nothing"), all but what its MLP makes ("tokens"), or its input alone ("blocks").
    """

    def __init__(
        self, dim: int, width: int, conv: int, causal: bool, attention: AttentionFactory,
        recompute: Recompute = "nothing",
    ):  # fmt: skip
        super().__init__()
        self.conv = Convolution(dim, conv, causal) if conv else None
        self.conv_norm = nn.RMSNorm(dim) if conv else None
        self.mix_norm, self.mix = nn.RMSNorm(dim), attention(dim=dim, causal=causal)
        self.mlp_norm = nn.RMSNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim))
        self.recompute: Recompute = recompute

    def forward(self, x: Float[Tensor, "batch length dim"], layout: Layout) -> Float[Tensor, "batch length dim"]:
        if self.recompute == "blocks" and self.training:
            return checkpoint(self._forward, x, layout, use_reentrant=False)
        return self._forward(x, layout)

    def _forward(self, x: Tensor, layout: Layout) -> Tensor:
        if self.conv is not None and self.conv_norm is not None:
            x = x + self.conv(self.conv_norm(x), layout.keep)
        x = x + self.mix(self.mix_norm(x), layout)
        last = self.mlp[-1]
        if self.recompute == "tokens" and self.training and type(last) is nn.Linear:  # an adapter stands in its place
            inner = nn.Sequential(self.mlp_norm, *list(self.mlp)[:-1])
            return x + tokenwise(inner, last, x, list(inner.parameters()))
        return x + self.mlp(self.mlp_norm(x))

    def stream(self, x: Float[Tensor, "batch length dim"], layout: Layout, segment: int) -> None:
        """`forward` in place, in segments."""
        length = x.shape[1]
        if self.conv is not None and self.conv_norm is not None:
            norm = self.conv_norm
            for part in segments(
                lambda a, b: (norm(x[:, a:b]), cut(layout, x, a, b)), length, segment, *self.conv.sides
            ):
                x[:, part.start : part.stop] += part.own(self.conv(part.x, part.layout.keep))
        mixed = self.mix.stream(lambda a, b: (self.mix_norm(x[:, a:b]), cut(layout, x, a, b)), length, segment)
        for start, stop, y in mixed:
            x[:, start:stop] += y
            for rows in x[:, start:stop].split(ROWS, dim=1):
                rows += self.mlp(self.mlp_norm(rows))
