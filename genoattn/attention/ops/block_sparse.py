"""To be said in a sentence."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.ops.block_gather import FUSED, GatheredAttention, at_least_float32, chunks_that_fit


def select_blocks(
    q: Float[Tensor, "batch count block heads dim_head"],
    k: Float[Tensor, "batch count block heads dim_head"],
    real: Bool[Tensor, "batch count block"],
    *,
    causal: bool,
    blocks: int,
) -> Int[Tensor, "batch count heads chosen"]:
    """The blocks of keys for each block of queries, in ascending order after -1 where fewer can be seen.

    A block's own and its neighbours (in a causal layer the one before) are always among them, the rest are those of
    highest score, the product of the mean query and the mean key. Only real tokens count, and a block without them is
    never chosen. What a causal layer chooses must not depend on queries still to come: it asks with the mean of those
    of the block before and the block's first. A block that has neither takes the nearest blocks.
    """
    batch, count, _, heads, _ = q.shape
    sums, reals = _sums(q, real), real.sum(-1)
    if causal:
        first = real[:, :, 0]
        sums = F.pad(sums[:, :-1], (0, 0, 0, 0, 1, 0)) + q[:, :, 0] * first[..., None, None]
        reals = F.pad(reals[:, :-1], (1, 0)) + first
    asks = (sums / reals.clamp_min(1)[..., None, None]).transpose(1, 2)
    mute = (reals == 0)[:, None, :, None]  # blocks without a query to score with
    means = _sums(k, real) / real.sum(-1).clamp_min(1)[..., None, None]
    index = torch.arange(count, device=q.device)
    empty = ~real.any(-1)[:, None, None, :]
    parts = []
    for rows in chunks_that_fit(count, batch * heads * count, q.device):
        scores = asks[:, :, rows] @ means.permute(0, 2, 3, 1)
        ahead = index[None, :] - index[rows, None]
        scores = torch.where(mute[:, :, rows], -ahead.abs().to(scores.dtype), scores)
        scores = scores.masked_fill(ahead.abs() <= 1, float("inf")).masked_fill(empty, float("-inf"))
        if causal:
            scores = scores.masked_fill(ahead > 0, float("-inf"))
        best = scores.topk(min(blocks, count), dim=-1, sorted=False)
        parts.append(best.indices.masked_fill(best.values == float("-inf"), -1).sort(-1).values.transpose(1, 2))
    return torch.cat(parts, dim=1)


def _sums(x: Tensor, real: Tensor) -> Tensor:
    """The sum of each block over its real tokens, in at least float32: [batch, count, heads, channels]."""
    return (real.to(x.dtype)[:, :, None, :] @ x.flatten(3)).view(*x.shape[:2], *x.shape[3:]).to(at_least_float32(x))


def sparse_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    blocks: int,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention of each block of queries over `blocks` blocks of keys, as `choose` has it; 0 at padding.

    Scores are multiplied by `scale` (None: divided by sqrt(dim_head)). The choice has no gradient. At padding q, k and
    v may hold anything finite.
    """
    if not q.numel():
        return v
    length, kind = q.shape[1], v.dtype
    tail = -length % block
    real = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if padding_mask is None else padding_mask
    real = F.pad(real, (0, tail)).unflatten(1, (-1, block))
    with torch.autocast(q.device.type, enabled=False):
        taken = at_least_float32(v) if q.device.type in FUSED else kind  # a CPU is slow in half precision
        q, k, v = (t.to(taken) for t in (q, k, v))
        if tail:
            q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)) for t in (q, k, v))
        q, k, v = (t.unflatten(1, (-1, block)) for t in (q, k, v))
        chosen = select_blocks(q.detach(), k.detach(), real, causal=causal, blocks=blocks)
        # Block c of sequence b becomes block b * count + c of all, so that groups need not end where a sequence does.
        first = torch.arange(len(q), device=q.device)[:, None, None, None] * q.shape[1]
        chosen = torch.where(chosen < 0, chosen, chosen + first).flatten(0, 1)
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        q, k, v = (t.flatten(0, 1).transpose(1, 2) for t in (q, k, v))
        y = GatheredAttention.apply(q, k, v, chosen, real.flatten(0, 1), causal, factor)
    assert isinstance(y, Tensor)
    y = y.transpose(1, 2).unflatten(0, real.shape[:2]).flatten(1, 2)[:, :length]
    return zero_padding(y, padding_mask).to(kind)
