"""The backbone: embedding, blocks, heads. It is plain, so that two runs differ in the attention layer only."""

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from genoattn.attention.base import TokenLayout
from genoattn.attention.layout import Span
from genoattn.attention.modules.streaming import slice_layout
from genoattn.errors import UserError
from genoattn.models.block import ActivationCheckpointing, AttentionFactory, Block, BlockState, ConvStem
from genoattn.models.pair_stem import AlignmentStem
from genoattn.models.precision import Head
from genoattn.models.shards import pool_sites, shard_inputs

CHUNK = 4096
"""Tokens that are computed together in `forward_chunked`."""


class ModelState(NamedTuple):
    """The memory of a causal model: the ids that the convolution of the embedding reads, and the states of blocks."""

    ids: Integer[Tensor, "batch read"]
    blocks: tuple[BlockState, ...]


@final
class SequenceModel(nn.Module):
    """Embedding, `depth` blocks of attention and MLP, and heads for every token and for the whole sequence.

    Args:
        vocabulary_size: Number of token ids.
        token_heads: Outputs of every token: numbers by name.
        max_shift: Bases to each side that are compared with a sample base; None if there is no reference window.
        attention: Called as `attention(dim=…, causal=…)` for each block; a list is cycled over the depth.
        sequence_heads: Outputs of a whole sequence: numbers by name.
        sites: Sites that these are read at, besides the mean of all tokens.
        segment_count: Sequences in a context.
        interleaved: True if the tokens of two sequences alternate; each sequence is then convolved by itself.
        dim: Channels of the residual stream.
        depth: Number of blocks.
        mlp_ratio: Channels of an MLP in multiples of `dim`, rounded to whole channels.
        block_conv: Tokens of a sequence that a convolution in every block spans; 0 leaves it out.
        stem_conv: Tokens of a sequence that a convolution of the embedding spans; 0 leaves it out.
        stem_conv_causal: True if that convolution ends at its token; always so in a causal model.
        alignment_filters: Filters of the alignment stem; 0 shows it the bare matches.
        alignment_kernel: Bases that such a filter spans.
        causal: True if no token may see a later one.
        activation_checkpointing: Activations that blocks recompute in the backward pass: none, mlp or block.
    """

    autocast_dtype: torch.dtype | None = None
    """The dtype of autocast in which the model answers outside of training; None: none."""

    def __init__(
        self,
        vocabulary_size: int,
        token_heads: Mapping[str, int],
        max_shift: int | None,
        attention: AttentionFactory | Sequence[AttentionFactory],
        sequence_heads: Mapping[str, int] = MappingProxyType({}),
        sites: int = 0,
        segment_count: int = 1,
        interleaved: bool = False,
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
        self.token_heads, self.sequence_heads = dict(token_heads), dict(sequence_heads)
        self.causal, self.interleaved, self.sites, step = causal, interleaved, sites, 1 + interleaved
        self.embed = nn.Embedding(vocabulary_size, dim)
        self.segment_embedding = nn.Embedding(segment_count, dim) if segment_count > 1 else None
        if self.segment_embedding is not None:  # small, so that equal bases of two sequences begin as similar vectors
            nn.init.normal_(self.segment_embedding.weight, std=0.2)
        self.stem_conv = ConvStem(dim, stem_conv, causal or stem_conv_causal, step) if stem_conv else None
        self.alignment_stem = None
        if max_shift is not None:
            stem = AlignmentStem(dim, vocabulary_size, max_shift, alignment_filters, alignment_kernel, causal)
            self.alignment_stem = stem
        layers = attention if isinstance(attention, Sequence) else [attention]
        if set(layers[:depth]) != set(layers):
            raise UserError(
                f"attention.layers lists {len(layers)} layers and model.depth={depth} builds only the first {depth}, so"
                f" a kind of layer would be missing; give model.depth={len(layers)} or a shorter attention.layers"
            )
        self.blocks = nn.ModuleList(
            Block(dim, width, block_conv, causal, layers[number % len(layers)], activation_checkpointing, step)
            for number in range(depth)
        )
        self.norm = nn.RMSNorm(dim)
        self.token_head = Head(dim, sum(self.token_heads.values())) if token_heads else None
        numbers = sum(self.sequence_heads.values())
        self.sequence_head = Head((sites + 1) * dim, numbers) if sequence_heads else None

    def forward(
        self,
        ids: Integer[Tensor, "batch length"],
        reference_window: Integer[Tensor, "batch wide"] | None = None,
        layout: TokenLayout = TokenLayout(),
        pooling_weights: Float[Tensor, "batch sites length"] | None = None,
        group: Any = None,
    ) -> dict[str, Float[Tensor, "batch answers numbers"]]:
        """Logits of every head.

        Args:
            ids: Token ids `[batch, length]`.
            reference_window: Reference ids `[batch, length + 2 max_shift]` of a model with an alignment stem.
            layout: Padding mask, position ids and segment ids.
            pooling_weights: Weights `[batch, sites, length]` of the tokens of each site, for the sequence heads.
            group: The processes that compute a shard of the sequence each. All of them give the whole batch.

        Returns:
            By output, `[batch, length, numbers]` of a token head or `[batch, 1, numbers]` of a sequence head. With a
            group, the token heads of each process answer for the tokens of its shard; the last shards may hold padding.
        """
        if group is None:
            return self.heads(self.features(ids, reference_window, layout), layout.padding_mask, pooling_weights)
        inputs = shard_inputs(ids, reference_window, layout, pooling_weights, group, self.shard_multiple)
        x = self.features(inputs.ids, inputs.reference_window, inputs.layout)
        return self.heads(x, inputs.layout.padding_mask, inputs.pooling_weights, inputs.span)

    def features(
        self,
        ids: Integer[Tensor, "batch length"],
        reference_window: Integer[Tensor, "batch wide"] | None = None,
        layout: TokenLayout = TokenLayout(),
    ) -> Float[Tensor, "batch length dim"]:
        """The input of the heads: every token after the last block and the norm. Arguments as of `forward`.

        With a span in the layout, which is then that of a shard, the ids are those of the whole sequence.
        """
        if layout.span is None:
            x = self._embedded(ids, reference_window, layout)
        else:
            x = self._embedded_part(ids, reference_window, layout.span.whole, layout.span.start, layout.span.stop)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)

    @torch.no_grad()
    def forward_chunked(
        self,
        ids: Integer[Tensor, "batch length"],
        reference_window: Integer[Tensor, "batch wide"] | None = None,
        layout: TokenLayout = TokenLayout(),
        pooling_weights: Float[Tensor, "batch sites length"] | None = None,
        chunk: int = CHUNK,
    ) -> dict[str, Float[Tensor, "batch answers numbers"]]:
        """The same logits as `forward`, for sequences too long for it: layer by layer, `chunk` tokens at a time.

        Memory that grows with the length is one number for each token and channel, and the need of a layer that cannot
        be computed in chunks.
        """
        length = ids.shape[1]
        x = self.embed.weight.new_empty(len(ids), length, self.embed.embedding_dim)
        for start in range(0, length, chunk):
            stop = min(start + chunk, length)
            x[:, start:stop] = self._embedded_part(ids, reference_window, layout, start, stop)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.forward_chunked(x, layout, chunk)
        for piece in x.split(chunk, dim=1):
            piece.copy_(self.norm(piece))
        return self.heads(x, layout.padding_mask, pooling_weights)

    def init_state(self, batch: int) -> ModelState:
        """The state before the first token of `batch` sequences.

        Raises:
            UserError: The model is not causal, compares sequences, or has a layer without a state.
        """
        if not self.causal or self.alignment_stem is not None or self.segment_embedding is not None:
            raise UserError("only a causal model of one sequence can be computed step by step")
        blocks = tuple(block.init_state(batch) for block in self.blocks if isinstance(block, Block))
        return ModelState(torch.zeros(batch, 0, dtype=torch.long, device=self.embed.weight.device), blocks)

    def step(
        self, ids: Integer[Tensor, "batch length"], state: ModelState
    ) -> tuple[Float[Tensor, "batch length dim"], ModelState]:
        """The vectors that `features` returns, of the next tokens of a causal model, without padding.

        Args:
            ids: The ids of the next tokens.
            state: The state after the tokens before them, which stays valid: several continuations may begin there.

        Returns:
            The input of the heads, `[batch, length, dim]`, and the new state.
        """
        wide = torch.cat([state.ids, ids], 1)
        x, states = self._embedded(wide, None, TokenLayout())[:, state.ids.shape[1] :], []
        for block, before in zip(self.blocks, state.blocks, strict=True):
            assert isinstance(block, Block)
            x, after = block.step(x, before)
            states.append(after)
        read = 0 if self.stem_conv is None else self.stem_conv.sides[0]
        return self.norm(x), ModelState(wide[:, max(wide.shape[1] - read, 0) :], tuple(states))

    @property
    def shard_multiple(self) -> int:
        """Tokens that a shard of a sequence must be a multiple of, if several processes hold the sequence."""
        layers = [block.attention for block in self.blocks if isinstance(block, Block)]
        return math.lcm(1 + self.interleaved, *(layer.shard_multiple for layer in layers))

    def _embedded_part(
        self, ids: Tensor, reference_window: Tensor | None, layout: TokenLayout, start: int, stop: int
    ) -> Tensor:
        """The embedding of tokens [start, stop), which reads their neighbours."""
        sides = [stem.sides for stem in (self.stem_conv, self.alignment_stem) if stem is not None]
        before, after = (max(side) for side in zip((0, 0), *sides, strict=True))
        wider = 0 if self.alignment_stem is None else 2 * self.alignment_stem.max_shift
        low, high = max(0, start - before), min(ids.shape[1], stop + after)
        reference = None if reference_window is None else reference_window[:, low : high + wider]
        wide = self._embedded(ids[:, low:high], reference, slice_layout(layout, ids, low, high))
        return wide[:, start - low : stop - low]

    def _embedded(self, ids: Tensor, reference_window: Tensor | None, layout: TokenLayout) -> Tensor:
        kinds = [(ids, self.embed)]
        if self.segment_embedding is not None and layout.segment_ids is not None:
            kinds.append((layout.segment_ids, self.segment_embedding))
        x = functools.reduce(torch.add, (table(numbers.int()) for numbers, table in kinds))
        if self.stem_conv is not None and sum(table.num_embeddings for _, table in kinds) < x.shape[-1]:
            indicators = [
                numbers[..., None] == torch.arange(table.num_embeddings, dtype=numbers.dtype, device=numbers.device)
                for numbers, table in kinds
            ]
            vectors = torch.cat([table.weight for _, table in kinds])
            x = x + self.stem_conv.from_indicators(torch.cat(indicators, -1).to(x.dtype), vectors, layout.padding_mask)
        elif self.stem_conv is not None:
            x = x + self.stem_conv(x, layout.padding_mask)
        if self.alignment_stem is not None:
            assert reference_window is not None, "this model was built for a task that shows a reference"
            x = x + self.alignment_stem(ids, reference_window, layout.padding_mask)
        return x

    def heads(
        self,
        x: Float[Tensor, "batch length dim"],
        padding_mask: Tensor | None,
        pooling_weights: Tensor | None,
        span: Span | None = None,
    ) -> dict[str, Tensor]:
        """Logits of every head from what `features` returns, of a shard if there is a span; as of `forward`."""
        logits: dict[str, Tensor] = {}
        if self.token_head is not None:
            split = self.token_head(x).split(list(self.token_heads.values()), -1)
            logits |= dict(zip(self.token_heads, split, strict=True))
        if self.sequence_head is not None:
            assert (pooling_weights is not None) == (self.sites > 0), "of a task with as many sites as the model has"
            pooled = pool_sites(x, pooling_weights, padding_mask, span)
            split = self.sequence_head(pooled).split(list(self.sequence_heads.values()), -1)
            logits |= dict(zip(self.sequence_heads, split, strict=True))
        return logits
