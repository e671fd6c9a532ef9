"""Native sparse attention: compressed blocks of tokens, selected blocks and a window, summed by learned gates."""

from dataclasses import replace
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, TokenLayout, zero_padding
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.reference import reference_attention, visibility_mask
from genoattn.attention.modules.rotary import position_ids_of, rotate
from genoattn.attention.ops.native_sparse import choose_blocks, compressed_attention, selected_attention
from genoattn.attention.ops.sliding_window import windowed_attention
from genoattn.attention.ops.sliding_window_blocks import Window, scored_pairs
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
    branches share keys and values. Rotary positions have no effect on the compressed branch, which goes by content.
    `heads.cross_segment` and `heads.rotate_values` have no effect: a cell compresses values by a network, which is not
    linear in them. Paper: Yuan et al. 2025, arXiv:2502.11089.

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
        self.heads = QKVProjection(dim, replace(heads, cross_segment=0.0, rotate_values=False))
        self.compress_keys = _Compression(cell_size, self.heads.dim_head)
        self.compress_values = _Compression(cell_size, self.heads.dim_head)
        self.gates = nn.Linear(dim, BRANCHES * self.heads.count)
        self.causal = causal
        self.weights_sum_to_one = False
        self.asymmetry = "a cell compresses its tokens in their order"
        self.cell_size, self.block_size, self.blocks_per_query = cell_size, block_size, blocks_per_query
        self.window = Window(window, 0 if causal else window)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project(x, layout)
        if not x.numel():
            return self.heads.combine(v, x, layout)
        real, length = self._real_blocks(x, layout), x.shape[1]
        cells = self._cells(k, v, real)
        with torch.autocast(x.device.type, enabled=False):  # a choice by rounded weights would be another choice
            wide = torch.promote_types(x.dtype, torch.float32)
            q, k, v, cell_k, cell_v = (t.to(wide) for t in (q, k, v, *cells[:2]))
            near_q, near_k = self._rotated(q, x, layout), self._rotated(k, x, layout)
            compressed = compressed_attention(q, cell_k, cell_v, cells[2], self._last(cells[2]))
            chosen = choose_blocks(
                self._in_blocks(q), cell_k, real, cells[2], causal=self.causal, blocks=self.blocks_per_query
            )
            block_q, block_k, block_v = (self._in_blocks(t) for t in (near_q, near_k, v))
            selected = selected_attention(block_q, block_k, block_v, chosen, real, self.causal)
            mask = layout.padding_mask
            near = windowed_attention(near_q, near_k, v, self.window, padding_mask=mask, real=mask)
        return self._gated(x, layout, compressed, selected.flatten(1, 2)[:, :length], near)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project(x, layout)
        near_q, near_k = self._rotated(q, x, layout), self._rotated(k, x, layout)
        real, length = self._real_blocks(x, layout), x.shape[1]
        cell_k, cell_v, real_cells = self._cells(k, v, real)
        ended = torch.arange(cell_k.shape[1]) * self.cell_size + self.cell_size <= torch.arange(1, length + 1)[:, None]
        visible = real_cells[:, None, None] & (ended.to(x.device) | (not self.causal))
        cells = (torch.einsum("bqhd,bchd->bhqc", q, cell_k) / self.heads.dim_head**0.5).exp() * visible
        cells = cells / cells.sum(-1, keepdim=True).clamp_min(1e-30)
        compressed = torch.einsum("bhqc,bchd->bqhd", cells, cell_v)
        visible = visibility_mask(length, length, 0 if self.causal else length, layout.padding_mask, x.device)
        selected = []
        for head in range(self.heads.count):
            only = slice(head, head + 1)
            chosen = torch.stack([self._chosen_pairs(*row) for row in zip(cells[:, head].detach(), real, strict=True)])
            seen = visible & chosen[:, :length, :length]
            selected.append(reference_attention(near_q[:, :, only], near_k[:, :, only], v[:, :, only], visible=seen))
        seen = visibility_mask(length, self.window.left, self.window.right, layout.padding_mask, x.device)
        near = reference_attention(near_q, near_k, v, visible=seen)
        return self._gated(x, layout, compressed, torch.cat(selected, dim=2), near)

    def _chosen_pairs(self, weights: Tensor, real: Tensor) -> Tensor:
        """The square of (query, key) pairs whose block is chosen, from the weights of cells for one head."""
        count, size = real.shape
        chosen = torch.zeros(count * size, count * size, dtype=torch.bool)
        holds = real.any(1).tolist()
        for own in range(count):
            asking = [at for at in range((own - 1) * size, own * size + 1) if at >= 0]
            asking = asking if self.causal else list(range(own * size, (own + 1) * size))
            asking = [at for at in asking if real.flatten()[at]]
            by_block = weights[asking].unflatten(-1, (count, -1)).sum((0, 2)).tolist()
            others = [at for at in range(own + 1 if self.causal else count) if holds[at]]
            free = [at for at in others if abs(at - own) > 1]
            free.sort(key=lambda at: -by_block[at] if asking else abs(at - own))
            for other in ([at for at in others if abs(at - own) <= 1] + free)[: self.blocks_per_query]:
                chosen[own * size : (own + 1) * size, other * size : (other + 1) * size] = True
        return chosen

    def _real_blocks(self, x: Tensor, layout: TokenLayout) -> Bool[Tensor, "batch count block"]:
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        real = real if layout.padding_mask is None else layout.padding_mask
        return F.pad(real, (0, -x.shape[1] % self.block_size)).unflatten(1, (-1, self.block_size))

    def _in_blocks(self, x: Tensor) -> Tensor:
        tail = -x.shape[1] % self.block_size
        return (F.pad(x, (0, 0, 0, 0, 0, tail)) if tail else x).unflatten(1, (-1, self.block_size))

    def _cells(self, k: Tensor, v: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of the cells [batch, cells, heads, dim_head], and True for cells with a real token."""
        in_cells = real.flatten(1).unflatten(1, (-1, self.cell_size))
        k, v = (self._in_blocks(t).flatten(1, 2).unflatten(1, (-1, self.cell_size)) for t in (k, v))
        keys = self.compress_keys(k, in_cells)
        if self.heads.qk_norm:
            keys = F.rms_norm(keys, keys.shape[-1:], eps=1e-6)
        return keys, self.compress_values(v, in_cells), in_cells.any(-1)

    def _last(self, real_cells: Tensor) -> Tensor | None:
        """Index of the last token of each cell of a causal layer."""
        cells = real_cells.shape[1]
        return torch.arange(1, cells + 1, device=real_cells.device) * self.cell_size - 1 if self.causal else None

    def _rotated(self, t: Tensor, x: Tensor, layout: TokenLayout) -> Tensor:
        return rotate(t, position_ids_of(x, layout.position_ids), self.heads.rope) if self.heads.rotary else t

    def _gated(self, x: Tensor, layout: TokenLayout, *branches: Tensor) -> Tensor:
        gates = self.gates(zero_padding(x, layout.padding_mask)).sigmoid().unflatten(-1, (-1, BRANCHES, 1)).unbind(-2)
        y = torch.stack([gate * branch for gate, branch in zip(gates, branches, strict=True)]).sum(0)
        return self.heads.combine(zero_padding(y, layout.padding_mask).to(x.dtype), x, layout)

    def flops(self, length: int) -> int:
        """Projections, gates, compression, pairs of tokens, and scores of cells: to answer and to select."""
        heads, width = self.heads.count, self.heads.dim_head
        count = -(-length // self.block_size)
        padded, cells = count * self.block_size, count * self.block_size // self.cell_size
        compression = 2 * 2 * cells * heads * self.compress_keys.weights
        scores = 2 * (2 * length + padded) * cells * heads * width
        selected = 4 * padded * min(self.blocks_per_query, count) * self.block_size * heads * width
        near = 4 * scored_pairs(length, length, self.window) * heads * width
        gates = 2 * length * heads * width * BRANCHES * heads
        return self.heads.flops(length) + gates + compression + scores + selected + near

    def state_bytes(self, length: int) -> int:
        """Every key and value, because any may be selected, and those of the cells."""
        return 4 * 2 * (length + length // self.cell_size) * self.heads.count * self.heads.dim_head


class _Compression(nn.Module):
    """Mean of the real tokens of each cell, plus a network of all of them and their places; 0 if none is real.

    What is not real is 0 in `x`.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(size, 1, width))
        self.hidden = nn.Linear(size * width, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, width, bias=False)
        self.weights = self.hidden.weight.numel() + self.out.weight.numel()

    def forward(
        self, x: Float[Tensor, "batch cells size heads dim_head"], real: Bool[Tensor, "batch cells size"]
    ) -> Float[Tensor, "batch cells heads dim_head"]:
        tokens = (x + self.places).masked_fill(~real[..., None, None], 0).transpose(2, 3).flatten(3)
        mean = x.sum(2) / real.sum(2).clamp_min(1)[..., None, None]
        return mean + self.out(F.gelu(self.hidden(tokens)))
