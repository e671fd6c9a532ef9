"""Embed, x + mix(x), x + mlp(x), heads: so dull that what differs between two runs is the attention layer."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import final

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from genoattn.attention.base import TokenLayout, zero_padding
from genoattn.attention.modules.streaming import slice_layout
from genoattn.errors import UserError
from genoattn.models.block import ActivationCheckpointing, AttentionFactory, Block, ConvStem
from genoattn.models.pair_stem import AlignmentStem

SEGMENT = 4096
"""Tokens of a stream that are worked on together."""


@final
class SequenceModel(nn.Module):
    """Embedding, `depth` blocks of attention and MLP, and heads for every token and for the whole sequence.

    Tokenizer and task give their part as plain values: `vocabulary_size`; `token_heads` and `sequence_heads`, numbers
    of outputs by name; `max_shift` (None: no reference window beside the sample); `segment_count`, the sequences of a
    context. `attention` is called as `attention(dim=…, causal=…)` for each block; a list of factories is cycled over
    the depth. An MLP has `mlp_ratio` times `dim` channels, rounded. `stem_conv` is the width of a convolution of the
    embedding (0: none), centred on each base or, with `stem_conv_causal` and in a causal model, ending at it.
    `activation_checkpointing` says which activations blocks recompute in the backward pass.
    """

    def __init__(
        self,
        vocabulary_size: int,
        token_heads: Mapping[str, int],
        max_shift: int | None,
        attention: AttentionFactory | Sequence[AttentionFactory],
        sequence_heads: Mapping[str, int] = MappingProxyType({}),
        segment_count: int = 1,
        dim: int = 64,
        depth: int = 2,
        mlp_ratio: int | float = 4,
        block_conv: int = 0,
        stem_conv: int = 0,
        stem_conv_causal: bool = False,
        alignment_filters: int = 8,
        alignment_kernel: int = 25,
        causal: bool = False,
        activation_checkpointing: ActivationCheckpointing = "none",
    ):
        super().__init__()
        least = {"dim": (dim, 1), "depth": (depth, 1), "block_conv": (block_conv, 0), "stem_conv": (stem_conv, 0)}
        for name, (value, bound) in least.items():
            if value < bound:
                raise UserError(f"model.{name} must be at least {bound}, got {value}")
        if not 0.5 < mlp_ratio * dim < math.inf:
            raise UserError(
                f"model.mlp_ratio must be at least 1 / model.dim, so that the MLP has a channel, got {mlp_ratio}"
            )
        width = round(mlp_ratio * dim)
        self.token_heads, self.sequence_heads, self.causal = dict(token_heads), dict(sequence_heads), causal
        self.embed = nn.Embedding(vocabulary_size, dim)
        self.segment_embedding = nn.Embedding(segment_count, dim) if segment_count > 1 else None
        if self.segment_embedding is not None:  # weak at first: bases of two sequences are to look alike
            nn.init.normal_(self.segment_embedding.weight, std=0.2)
        self.stem_conv = ConvStem(dim, stem_conv, causal or stem_conv_causal) if stem_conv else None
        self.stem = (
            None
            if max_shift is None
            else AlignmentStem(dim, vocabulary_size, max_shift, alignment_filters, alignment_kernel, causal)
        )
        turns = attention if isinstance(attention, Sequence) else [attention]
        if set(turns[:depth]) != set(turns):
            raise UserError(
                f"attention.layers lists {len(turns)} layers and model.depth={depth} builds only the first {depth}, so"
                f" a kind of layer would be missing; give model.depth={len(turns)} or a shorter attention.layers"
            )
        self.blocks = nn.ModuleList(
            Block(dim, width, block_conv, causal, turns[at % len(turns)], activation_checkpointing)
            for at in range(depth)
        )
        self.norm = nn.RMSNorm(dim)
        self.token_head = nn.Linear(dim, sum(self.token_heads.values())) if token_heads else None
        self.sequence_head = nn.Linear(3 * dim, sum(self.sequence_heads.values())) if sequence_heads else None

    def forward(
        self,
        ids: Integer[Tensor, "batch length"],
        reference_window: Integer[Tensor, "batch wide"] | None = None,
        layout: TokenLayout = TokenLayout(),
        pooling_weights: Float[Tensor, "batch 2 length"] | None = None,
    ) -> dict[str, Float[Tensor, "batch asked numbers"]]:
        return self._answers(self.features(ids, reference_window, layout), layout.padding_mask, pooling_weights)

    def features(
        self,
        ids: Integer[Tensor, "batch length"],
        reference_window: Integer[Tensor, "batch wide"] | None = None,
        layout: TokenLayout = TokenLayout(),
    ) -> Float[Tensor, "batch length dim"]:
        """What the heads read: every token as the last block leaves it, normalised."""
        x = self._embedded(ids, reference_window, layout)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)

    @torch.no_grad()
    def forward_chunked(
        self,
        ids: Integer[Tensor, "batch length"],
        reference_window: Integer[Tensor, "batch wide"] | None = None,
        layout: TokenLayout = TokenLayout(),
        pooling_weights: Float[Tensor, "batch 2 length"] | None = None,
        chunk: int = SEGMENT,
    ) -> dict[str, Float[Tensor, "batch asked numbers"]]:
        """What `forward` answers, for sequences too long for it: layer by layer, in place, `segment` tokens at a time.

        All that is held and grows with the length is one number for each token and channel, and what a layer that
        cannot stream needs for itself.
        """
        length = ids.shape[1]
        x = self.embed.weight.new_empty(len(ids), length, self.embed.embedding_dim)
        sides = [part.sides for part in (self.stem_conv, self.stem) if part is not None]
        before, after = (max(side) for side in zip((0, 0), *sides, strict=True))
        wider = 0 if self.stem is None else 2 * self.stem.max_shift
        for start in range(0, length, chunk):
            stop = min(start + chunk, length)
            low, high = max(0, start - before), min(length, stop + after)
            shown = None if reference_window is None else reference_window[:, low : high + wider]
            wide = self._embedded(ids[:, low:high], shown, slice_layout(layout, ids, low, high))
            x[:, start:stop] = wide[:, start - low : stop - low]
        for block in self.blocks:
            assert isinstance(block, Block)
            block.forward_chunked(x, layout, chunk)
        for part in x.split(chunk, dim=1):
            part.copy_(self.norm(part))
        return self._answers(x, layout.padding_mask, pooling_weights)

    def _embedded(self, ids: Tensor, beside: Tensor | None, layout: TokenLayout) -> Tensor:
        x = self.embed(ids.int())
        if self.segment_embedding is not None and layout.segment_ids is not None:
            x = x + self.segment_embedding(layout.segment_ids)
        if self.stem_conv is not None:
            x = x + self.stem_conv(x, layout.padding_mask)
        if self.stem is not None:
            assert beside is not None, "this model was built for a task that shows a reference"
            x = x + self.stem(ids, beside, layout.padding_mask)
        return x

    def _answers(self, x: Tensor, keep: Tensor | None, sites: Tensor | None) -> dict[str, Tensor]:
        answers: dict[str, Tensor] = {}
        if self.token_head is not None:
            parts = self.token_head(x).split(list(self.token_heads.values()), -1)
            answers |= dict(zip(self.token_heads, parts, strict=True))
        if self.sequence_head is not None:
            assert sites is not None, "this model was built for a task whose examples have sites"
            parts = self.sequence_head(pool_sites(x, sites, keep)).split(list(self.sequence_heads.values()), -1)
            answers |= dict(zip(self.sequence_heads, parts, strict=True))
        return answers


def pool_sites(
    x: Float[Tensor, "batch length dim"],
    sites: Float[Tensor, "batch 2 length"],
    keep: Bool[Tensor, "batch length"] | None,
) -> Float[Tensor, "batch 1 wide"]:
    """Both sites, the second less the first, and the mean of all tokens, side by side."""
    first, second = (sites.to(x.dtype) @ zero_padding(x, keep)).unbind(1)
    count = x.shape[1] if keep is None else keep.sum(1, keepdim=True)
    return torch.cat([first, second - first, zero_padding(x, keep).sum(1) / count], -1)[:, None]
