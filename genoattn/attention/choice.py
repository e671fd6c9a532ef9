"""Which blocks of keys each block of queries looks at: those whose means score highest, by head."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.gathered import at_least_float32, groups


def choose(
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
    of the block before and the block's first.
    """
    batch, count, _, heads, _ = q.shape
    sums, reals = _sums(q, real), real.sum(-1)
    if causal:
        first = real[:, :, 0]
        sums = F.pad(sums[:, :-1], (0, 0, 0, 0, 1, 0)) + q[:, :, 0] * first[..., None, None]
        reals = F.pad(reals[:, :-1], (1, 0)) + first
    asks = (sums / reals.clamp_min(1)[..., None, None]).transpose(1, 2)
    means = _sums(k, real) / real.sum(-1).clamp_min(1)[..., None, None]
    index = torch.arange(count, device=q.device)
    empty = ~real.any(-1)[:, None, None, :]
    parts = []
    for rows in groups(count, batch * heads * count, q.device):
        scores = asks[:, :, rows] @ means.permute(0, 2, 3, 1)
        ahead = index[None, :] - index[rows, None]
        scores = scores.masked_fill(ahead.abs() <= 1, float("inf")).masked_fill(empty, float("-inf"))
        if causal:
            scores = scores.masked_fill(ahead > 0, float("-inf"))
        best = scores.topk(min(blocks, count), dim=-1, sorted=False)
        parts.append(best.indices.masked_fill(best.values == float("-inf"), -1).sort(-1).values.transpose(1, 2))
    return torch.cat(parts, dim=1)


def _sums(x: Tensor, real: Tensor) -> Tensor:
    """The sum of each block over its real tokens, in at least float32: [batch, count, heads, channels]."""
    return (real.to(x.dtype)[:, :, None, :] @ x.flatten(3)).view(*x.shape[:2], *x.shape[3:]).to(at_least_float32(x))
