"""One softmax over a multi-resolution partition of the keys: exact nearby, pooled cells at doubling distance."""

from collections.abc import Callable, Iterator
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import Attention, ChunkReader, TokenLayout, zero_padding
from genoattn.attention.modules.cross_segment import View, attend_over_shards, cross_segment_attention
from genoattn.attention.modules.dispatch import KERNEL_BLOCKS, NO_SUCH_BLOCK, Backend
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.rotary import Rope, position_ids_of, rotate
from genoattn.attention.modules.streaming import slice_layout
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.hierarchical import (
    Schedule,
    attend_chunk,
    hierarchical_attention,
)
from genoattn.attention.ops.hierarchical_partition import Workspace
from genoattn.attention.ops.hierarchical_pooling import (
    HIDDEN,
    NEAR_LEVELS,
    PooledTokens,
    chunk_unit,
    concatenate,
    levels,
    pool_to_level,
    unpooled_tokens,
)
from genoattn.attention.parallel import Span, halo, positions_of_all, tied
from genoattn.attention.parallel.hierarchical import hierarchical_over_shards
from genoattn.errors import UserError


def naive_hierarchical_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    positions: Int[Tensor, "#batch length"] | None = None,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    key_mask: Bool[Tensor, "batch length"] | None = None,
    rope: Rope = Rope(),
) -> Float[Tensor, "batch length heads dim_head"]:
    """`hierarchical_attention` from the whole square, each far key replaced by the mean of its cell."""
    length = q.shape[1]
    index = torch.arange(length, device=q.device)
    shown = padding_mask if key_mask is None else key_mask
    real = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if shown is None else shown
    position_ids = torch.zeros_like(real).long() if positions is None else positions.expand_as(real)
    scores = q.new_zeros(q.shape[0], q.shape[2], length, length)
    turned_q = q if positions is None else rotate(q, positions, rope)
    unread = torch.ones(length, length, dtype=torch.bool, device=q.device)
    for level in range(levels(length, block)):
        same = ((index[:, None] >> level) == (index[None, :] >> level)) & real[:, None, :]
        count = same.sum(-1).clamp_min(1)
        mean = torch.einsum("bij,bjhd->bihd", same.to(k.dtype), k) / count[..., None, None]
        if positions is not None:
            mean = rotate(mean, (same * position_ids[:, None, :]).sum(-1) // count, rope)
        own = index // (block << level)
        neighbours = (own[:, None] - own[None, :]).abs() <= 1
        score = torch.einsum("bqhd,bkhd->bhqk", turned_q, mean) * q.shape[-1] ** -0.5
        scores = torch.where(unread & neighbours, score, scores)
        unread = unread & ~neighbours
    visible = real[:, None, None, :] & ((index[:, None] >= index) | (not causal))
    weights = scores.masked_fill(~visible, HIDDEN).softmax(-1).masked_fill(~visible, 0)
    return zero_padding(torch.einsum("bhqk,bkhd->bqhd", weights, v), padding_mask)


@final
class HierarchicalAttention(Attention):
    """Hierarchical attention: one softmax over nearby tokens and over pooled cells of 2, 4, 8, … tokens farther away.

    y_i = Σ_c softmax_c(q_i·k_c / √d + log n_c) v_c, with the mean key k_c and mean value v_c of the n_c tokens of cell
    c. A token sees every token once, in cells that grow with the distance. Time is n log n in the length.

    Cells begin at multiples of their size from the left, so a reversed sequence has the same cells only if its length
    is a multiple of the largest. Paper: after H-Transformer-1D, arXiv:2107.11906.
    """

    complexity = "n log n"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        block_size: int = 16,
        backend: str = "auto",
    ):
        super().__init__()
        if block_size < 2 or block_size % 2:
            raise UserError(f"attention.block_size must be an even number of tokens from 2, got {block_size}")
        self.heads = QKVProjection(dim, heads)
        self.causal = causal
        self.weights_sum_to_one = self.heads.averages
        self.block_size = block_size
        self.shard_multiple = block_size << (NEAR_LEVELS - 1)
        self.engine = Backend(backend, "blocks", None if block_size in KERNEL_BLOCKS else NO_SUCH_BLOCK)
        self.asymmetry = self.heads.asymmetry

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._answers(None, x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """The neighbours of the shard are fetched; of all others the cells of the levels above are gathered."""
        schedule = Schedule(span.total, self.block_size, self.causal, self.heads.rope)
        wide = halo(x, span, schedule.chunk_unit, 0 if self.causal else schedule.chunk_unit)
        q, k, v = self.heads.project(wide.x, wide.layout)
        positions = positions_of_all(x, span) if self.heads.rotary else None

        def attend(view: View) -> Tensor:
            some = (wide.inner(q)[:, :, view.heads], k[:, :, view.heads], v[:, :, view.heads])
            return hierarchical_over_shards(*some, positions, view, wide.before, span, schedule)

        cross_heads = self.heads.cross_heads
        y = attend_over_shards(attend, wide.inner(v), cross_heads=cross_heads, span=span, causal=self.causal)
        return self.heads.combine(tied(y, wide.x), x, layout)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._answers(naive_hierarchical_attention, x, layout)

    def _answers(self, attend: Callable[..., Tensor] | None, x: Tensor, layout: TokenLayout) -> Tensor:
        q, k, v = self.heads.project(x, layout)
        position_ids = position_ids_of(x, layout.position_ids) if self.heads.rotary else None
        naive = attend is not None

        def attend_view(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
            fast = by_triton.hierarchical_attention if self.engine.uses_triton(q) else hierarchical_attention
            return (attend or fast)(
                q,
                k,
                v,
                causal=view.causal,
                block=self.block_size,
                positions=None if position_ids is None else position_ids[:, view.queries],
                padding_mask=view.padding_mask,
                key_mask=view.key_mask,
                rope=self.heads.rope,
            )

        def fits(view: View) -> bool:
            # A token of a slice is a cell of the whole at level 1, where its blocks are as wide as those of the slice.
            same = view.stride == 2 and view.counts[0] == view.counts[1] and not self.causal and not naive
            return same and (position_ids is None or layout.positions_in_pairs)

        y = cross_segment_attention(
            attend_view, q, k, v, cross_heads=self.heads.cross_heads, layout=layout, causal=self.causal, fits=fits
        )
        return self.heads.combine(y, x, layout)

    @torch.no_grad()
    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """In two passes: the first pools what is far, the second answers; no gradient flows.

        Between segments it holds an eighth of the keys and values as cells, and one block of the highest near level.
        """
        if self.heads.cross_heads:  # a cell would need its sums by segment
            yield from super().forward_chunked(read_chunk, length, chunk)
            return
        schedule = Schedule(length, self.block_size, self.causal, self.heads.rope)
        segments = schedule.segments(chunk + schedule.chunk_unit - 1)
        far_levels = schedule.far_levels(pool_to_level(self._keys_values_of(*read_chunk(*at))) for at in segments)
        before, workspace = None, Workspace()
        for start, stop in segments:
            x, layout = read_chunk(start, schedule.neighbours(start, stop)[1])
            pooled = self._keys_values_of(x, layout)
            ends_at = start + x.shape[1]
            x, layout = x[:, : stop - start], slice_layout(layout, x, 0, stop - start)
            q = self.heads.queries(zero_padding(x, layout.padding_mask))
            position_ids = layout.position_ids if self.heads.rotary else None
            pooled = pooled if before is None else concatenate([before, pooled])
            first = ends_at - pooled.count.shape[1]
            y = attend_chunk(schedule, start, q, position_ids, pooled, first, far_levels, workspace)
            before = pooled.slice_tokens(slice(max(0, stop - schedule.chunk_unit - first), stop - first))
            yield start, stop, self.heads.combine(zero_padding(y.to(q.dtype), layout.padding_mask), x, layout)

    def _keys_values_of(self, x: Tensor, layout: TokenLayout) -> PooledTokens:
        """Keys and values of the tokens, each token a cell of its own."""
        k, v = self.heads.keys_values(x, layout)
        positions = position_ids_of(x, layout.position_ids).expand(x.shape[:2]) if self.heads.rotary else None
        return unpooled_tokens(k, v, positions, layout.padding_mask)

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, self.heads.dim_head)

    def flops(self, length: int) -> int:
        """Projections, and what queries read, in whole units: three blocks of tokens, and 3/2 of cells a level.

        In a causal layer two blocks of tokens, and one of cells a level, a quarter of them hidden. Heads that cross
        read nothing in a sequence of one segment, and this again for each segment where there are several.
        """
        count, whole = levels(length, self.block_size), chunk_unit(length, self.block_size)
        keys = (2 if self.causal else 3) * self.block_size + (count - 1) * (
            self.block_size if self.causal else 3 * self.block_size // 2
        )
        queries = -(-length // whole) * whole
        return self.heads.flops(length) + 4 * queries * keys * self.heads.own_heads * self.heads.dim_head

    def state_bytes(self, length: int) -> int:
        """The keys and values of two blocks of tokens, and of three blocks of cells at each level."""
        pooled = min(length, 2 * self.block_size + 3 * self.block_size * (levels(length, self.block_size) - 1))
        return 4 * 2 * pooled * self.heads.count * self.heads.dim_head
