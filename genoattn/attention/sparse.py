"""Softmax attention over blocks of keys chosen by pooled scores, for each block of queries and each head."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.modules.cross_segment import (
    HIDDEN,
    cross_segment_attention,
    head_widths,
    scored_channels,
)
from genoattn.attention.modules.dispatch import KERNEL_BLOCKS, NO_SUCH_BLOCK, Backend
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.reference import reference_attention, visibility_mask
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.block_sparse import sparse_attention
from genoattn.errors import UserError


@final
class SparseAttention(Attention):
    """Block-sparse softmax attention: y_i = Σ_j softmax_j(q_i·k_j / √d) v_j over the selected blocks of keys.

    A block of queries sees its own block, the blocks beside it and, by head, the blocks with the highest product of
    mean query and mean key. Attention itself is linear in the length. The scores of all pairs of blocks are quadratic
    with a small constant: with 64 tokens a block, 1/8192 of full attention. Heads with `cross_segment` select first
    the blocks that hold tokens of another segment.

    Blocks begin at multiples of their size from the left, so a reversed sequence has the same blocks only if its
    length is such a multiple. Papers: MoBA, arXiv:2502.13189; NSA, arXiv:2502.11089.
    """

    complexity = "quadratic"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        block_size: int = 64,
        blocks_per_query: int = 16,
        max_length: int = 262144,
        backend: str = "auto",
    ):
        super().__init__()
        if block_size < 1:
            raise UserError(f"attention.block_size must be 1 or more tokens, got {block_size}")
        if blocks_per_query < 3:
            raise UserError(
                "attention.blocks_per_query must be 3 or more: a block's own and those beside it are always seen, got"
                f" {blocks_per_query}"
            )
        self.heads = QKVProjection(dim, heads)
        self.causal = causal
        self.weights_sum_to_one = self.heads.averages
        self.block_size, self.blocks_per_query, self.max_length = block_size, blocks_per_query, max_length
        self.engine = Backend(backend, "blocks", None if block_size in KERNEL_BLOCKS else NO_SUCH_BLOCK)
        self.asymmetry = self.heads.asymmetry

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        if x.shape[1] > self.max_length:
            raise UserError(
                "attention=sparse scores every pair of blocks and takes at most attention.max_length="
                f"{self.max_length} tokens, got {x.shape[1]}"
            )

        def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
            by = by_triton.sparse_attention if self.engine.uses_triton(q) else sparse_attention
            return by(
                q,
                k,
                v,
                causal=self.causal,
                block=self.block_size,
                blocks=self.blocks_per_query,
                padding_mask=layout.padding_mask,
                scale=scale,
            )

        q, k, v = self.heads.project_and_rotate(x, layout)
        return self.heads.combine(
            cross_segment_attention(attend, q, k, v, cross_heads=self.heads.cross_heads, layout=layout), x, layout
        )

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project_and_rotate(x, layout)
        length = x.shape[1]
        visible = visibility_mask(length, length, 0 if self.causal else length, layout.padding_mask, x.device)
        segments = torch.zeros(x.shape[:2], dtype=torch.long) if layout.segment_ids is None else layout.segment_ids
        same = segments[:, :, None] == segments[:, None, :]
        outputs = []
        for head in range(self.heads.count):
            crosses = head >= self.heads.count - self.heads.cross_heads
            only = slice(head, head + 1)
            pairs = q[:, :, head] @ k[:, :, head].transpose(1, 2) * self.heads.dim_head**-0.5
            pairs = pairs + HIDDEN * same if crosses else pairs
            chosen = torch.stack(
                [
                    self._selected_pairs(
                        pairs[row].detach(), None if layout.padding_mask is None else layout.padding_mask[row]
                    )
                    for row in range(len(x))
                ]
            )
            seen = visible & chosen & ~same if crosses else visible & chosen
            outputs.append(reference_attention(q[:, :, only], k[:, :, only], v[:, :, only], visible=seen))
        return self.heads.combine(torch.cat(outputs, dim=2), x, layout)

    def _selected_pairs(self, pairs: Tensor, padding_mask: Tensor | None) -> Tensor:
        """The square of (query, key) pairs whose block is selected, from the scores of all pairs of one head."""
        length, size = len(pairs), self.block_size
        real = [True] * length if padding_mask is None else padding_mask.tolist()
        places = [
            [at for at in range(start, min(start + size, length)) if real[at]] for start in range(0, length, size)
        ]
        chosen = torch.zeros(length, length, dtype=torch.bool)
        for own in range(len(places)):
            before = places[own - 1] if own else []
            asking = before + [own * size] * real[own * size] if self.causal else places[own]
            others = [at for at, place in enumerate(places) if place and not (self.causal and at > own)]
            forced = [at for at in others if abs(at - own) <= 1]
            free = [at for at in others if abs(at - own) > 1]
            if asking:
                # The mean of all pairs' scores is the score of the means.
                means = pairs[asking].mean(0).tolist()
                free.sort(key=lambda at: -sum(means[key] for key in places[at]) / len(places[at]))
            else:
                free.sort(key=lambda at: abs(at - own))
            for other in (forced + free)[: self.blocks_per_query]:
                chosen[own * size : (own + 1) * size, other * size : (other + 1) * size] = True
        return chosen

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, head_widths(self.heads))

    def flops(self, length: int) -> int:
        """Projections, scores of all pairs of blocks, and every pair of tokens in selected blocks."""
        count = -(-length // self.block_size)
        padded = count * self.block_size
        channels = scored_channels(self.heads)
        pairs = padded * min(self.blocks_per_query, count) * self.block_size
        return self.heads.flops(length) + channels * (4 * pairs + 4 * padded + 2 * count**2)

    def state_bytes(self, length: int) -> int:
        """Every key and value: any may be selected."""
        return 4 * 2 * length * self.heads.count * self.heads.dim_head
