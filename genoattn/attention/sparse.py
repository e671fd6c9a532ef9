"""Softmax attention over blocks of keys chosen by pooled scores, for each block of queries and each head."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.modules.cross_segment import (
    View,
    attend_over_shards,
    cross_segment_attention,
    other_segment,
    reference_masks,
)
from genoattn.attention.modules.dispatch import KERNEL_BLOCKS, NO_SUCH_BLOCK, Backend
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.reference import reference_attention, visibility_mask
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.block_sparse import sparse_attention
from genoattn.attention.parallel import Span
from genoattn.attention.parallel.blocks import sparse_over_shards
from genoattn.errors import UserError


@final
class SparseAttention(Attention):
    """Block-sparse softmax attention: y_i = Σ_j softmax_j(q_i·k_j / √d) v_j over the selected blocks of keys.

    A block of queries sees its own block, the blocks beside it and, by head, the blocks of the highest score: the
    largest product of the means of `pool` queries and `pool` keys, so that a match of a few tokens is not averaged
    away. Attention itself is linear in the length. The scores of all pairs of pools are quadratic with a small
    constant: with 8 tokens a pool, 1/128 of full attention. Heads with `cross_segment` score a block by its tokens of
    other segments, for the queries of one segment.

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
        pool: int = 8,
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
        if pool < 1 or block_size % pool:
            raise UserError(f"attention.pool must divide attention.block_size={block_size}, got {pool}")
        self.pool = pool
        self.heads = QKVProjection(dim, heads)
        self.causal = causal
        self.weights_sum_to_one = self.heads.averages
        self.block_size, self.blocks_per_query, self.max_length = block_size, blocks_per_query, max_length
        self.shard_multiple = block_size
        self.engine = Backend(backend, "blocks", None if block_size in KERNEL_BLOCKS else NO_SUCH_BLOCK)
        self.asymmetry = self.heads.asymmetry

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        self._refuse_longer(x.shape[1])

        def attend(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
            block, pool = self.block_size // view.stride, self.pool // view.stride
            known = block in KERNEL_BLOCKS and self.engine.uses_triton(q)
            by = by_triton.sparse_attention if known else sparse_attention
            masks = {"padding_mask": view.padding_mask, "key_mask": view.key_mask}
            return by(q, k, v, causal=view.causal, block=block, blocks=self.blocks_per_query, pool=pool, **masks)

        q, k, v = self._project(x, layout)
        cross_heads = self.heads.cross_heads
        y = cross_segment_attention(
            attend, q, k, v, cross_heads=cross_heads, layout=layout, causal=self.causal, fits=self._fits
        )
        return self.heads.combine(y, x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """The means of keys that are scored are gathered, then the blocks that the shard selects are fetched."""
        self._refuse_longer(span.total)
        q, k, v = self._project(x, layout)

        def attend(view: View) -> Tensor:
            some_q, some_k, some_v = (t[:, :, view.heads] for t in (q, k, v))
            words = {"block": self.block_size, "blocks": self.blocks_per_query, "pool": self.pool}
            return sparse_over_shards(some_q, some_k, some_v, view, span, **words)

        y = attend_over_shards(attend, v, cross_heads=self.heads.cross_heads, span=span, causal=self.causal)
        return self.heads.combine(y, x, layout)

    def _refuse_longer(self, length: int) -> None:
        if length > self.max_length:
            raise UserError(
                "attention=sparse scores every pair of blocks and takes at most attention.max_length="
                f"{self.max_length} tokens, got {length}"
            )

    def _project(self, x: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor, Tensor]:
        # Not in half precision, whose rounded scores would select other blocks.
        with torch.autocast(x.device.type, enabled=False):
            return self.heads.project_and_rotate(x.to(self.heads.query.weight.dtype), layout)

    def _fits(self, view: View) -> bool:
        """True if the blocks of slices hold the tokens that blocks of the whole hold."""
        same = view.stride == 2 and self.pool % 2 == 0 and view.counts[0] == view.counts[1]
        return same and not self.causal

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self._project(x, layout)
        length = x.shape[1]
        visible = visibility_mask(length, length, 0 if self.causal else length, layout.padding_mask, x.device)
        visible = visible.expand(len(x), -1, -1)
        outputs = []
        for head in range(self.heads.count):
            crosses, only = head >= self.heads.own_heads, slice(head, head + 1)
            pairs = (q[:, :, head] @ k[:, :, head].transpose(1, 2)).detach()
            seen = torch.zeros_like(visible)
            for queries, keys in reference_masks(layout, x, across=crosses):
                chosen = [self._selected_pairs(pairs[row], queries[row], keys[row]) for row in range(len(x))]
                seen |= visible & torch.stack(chosen) & queries[:, :, None]
            seen = seen & other_segment(layout.segment_ids, x) if crosses else seen
            outputs.append(reference_attention(q[:, :, only], k[:, :, only], v[:, :, only], visible=seen))
        return self.heads.combine(torch.cat(outputs, dim=2), x, layout)

    def _selected_pairs(self, pairs: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """The square of (query, key) pairs whose block is selected, from the scores of all pairs of one head."""
        length, size = len(pairs), self.block_size
        asks, answers = (
            [self._pools(mask, start) for start in range(0, length, size)] for mask in (queries.tolist(), keys.tolist())
        )
        chosen = torch.zeros(length, length, dtype=torch.bool)
        for own in range(len(asks)):
            asking = asks[own]
            if self.causal:
                asking = (asks[own - 1] if own else []) + [[own * size]] * bool(queries[own * size])
            others = [at for at, pools in enumerate(answers) if pools and not (self.causal and at > own)]
            forced = [at for at in others if abs(at - own) <= 1]
            free = [at for at in others if abs(at - own) > 1]
            # The mean of the scores of all pairs is the score of the means.
            means = [pairs[pool].mean(0) for pool in asking]

            def score(at: int, own: int = own, means: list[Tensor] = means) -> float:
                found = [mean[pool].mean().item() for mean in means for pool in answers[at]]
                return max(found) if found else -abs(at - own)

            for other in (forced + sorted(free, key=score, reverse=True))[: self.blocks_per_query]:
                chosen[own * size : (own + 1) * size, other * size : (other + 1) * size] = True
        return chosen

    def _pools(self, mask: list[bool], start: int) -> list[list[int]]:
        """The tokens in the mask of each pool of the block that begins at `start`, if there are any."""
        end = min(start + self.block_size, len(mask))
        pools = ([at for at in range(at, min(at + self.pool, end)) if mask[at]] for at in range(start, end, self.pool))
        return [pool for pool in pools if pool]

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, self.heads.dim_head)

    def flops(self, length: int) -> int:
        """Projections, scores of all pairs of pools, and every pair of tokens in selected blocks.

        Heads that see another segment compute nothing in a sequence of one segment.
        """
        count = -(-length // self.block_size)
        padded = count * self.block_size
        channels = self.heads.own_heads * self.heads.dim_head
        pairs = padded * min(self.blocks_per_query, count) * self.block_size
        parts = self.block_size // self.pool
        scores = count**2 * parts * (parts + self.causal)
        return self.heads.flops(length) + channels * (4 * pairs + 4 * padded + 2 * scores)

    def state_bytes(self, length: int) -> int:
        """Every key and value: any may be selected."""
        return 4 * 2 * length * self.heads.count * self.heads.dim_head
