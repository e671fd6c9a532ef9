"""Embed, x + mix(x), x + mlp(x), heads: so dull that what differs between two runs is the attention layer."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import final

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from genoattn.attention.base import Layout, blank
from genoattn.attention.modules.streaming import cut
from genoattn.errors import UserError
from genoattn.models.block import AttentionFactory, Block, Motif, Recompute
from genoattn.models.pair_stem import PairStem

SEGMENT = 4096
"""Tokens of a stream that are worked on together."""


@final
class SequenceModel(nn.Module):
    """From tokens, beside a reference where the task shows one, to answers at every token and about the window.

    What tokenizer and task own comes as plain values: `vocabulary`; `outputs`, numbers answered at each token, and
    `verdicts`, about the whole window, by name; `reach` (None: no reference beside); `segments`, the sequences of a
    context. `attention` is called as `attention(dim=…, causal=…)` for each of `depth` blocks, or, where it is several,
    each in its turn. An MLP has `mlp` times `dim` channels, rounded. `motif` is the width of a convolution of the
    embedding (0: none), which makes k-mers of bases before anything is mixed, centred on each base, or (`motif_ends`,
    and in a causal model) ending at it. `recompute` says what blocks make again for the backward pass in place of
    keeping it.
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
        mlp: int | float = 4,
        conv: int = 0,
        motif: int = 0,
        motif_ends: bool = False,
        filters: int = 8,
        kernel: int = 25,
        causal: bool = False,
        recompute: Recompute = "nothing",
    ):
        super().__init__()
        least = {"dim": (dim, 1), "depth": (depth, 1), "conv": (conv, 0), "motif": (motif, 0)}
        for name, (value, bound) in least.items():
            if value < bound:
                raise UserError(f"model.{name} must be at least {bound}, got {value}")
        if not 0.5 < mlp * dim < math.inf:
            raise UserError(f"model.mlp must be at least 1 / model.dim, so that the MLP has a channel, got {mlp}")
        width = round(mlp * dim)
        self.outputs, self.verdicts, self.causal = dict(outputs), dict(verdicts), causal
        self.embed = nn.Embedding(vocabulary, dim)
        self.segment = nn.Embedding(segments, dim) if segments > 1 else None
        if self.segment is not None:  # weak at first: bases of two sequences are to look alike
            nn.init.normal_(self.segment.weight, std=0.2)
        self.motif = Motif(dim, motif, causal or motif_ends) if motif else None
        self.stem = None if reach is None else PairStem(dim, vocabulary, reach, filters, kernel, causal)
        turns = attention if isinstance(attention, Sequence) else [attention]
        self.blocks = nn.ModuleList(
            Block(dim, width, conv, causal, turns[at % len(turns)], recompute) for at in range(depth)
        )
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
        return self._answers(self.features(ids, beside, layout), layout.keep, sites)

    def features(
        self,
        ids: Integer[Tensor, "batch length"],
        beside: Integer[Tensor, "batch wide"] | None = None,
        layout: Layout = Layout(),
    ) -> Float[Tensor, "batch length dim"]:
        """What the heads read: every token as the last block leaves it, normalised."""
        x = self._embedded(ids, beside, layout)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)

    @torch.no_grad()
    def stream(
        self,
        ids: Integer[Tensor, "batch length"],
        beside: Integer[Tensor, "batch wide"] | None = None,
        layout: Layout = Layout(),
        sites: Float[Tensor, "batch 2 length"] | None = None,
        segment: int = SEGMENT,
    ) -> dict[str, Float[Tensor, "batch asked numbers"]]:
        """What `forward` answers, for sequences too long for it: layer by layer, in place, `segment` tokens at a time.

        All that is held and grows with the length is one number for each token and channel, and what a layer that
        cannot stream needs for itself.
        """
        length = ids.shape[1]
        x = self.embed.weight.new_empty(len(ids), length, self.embed.embedding_dim)
        sides = [part.sides for part in (self.motif, self.stem) if part is not None]
        before, after = (max(side) for side in zip((0, 0), *sides, strict=True))
        wider = 0 if self.stem is None else 2 * self.stem.reach
        for start in range(0, length, segment):
            stop = min(start + segment, length)
            low, high = max(0, start - before), min(length, stop + after)
            shown = None if beside is None else beside[:, low : high + wider]
            wide = self._embedded(ids[:, low:high], shown, cut(layout, ids, low, high))
            x[:, start:stop] = wide[:, start - low : stop - low]
        for block in self.blocks:
            assert isinstance(block, Block)
            block.stream(x, layout, segment)
        for part in x.split(segment, dim=1):
            part.copy_(self.norm(part))
        return self._answers(x, layout.keep, sites)

    def _embedded(self, ids: Tensor, beside: Tensor | None, layout: Layout) -> Tensor:
        x = self.embed(ids.int())
        if self.segment is not None and layout.segments is not None:
            x = x + self.segment(layout.segments)
        if self.motif is not None:
            x = x + self.motif(x, layout.keep)
        if self.stem is not None:
            assert beside is not None, "this model was built for a task that shows a reference"
            x = x + self.stem(ids, beside, layout.keep)
        return x

    def _answers(self, x: Tensor, keep: Tensor | None, sites: Tensor | None) -> dict[str, Tensor]:
        answers: dict[str, Tensor] = {}
        if self.head is not None:
            parts = self.head(x).split(list(self.outputs.values()), -1)
            answers |= dict(zip(self.outputs, parts, strict=True))
        if self.verdict is not None:
            assert sites is not None, "this model was built for a task whose examples have sites"
            parts = self.verdict(_summary(x, sites, keep)).split(list(self.verdicts.values()), -1)
            answers |= dict(zip(self.verdicts, parts, strict=True))
        return answers


def _summary(
    x: Float[Tensor, "batch length dim"],
    sites: Float[Tensor, "batch 2 length"],
    keep: Bool[Tensor, "batch length"] | None,
) -> Float[Tensor, "batch 1 wide"]:
    """Both sites, the second less the first, and the mean of all tokens, side by side."""
    first, second = (sites.to(x.dtype) @ blank(x, keep)).unbind(1)
    count = x.shape[1] if keep is None else keep.sum(1, keepdim=True)
    return torch.cat([first, second - first, blank(x, keep).sum(1) / count], -1)[:, None]
