"""Embed, x + mix(x), x + mlp(x), heads: so dull that what differs between two runs is the attention layer."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
class Motif(nn.Module):
    """A convolution over `width` real tokens, centred, or ending at its own when causal, a GELU and a norm.

    At first twice as strong as the embedding: a base says less about its place than what surrounds it.
    """

    def __init__(self, dim: int, width: int, causal: bool):
        super().__init__()
        if width % 2 == 0:
            raise UserError(f"model.motif must be odd, so that it has a centre, or 0 for none, got {width}")
        self.weight, self.norm = nn.Conv1d(dim, dim, width), nn.RMSNorm(dim)
        nn.init.constant_(self.norm.weight, 2)
        self.sides = (width - 1, 0) if causal else (width // 2, width // 2)

    def forward(
        self, x: Float[Tensor, "batch length dim"], keep: Bool[Tensor, "batch length"] | None
    ) -> Float[Tensor, "batch length dim"]:
        return self.norm(F.gelu(self.weight(F.pad(blank(x, keep).transpose(1, 2), self.sides)).transpose(1, 2)))


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
    """From tokens, beside a reference where the task shows one, to answers at every token and about the window.

    What tokenizer and task own comes as plain values: `vocabulary`; `outputs`, numbers answered at each token, and
    `verdicts`, about the whole window, by name; `reach` (None: no reference beside); `segments`, the sequences of a
    context. `attention` is called as `attention(dim=…, causal=…)` for each
    of `depth` blocks, or, where it is several, each in its turn. `motif` is the width of a
    convolution of the embedding (0: none), which makes k-mers of bases before anything is mixed. With `recompute` the
    blocks keep nothing for the backward pass but their input.
    """

    def __init__(
        self,
        vocabulary: int,
        outputs: Mapping[str, int],
        reach: int | None,
        attention: AttentionFactory | Sequence[AttentionFactory],
        verdicts: Mapping[str, int] = MappingProxyType({}),
        segments: int = 1,
        dim: int = 64,
        depth: int = 2,
        mlp: int = 4,
        conv: int = 0,
        motif: int = 0,
        filters: int = 8,
        kernel: int = 25,
        causal: bool = False,
        recompute: bool = False,
    ):
        super().__init__()
        least = {"dim": (dim, 1), "depth": (depth, 1), "mlp": (mlp, 1), "conv": (conv, 0), "motif": (motif, 0)}
        for name, (value, bound) in least.items():
            if value < bound:
                raise UserError(f"model.{name} must be at least {bound}, got {value}")
        self.outputs, self.verdicts, self.causal, self.recompute = dict(outputs), dict(verdicts), causal, recompute
        self.embed = nn.Embedding(vocabulary, dim)
        self.segment = nn.Embedding(segments, dim) if segments > 1 else None
        if self.segment is not None:  # weak at first: bases of two sequences are to look alike
            nn.init.normal_(self.segment.weight, std=0.2)
        self.motif = Motif(dim, motif, causal) if motif else None
        self.stem = None if reach is None else PairStem(dim, vocabulary, reach, filters, kernel, causal)
        turns = attention if isinstance(attention, Sequence) else [attention]
        self.blocks = nn.ModuleList(Block(dim, mlp, conv, causal, turns[at % len(turns)]) for at in range(depth))
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, sum(self.outputs.values())) if outputs else None
        self.verdict = nn.Linear(3 * dim, sum(self.verdicts.values())) if verdicts else None

    def forward(
        self,
        ids: Integer[Tensor, "batch length"],
        beside: Integer[Tensor, "batch wide"] | None = None,
        layout: Layout = Layout(),
        sites: Float[Tensor, "batch 2 length"] | None = None,
    ) -> dict[str, Float[Tensor, "batch asked numbers"]]:
        x = self.features(ids, beside, layout)
        answers: dict[str, Tensor] = {}
        if self.head is not None:
            parts = self.head(x).split(list(self.outputs.values()), -1)
            answers |= dict(zip(self.outputs, parts, strict=True))
        if self.verdict is not None:
            assert sites is not None, "this model was built for a task whose examples have sites"
            parts = self.verdict(_summary(x, sites, layout.keep)).split(list(self.verdicts.values()), -1)
            answers |= dict(zip(self.verdicts, parts, strict=True))
        return answers

    def features(
        self,
        ids: Integer[Tensor, "batch length"],
        beside: Integer[Tensor, "batch wide"] | None = None,
        layout: Layout = Layout(),
    ) -> Float[Tensor, "batch length dim"]:
        """What the heads read: every token as the last block leaves it, normalised."""
        x = self.embed(ids.int())
        if self.segment is not None and layout.segments is not None:
            x = x + self.segment(layout.segments)
        if self.motif is not None:
            x = x + self.motif(x, layout.keep)
        if self.stem is not None:
            assert beside is not None, "this model was built for a task that shows a reference"
            x = x + self.stem(ids, beside, layout.keep)
        for block in self.blocks:
            x = (
                checkpoint(block, x, layout, use_reentrant=False)
                if self.recompute and self.training
                else block(x, layout)
            )
        return self.norm(x)


def _summary(
    x: Float[Tensor, "batch length dim"],
    sites: Float[Tensor, "batch 2 length"],
    keep: Bool[Tensor, "batch length"] | None,
) -> Float[Tensor, "batch 1 wide"]:
    """Both sites, the second less the first, and the mean of all tokens, side by side."""
    first, second = (sites.to(x.dtype) @ blank(x, keep)).unbind(1)
    count = x.shape[1] if keep is None else keep.sum(1, keepdim=True)
    return torch.cat([first, second - first, blank(x, keep).sum(1) / count], -1)[:, None]
