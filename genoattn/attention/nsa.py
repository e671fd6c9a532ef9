"""Native sparse attention: compressed blocks of tokens, selected blocks and a window, summed by learned gates."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, TokenLayout, zero_padding
from genoattn.attention.modules.compression import Compression
from genoattn.attention.modules.cross_segment import (
    View,
    attend_over_shards,
    cross_segment_attention,
    reference_masks,
)
from genoattn.attention.modules.projections import HeadOptions, QKVProjection, Turns
from genoattn.attention.modules.reference import reference_attention, visibility_mask
from genoattn.attention.modules.rotary import VALUE_ROPE, position_ids_of, rotate, rotated_at, turns
from genoattn.attention.ops.block_gather import selected_attention
from genoattn.attention.ops.block_sparse import in_blocks, masks_by_block
from genoattn.attention.ops.native_sparse import choose_blocks, compressed_attention
from genoattn.attention.ops.sliding_window import window_attention
from genoattn.attention.ops.sliding_window_blocks import Window, scored_pairs
from genoattn.attention.parallel import Span, halo, mask_of_all, tied
from genoattn.attention.parallel.native_sparse import native_sparse_over_shards
from genoattn.errors import UserError

BRANCHES = 3
"""Compressed, selected and window: the gates of a head."""


@final
class NativeSparseAttention(Attention):
    """Native sparse attention: y_i = Σ_b σ(g_b(x_i)) softmax(q_i K_bᵀ / √d) V_b over three sets of keys b.

    - Compressed: a small network turns every `cell_size` keys, and values, into one; a token sees all of them (causal:
      those that ended).
    - Selected: a block of `block_size` queries sees the blocks of tokens that weigh most in its compressed attention,
      up to `blocks_per_query` with its own block and those beside it.
    - Window: a token sees its neighbours.

    The selection learns through the compressed branch. Compression is quadratic with a constant of 1 / `cell_size`.
    Differences from the paper: a block of queries selects together, and each head for itself; cells do not overlap; the
    branches share keys and values. Rotary positions and `heads.rotate_values` have no effect on the compressed branch,
    whose network is not linear in what it compresses. Heads with `cross_segment` compress, select and see the tokens of
    other segments alone, and a block selects for its queries of one segment together.
    Paper: Yuan et al. 2025, arXiv:2502.11089.

    Args:
        dim: Channels of a token.
        causal: See the token itself and those before it alone.
        heads: Options of the heads.
        cell_size: Tokens that are compressed into one key and value.
        block_size: Tokens of a block, a multiple of `cell_size`.
        blocks_per_query: Blocks of keys that a block of queries sees.
        window: Tokens seen by the window on each side.

    Raises:
        UserError: A setting is out of its range.
    """

    complexity = "quadratic"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        cell_size: int = 16,
        block_size: int = 32,
        blocks_per_query: int = 8,
        window: int = 64,
    ):
        super().__init__()
        if cell_size < 1:
            raise UserError(f"attention.cell_size must be 1 or more tokens, got {cell_size}")
        if block_size < cell_size or block_size % cell_size:
            raise UserError(
                f"attention.block_size must be a multiple of attention.cell_size, {cell_size}, got {block_size}"
            )
        if blocks_per_query < 3:
            raise UserError(
                "attention.blocks_per_query must be 3 or more: a block's own and those beside it are always seen, got"
                f" {blocks_per_query}"
            )
        if window < 0:
            raise UserError(f"attention.window must be 0 or more tokens, got {window}")
        self.heads = QKVProjection(dim, heads)
        # The layer itself rotates values, of two branches: the third compresses them as they are.
        self.rotate_values, self.heads.rotate_values = self.heads.rotate_values, False
        self.compress_keys = Compression(cell_size, self.heads.dim_head)
        self.compress_values = Compression(cell_size, self.heads.dim_head)
        self.gates = nn.Linear(dim, BRANCHES * self.heads.count)
        self.causal = causal
        self.weights_sum_to_one = False
        self.asymmetry = "a cell compresses its tokens in their order"
        self.cell_size, self.block_size, self.blocks_per_query = cell_size, block_size, blocks_per_query
        self.shard_multiple = block_size
        self.window = Window(window, 0 if causal else window)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project(x, layout)
        if not x.numel():
            return self.heads.combine(v, x, layout)
        gates, (angles, of_values) = self._gates(x, layout), self._angles(x, layout)

        def attend(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
            block, few = self.block_size // view.stride, self.blocks_per_query
            real_q, real_k = masks_by_block(q, block, view.padding_mask, view.key_mask)
            cell_k, cell_v, real_cells = self._cells(k, v, real_k, view)
            with torch.autocast(x.device.type, enabled=False):  # a choice by rounded weights would be another choice
                wide = torch.promote_types(q.dtype, torch.float32)
                q, k, v, cell_k, cell_v = (t.to(wide) for t in (q, k, v, cell_k, cell_v))
                compressed = compressed_attention(q, cell_k, cell_v, real_cells, self._last(real_cells))
                chosen = choose_blocks(
                    in_blocks(q, block), cell_k, real_q, real_k, real_cells, causal=self.causal, blocks=few
                )
                q, k = rotated_at(q, angles, view.queries), rotated_at(k, angles, view.keys)
                v = rotated_at(v, of_values, view.keys)
                block_q, block_k, block_v = (in_blocks(t, block) for t in (q, k, v))
                selected = selected_attention(block_q, block_k, block_v, chosen, real_k, self.causal)
                selected = selected.flatten(1, 2)[:, : q.shape[1]]
                left, right = view.sides(self.window.left, self.window.right)
                real, keys = view.padding_mask, view.key_mask
                near = window_attention(
                    q, k, v, left=left, right=right, causal=self.causal, padding_mask=real, key_mask=keys
                )
                return self._weighed((compressed, selected, near), gates, of_values, view)

        cross_heads = self.heads.cross_heads
        y = cross_segment_attention(
            attend, q, k, v, cross_heads=cross_heads, layout=layout, causal=self.causal, fits=self._fits
        )
        return self.heads.combine(y.to(x.dtype), x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """Cells are gathered, the blocks that the shard chooses are fetched, and its neighbours within the window."""
        wide = halo(x, span, self.window.left, self.window.right)
        q, k, v = self.heads.project(wide.x, wide.layout)
        gates, (angles, of_values) = self._gates(wide.x, wide.layout), self._angles(wide.x, wide.layout)
        inner, exact = slice(wide.before, wide.before + span.length), torch.promote_types(q.dtype, torch.float32)

        def attend(view: View) -> Tensor:
            some_q, some_k, some_v = (t[:, :, view.heads] for t in (q, k, v))
            mask = mask_of_all(x, span, view.padding_mask)
            real_k = masks_by_block(mask, self.block_size, mask, view.key_mask)[1]
            blocks = real_k[:, span.start // self.block_size : span.stop // self.block_size]
            plain = View(self.causal, key_mask=blocks.flatten(1))
            cell_k, cell_v, _ = self._cells(wide.inner(some_k), wide.inner(some_v), blocks, plain)
            with torch.autocast(x.device.type, enabled=False):
                branches = native_sparse_over_shards(
                    wide.inner(some_q).to(exact),
                    rotated_at(some_q.to(exact), angles, slice(None)),
                    rotated_at(some_k.to(exact), angles, slice(None)),
                    rotated_at(some_v.to(exact), of_values, slice(None)),
                    cell_k.to(exact),
                    cell_v.to(exact),
                    view._replace(padding_mask=mask, key_mask=real_k.flatten(1)),
                    span,
                    block=self.block_size,
                    blocks=self.blocks_per_query,
                    window=self.window,
                )
                own = View(self.causal, mask[:, span.start : span.stop], queries=inner, heads=view.heads)
                return self._weighed(branches, gates, of_values, own)

        cross_heads, like = self.heads.cross_heads, wide.inner(v).to(exact)
        y = attend_over_shards(attend, like, cross_heads=cross_heads, span=span, causal=self.causal)
        return self.heads.combine(tied(y.to(x.dtype), wide.x), x, layout)

    def _weighed(
        self, branches: tuple[Tensor, Tensor, Tensor], gates: Tensor, of_values: Turns | None, view: View
    ) -> Tensor:
        """Outputs of the three branches, weighed by the gates at the queries of a view."""
        (compressed, selected, near), some = branches, gates[:, view.queries, view.heads]
        of_cells, of_blocks, of_window = some.unbind(-2)
        y = rotated_at(of_blocks * selected + of_window * near, of_values, view.queries, back=True)
        return zero_padding(y + of_cells * compressed, view.padding_mask)

    def _fits(self, view: View) -> bool:
        """True if cells, blocks and windows of slices hold the tokens that those of the whole hold."""
        same = view.stride == 2 and self.cell_size % 2 == 0 and view.counts[0] == view.counts[1] and not self.causal
        return same and min(view.sides(self.window.left, self.window.right)) >= 0

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project(x, layout)
        length, at = x.shape[1], position_ids_of(x, layout.position_ids)
        near_q, near_k = (rotate(t, at, self.heads.rope) if self.heads.rotary else t for t in (q, k))
        near_v = rotate(v, at, VALUE_ROPE) if self.rotate_values else v
        any_key = visibility_mask(length, length, 0 if self.causal else length, None, x.device)
        near_key = visibility_mask(length, self.window.left, self.window.right, None, x.device)
        outputs = []
        for head in range(self.heads.count):
            only, total = slice(head, head + 1), v.new_zeros(BRANCHES, *v[:, :, :1].shape)
            qkv = near_q[:, :, only], near_k[:, :, only], near_v[:, :, only]
            for queries, keys in reference_masks(layout, x, across=head >= self.heads.own_heads):
                seen = queries[:, :, None] & keys[:, None, :]
                weights, values = self._naive_cells(q[:, :, only], k[:, :, only], v[:, :, only], queries, keys)
                pairs = (self._chosen_pairs(*row) for row in zip(weights.detach(), queries, keys, strict=True))
                chosen = seen & any_key & torch.stack(list(pairs)).to(x.device)
                branches = reference_attention(*qkv, visible=chosen), reference_attention(*qkv, visible=seen & near_key)
                total = total + torch.stack([(weights @ values)[:, :, None], *branches])
            outputs.append(total)
        compressed, selected, near = torch.cat(outputs, dim=3)
        of_cells, of_blocks, of_window = self._gates(x, layout).unbind(-2)
        selected, near = (rotate(t, -at, VALUE_ROPE) if self.rotate_values else t for t in (selected, near))
        y = of_cells * compressed + of_blocks * selected + of_window * near
        return self.heads.combine(y.to(x.dtype), x, layout)

    def _naive_cells(self, q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [batch, length, cells] of the cells of one head's keys, and the cells' values."""
        _, blocks = masks_by_block(k, self.block_size, keys, None)
        cell_k, cell_v, real_cells = self._cells(k, v, blocks, View(self.causal, queries, keys))
        ended = torch.arange(1, cell_k.shape[1] + 1) * self.cell_size <= torch.arange(1, q.shape[1] + 1)[:, None]
        visible = queries[:, :, None] & real_cells[:, None] & (ended.to(q.device) | (not self.causal))
        weights = (torch.einsum("bqhd,bchd->bqc", q, cell_k) / self.heads.dim_head**0.5).exp() * visible
        return weights / weights.sum(-1, keepdim=True).clamp_min(1e-30), cell_v[:, :, 0]

    def _chosen_pairs(self, weights: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """The square of (query, key) pairs whose block is chosen, from the weights of cells for one head."""
        length, size = len(queries), self.block_size
        count = -(-length // size)
        chosen = torch.zeros(length, length, dtype=torch.bool)
        holds = [bool(keys[at * size : (at + 1) * size].any()) for at in range(count)]
        asks = queries.tolist()
        for own in range(count):
            asking = range((own - 1) * size, own * size + 1) if self.causal else range(own * size, (own + 1) * size)
            asking = [at for at in asking if 0 <= at < length and asks[at]]
            by_block = weights[asking].unflatten(-1, (count, -1)).sum((0, 2)).tolist()
            others = [at for at in range(own + 1 if self.causal else count) if holds[at]]
            free = [at for at in others if abs(at - own) > 1]
            free.sort(key=lambda at: -by_block[at] if asking else abs(at - own))
            for other in ([at for at in others if abs(at - own) <= 1] + free)[: self.blocks_per_query]:
                chosen[own * size : (own + 1) * size, other * size : (other + 1) * size] = True
        return chosen

    def _cells(self, k: Tensor, v: Tensor, real: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of the cells [batch, cells, heads, dim_head], and True for cells with a real token.

        Args:
            k: Keys of a view.
            v: Values of the view.
            real: True for the keys to compress [batch, count, block].
            view: The view.
        """
        size, places = self.cell_size // view.stride, slice(view.keys.start, None, view.stride)
        in_cells = real.flatten(1).unflatten(1, (-1, size))
        k, v = (zero_padding(t, view.key_mask) for t in (k, v))
        k, v = (in_blocks(t, real.shape[2]).flatten(1, 2).unflatten(1, (-1, size)) for t in (k, v))
        keys = self.compress_keys(k, in_cells, places)
        if self.heads.qk_norm:
            keys = F.rms_norm(keys, keys.shape[-1:], eps=1e-6)
        return keys, self.compress_values(v, in_cells, places), in_cells.any(-1)

    def _last(self, real_cells: Tensor) -> Tensor | None:
        """Index of the last token of each cell of a causal layer."""
        cells = real_cells.shape[1]
        return torch.arange(1, cells + 1, device=real_cells.device) * self.cell_size - 1 if self.causal else None

    def _gates(self, x: Tensor, layout: TokenLayout) -> Float[Tensor, "batch length heads branches 1"]:
        return self.gates(zero_padding(x, layout.padding_mask)).sigmoid().unflatten(-1, (-1, BRANCHES, 1))

    def _angles(self, x: Tensor, layout: TokenLayout) -> tuple[Turns | None, Turns | None]:
        """Rotations of queries and keys, and of values, at all tokens; None if there are none."""
        where = position_ids_of(x, layout.position_ids), self.heads.dim_head
        wide = torch.promote_types(x.dtype, torch.float32)
        scores = turns(*where, self.heads.rope, wide) if self.heads.rotary else None
        return scores, turns(*where, VALUE_ROPE, wide) if self.rotate_values else None

    def flops(self, length: int) -> int:
        """Projections, gates, compression, pairs of tokens, and scores of cells: to answer and to select.

        Heads that see another segment compute nothing in a sequence of one segment.
        """
        heads, width = self.heads.own_heads, self.heads.dim_head
        count = -(-length // self.block_size)
        padded, cells = count * self.block_size, count * self.block_size // self.cell_size
        compression = 2 * 2 * cells * self.compress_keys.weights
        scores = 2 * (2 * length + padded) * cells * width
        selected = 4 * padded * min(self.blocks_per_query, count) * self.block_size * width
        near = 4 * scored_pairs(length, length, self.window) * width
        gates = 2 * length * self.gates.weight.numel()
        return self.heads.flops(length) + gates + heads * (compression + scores + selected + near)

    def state_bytes(self, length: int) -> int:
        """Every key and value, because any may be selected, and those of the cells.

        Heads that see another segment have cells for each segment of queries.
        """
        return 4 * 2 * (length + length // self.cell_size) * self.heads.count * self.heads.dim_head
