"""The compressed and the selected branch of native sparse attention (arXiv 2502.11089)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.ops.block_gather import chunks_that_fit
from genoattn.attention.ops.chunked_scan import Inputs, State, scan
from genoattn.attention.ops.sizes import sizes


def compressed_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch cells heads dim_head"],
    v: Float[Tensor, "batch cells heads dim_head"],
    real: Bool[Tensor, "batch cells"],
    last: Int[Tensor, "cells"] | None,
    before: int = 0,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention of each token over the cells that are real; 0 for a token that sees none.

    With `last`, the last token of each cell, a token sees the cells that end at itself or before; there are `before`
    tokens before the first query. Only inputs are saved for the backward pass.
    """
    index = torch.arange(before, before + q.shape[1], device=q.device)
    segment = max(1, sizes(q.device).segment // (q.shape[2] * k.shape[1]))
    ends = None if last is None else last[None]
    y, _ = scan(_compressed, (), (q * q.shape[-1] ** -0.5, index[None]), (k, v, ~real, ends), segment=segment)
    return zero_padding(y, _sees(index, real, last))


def _compressed(state: State, pieces: Inputs, shared: Inputs) -> tuple[Tensor, State]:
    (q, index), (k, v, unreal, last) = pieces, shared
    scores = _scores(q, k, unreal, index[0], last)
    return (scores.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2), state


def _scores(
    q: Tensor, k: Tensor, unreal: Tensor, index: Tensor, last: Tensor | None
) -> Float[Tensor, "batch heads queries cells"]:
    """Products with the cells, and -1e30 for unreal ones and with `last` for those that end after a query's index."""
    hidden = unreal[:, None, None]
    if last is not None:
        hidden = hidden | (last.flatten() > index[:, None])
    return (q.transpose(1, 2) @ k.permute(0, 2, 3, 1)).masked_fill_(hidden, -1e30)


def _sees(index: Tensor, real: Tensor, last: Tensor | None) -> Bool[Tensor, "batch queries"]:
    """True for the queries that see a cell: from the end of the first real one on, or all if there is one."""
    if last is None:
        return real.any(-1, keepdim=True).expand(-1, len(index))
    return index >= torch.where(real, last, torch.iinfo(last.dtype).max).amin(-1, keepdim=True)


@torch.no_grad()
def choose_blocks(
    q: Float[Tensor, "batch queries block heads dim_head"],
    k: Float[Tensor, "batch cells heads dim_head"],
    real_q: Bool[Tensor, "batch count block"],
    real_k: Bool[Tensor, "batch count block"],
    real_cells: Bool[Tensor, "batch cells"],
    *,
    causal: bool,
    blocks: int,
    first: int = 0,
    before: Callable[[Tensor], Tensor] = lambda weight: torch.zeros_like(weight[:, :, :1]),
) -> Int[Tensor, "batch queries heads chosen"]:
    """Choose the key blocks of each query block, in ascending order, after -1 for each missing block.

    The block itself and its neighbours (in a causal layer the one before) are always chosen. The others have the
    highest weight in compressed attention, summed over their cells and over the real queries of the block; causal: over
    those of the block before and the first of this block, because later queries must not choose for earlier ones. A
    block without such queries takes the nearest blocks. A block without a real key is never chosen.

    Args:
        q: Queries by block, of a part of the sequence that begins with its block `first`.
        k: Keys of all cells.
        real_q: True for the real queries of all blocks.
        real_k: True for the keys to read of all blocks.
        real_cells: True for cells with a key to read.
        causal: Read only earlier blocks.
        blocks: Key blocks of each query block.
        first: Block of the first queries.
        before: Returns the weights `[batch, heads, 1, count]` of the block before, from those of the given ones.
    """
    (batch, queries, size, heads, _), count = q.shape, real_k.shape[1]
    cells, mine = k.shape[1] // count, slice(first, first + queries)
    last = torch.arange(1, k.shape[1] + 1, device=q.device) * (size // cells) - 1 if causal else None
    index = torch.arange(first * size, (first + queries) * size, device=q.device)
    asked = real_q[:, mine] & _sees(index, real_cells, last).unflatten(1, (-1, size))
    q, index, unreal, sums, firsts = q * q.shape[-1] ** -0.5, index.view(-1, size), ~real_cells, [], []
    for rows in chunks_that_fit(queries, batch * heads * size * k.shape[1], sizes(q.device).selecting):
        weights = _scores(q[:, rows].flatten(1, 2), k, unreal, index[rows].flatten(), last)
        torch.softmax(weights, dim=-1, out=weights)
        weights = weights.unflatten(-1, (count, cells)).sum(-1) * asked[:, rows].flatten(1)[:, None, :, None]
        weights = weights.unflatten(2, (-1, size))
        sums.append(weights.sum(3))
        firsts.append(weights[:, :, :, 0])
    weight, asking = torch.cat(sums, dim=2), real_q.any(-1)
    if causal:
        weight = torch.cat([before(weight), weight[:, :, :-1]], dim=2) + torch.cat(firsts, dim=2)
        asking = F.pad(asking[:, :-1], (1, 0)) | real_q[:, :, 0]
    index = torch.arange(count, device=q.device)
    ahead = index - index[mine, None]
    weight = torch.where(asking[:, None, mine, None], weight, -ahead.abs().to(weight.dtype))
    weight = weight.masked_fill(ahead.abs() <= 1, float("inf"))
    weight = weight.masked_fill(~real_k.any(-1)[:, None, None], float("-inf"))
    weight = weight.masked_fill(ahead > 0, float("-inf")) if causal else weight
    best = weight.topk(min(blocks, count), dim=-1, sorted=False)
    return best.indices.masked_fill(best.values == float("-inf"), -1).sort(-1).values.transpose(1, 2)
