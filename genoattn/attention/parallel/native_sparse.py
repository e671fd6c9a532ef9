"""Native sparse attention over shards: gathered cells, chosen blocks, and the neighbours within the window."""

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.layout import Span
from genoattn.attention.modules.cross_segment import View
from genoattn.attention.ops.native_sparse import choose_blocks, compressed_attention
from genoattn.attention.ops.sliding_window import window_attention
from genoattn.attention.ops.sliding_window_blocks import Window
from genoattn.attention.parallel.blocks import block_before, selected_over_shards
from genoattn.attention.parallel.shards import gather_tokens


def native_sparse_over_shards(
    q: Float[Tensor, "batch shard heads dim_head"],
    turned_q: Float[Tensor, "batch wide heads dim_head"],
    turned_k: Float[Tensor, "batch wide heads dim_head"],
    turned_v: Float[Tensor, "batch wide heads dim_head"],
    cell_k: Float[Tensor, "batch cells heads dim_head"],
    cell_v: Float[Tensor, "batch cells heads dim_head"],
    view: View,
    span: Span,
    *,
    block: int,
    blocks: int,
    window: Window,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs `[batch, shard, heads, dim_head]` of the compressed, the selected and the window branch of a shard.

    Args:
        q: Queries of the shard for the compressed branch.
        turned_q: Queries of the shard and of its neighbours within the window, rotated.
        turned_k: Their keys.
        turned_v: Their values.
        cell_k: Keys of the cells of the shard.
        cell_v: Their values.
        view: The masks of the whole sequence, of queries and of keys.
        span: The shard.
        block: Tokens of a block.
        blocks: Key blocks of each query block.
        window: Tokens that are seen on each side.
    """
    asks, reads = view.padding_mask, view.key_mask
    assert asks is not None and reads is not None
    causal, size, first = view.causal, span.length // cell_k.shape[1], span.start // block
    real_q, real_k = (mask.unflatten(1, (-1, block)) for mask in (asks, reads))
    cell_k, cell_v = gather_tokens(torch.cat([cell_k, cell_v], dim=-1), span).chunk(2, dim=-1)
    real_cells = reads.unflatten(1, (-1, size)).any(-1)
    last = torch.arange(size - 1, span.total, size, device=q.device) if causal else None
    compressed = compressed_attention(q, cell_k, cell_v, real_cells, last, span.start)

    def weights_before(weight: Tensor) -> Tensor:
        before = block_before(weight.transpose(1, 2), span).transpose(1, 2)
        return before if span.rank else torch.zeros_like(weight[:, :, :1])

    words = {"causal": causal, "blocks": blocks, "first": first, "before": weights_before}
    chosen = choose_blocks(q.unflatten(1, (-1, block)), cell_k, real_q, real_k, real_cells, **words)
    start = span.start - min(window.left, span.start)
    own = slice(span.start - start, span.stop - start)
    asking, k, v = (t[:, own].unflatten(1, (-1, block)) for t in (turned_q, turned_k, turned_v))
    selected = selected_over_shards(asking, k, v, chosen, real_k, causal, span).flatten(1, 2)
    near = window_attention(
        turned_q[:, own],
        turned_k,
        turned_v,
        left=window.left,
        right=window.right,
        causal=causal,
        padding_mask=asks[:, span.start : span.stop],
        key_mask=reads[:, start : start + turned_k.shape[1]],
        before=own.start,
    )
    return compressed, selected, near
