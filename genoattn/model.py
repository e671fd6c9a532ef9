"""Embed, x + mix(x), x + mlp(x), heads: so dull that what differs between two runs is the attention layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, final

import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from genoattn.attention.base import Attention, Layout, blank
from genoattn.errors import UserError
from genoattn.stem import PairStem

AttentionFactory: TypeAlias = Callable[..., Attention]


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
class Block(nn.Module):
    """One layer of the backbone: a convolution where asked for, the attention layer, and an MLP, each added to x."""

    def __init__(self, dim: int, mlp: int, conv: int, causal: bool, attention: AttentionFactory):
        super().__init__()
        self.conv = Convolution(dim, conv, causal) if conv else None
        self.conv_norm = nn.RMSNorm(dim) if conv else None
        self.mix_norm, self.mix = nn.RMSNorm(dim), attention(dim=dim, causal=causal)
        self.mlp_norm = nn.RMSNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp * dim), nn.GELU(), nn.Linear(mlp * dim, dim))

    def forward(self, x: Float[Tensor, "batch length dim"], layout: Layout) -> Float[Tensor, "batch length dim"]:
        if self.conv is not None and self.conv_norm is not None:
            x = x + self.conv(self.conv_norm(x), layout.keep)
        x = x + self.mix(self.mix_norm(x), layout)
        return x + self.mlp(self.mlp_norm(x))


@final
class SequenceModel(nn.Module):
    """From tokens, beside a reference where the task shows one, to an answer at every token.

    `vocabulary`, `outputs` (classes by name) and `reach` (None: no reference) come from tokenizer and task as plain
    values; `attention` is called as `attention(dim=…, causal=…)` for each of `depth` blocks, or, where it is several,
    each in its turn.
    """

    def __init__(
        self,
        vocabulary: int,
        outputs: Mapping[str, int],
        reach: int | None,
        attention: AttentionFactory | Sequence[AttentionFactory],
        dim: int = 64,
        depth: int = 2,
        mlp: int = 4,
        conv: int = 0,
        filters: int = 8,
        kernel: int = 25,
        causal: bool = False,
    ):
        super().__init__()
        for name, value, least in (("dim", dim, 1), ("depth", depth, 1), ("mlp", mlp, 1), ("conv", conv, 0)):
            if value < least:
                raise UserError(f"model.{name} must be at least {least}, got {value}")
        self.outputs = dict(outputs)
        self.embed = nn.Embedding(vocabulary, dim)
        self.stem = None if reach is None else PairStem(dim, vocabulary, reach, filters, kernel, causal)
        turns = attention if isinstance(attention, Sequence) else [attention]
        self.blocks = nn.ModuleList(Block(dim, mlp, conv, causal, turns[at % len(turns)]) for at in range(depth))
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, sum(self.outputs.values()))

    def forward(
        self,
        ids: UInt8[Tensor, "batch length"],
        beside: UInt8[Tensor, "batch wide"] | None = None,
        layout: Layout = Layout(),
    ) -> dict[str, Float[Tensor, "batch length classes"]]:
        x = self.embed(ids.int())
        if self.stem is not None:
            assert beside is not None, "this model was built for a task that shows a reference"
            x = x + self.stem(ids, beside, layout.keep)
        for block in self.blocks:
            x = block(x, layout)
        answers = self.head(self.norm(x)).split(list(self.outputs.values()), -1)
        return dict(zip(self.outputs, answers, strict=True))
