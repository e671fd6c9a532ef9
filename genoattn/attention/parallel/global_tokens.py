"""Tokens that see and are seen by all tokens of a sequence over several processes: a few at its start."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.layout import Span, TokenLayout
from genoattn.attention.ops.beside import Beside
from genoattn.attention.parallel.collectives import maximum, total
from genoattn.attention.parallel.shards import Ranges, fetch


class Seen(NamedTuple):
    """The tokens that a shard reads: the first `count` of the sequence, and `left` and `right` of its neighbours."""

    span: Span
    count: int
    left: int
    right: int

    def others(self, rank: int) -> Ranges:
        """Those that other processes hold."""
        start, stop = rank * self.span.length, (rank + 1) * self.span.length
        first = min(self.count, start)
        last = min(self.span.total, max(stop + self.right, self.count))
        return (0, first), (max(first, start - self.left), start), (stop, last)

    @property
    def before(self) -> int:
        """Number of them before the shard."""
        return sum(stop - start for start, stop in self.others(self.span.rank)[:2])

    def index(self, device: torch.device) -> Int[Tensor, "tokens"]:
        """Indices of all of them in the sequence, those of the shard itself included."""
        (zero, first), (near, _), (_, last) = self.others(self.span.rank)
        return torch.cat([torch.arange(zero, first, device=device), torch.arange(near, last, device=device)])


def attend_from_few(
    q: Float[Tensor, "batch few heads dim_head"],
    k: Float[Tensor, "batch shard kv_heads dim_head"],
    v: Float[Tensor, "batch shard kv_heads dim_head"],
    visible: Bool[Tensor, "batch #heads few shard"],
    span: Span,
    beside: Beside | None = None,
) -> Float[Tensor, "batch few heads dim_head"]:
    """Softmax attention of a few queries, which all processes have, to the keys of all shards.

    Each process sums over its own keys, and one sum over processes follows: keys and values stay where they are.

    Args:
        q: Queries, the same on every process.
        k: Keys of the shard.
        v: Their values.
        visible: True for the keys of the shard that a query sees.
        span: The shard.
        beside: A key of each query that belongs to no token.

    Returns:
        The outputs, the same on every process; 0 for a query that sees nothing.
    """
    wide, each = torch.promote_types(q.dtype, torch.float32), q.shape[2] // k.shape[2]
    with torch.autocast(q.device.type, enabled=False):
        k, v = (t.to(wide).repeat_interleave(each, dim=2) for t in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q.to(wide) * q.shape[-1] ** -0.5, k).masked_fill(~visible, -torch.inf)
        highest = maximum(scores.amax(-1, keepdim=True), span)
        score = None if beside is None else beside.score.to(wide).transpose(1, 2)[..., None]
        if score is not None:
            highest = torch.maximum(highest, score.detach())
        highest = highest.nan_to_num(neginf=0)
        weights = (scores - highest).exp()
        sums = torch.cat([torch.einsum("bhqk,bkhd->bhqd", weights, v), weights.sum(-1, keepdim=True)], dim=-1)
        sums = total(sums, span)
        value, weight = sums[..., :-1], sums[..., -1:]
        if beside is not None and score is not None:
            more = (score - highest).exp()
            weight = weight + more
            value = value if beside.value is None else value + more * beside.value.to(wide).transpose(1, 2)
        y = value / weight.masked_fill(weight == 0, 1)
    return y.transpose(1, 2).to(q.dtype)


def first_tokens(x: Float[Tensor, "batch shard ..."], span: Span, count: int) -> Float[Tensor, "batch few ..."]:
    """The first tokens of the sequence, on every process."""
    return fetch(x, span, lambda _: [(0, count)])


def seen_by_first(
    span: Span, layout: TokenLayout, x: Float[Tensor, "batch shard ..."], count: int, heads: tuple[int, int]
) -> Bool[Tensor, "batch heads few shard"]:
    """True for the real tokens of the shard, and for the last heads those of another segment than a first token.

    `heads` are the numbers of heads that see all segments and of those that see another one.
    """
    real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    real = (real if layout.padding_mask is None else layout.padding_mask)[:, None, None].expand(-1, -1, count, -1)
    if not heads[1]:
        return real
    other = torch.zeros_like(real)
    if layout.segment_ids is not None and span.whole.segment_ids is not None:
        other = real & (layout.segment_ids[:, None, None] != span.whole.segment_ids[:, None, :count, None])
    return torch.cat([real.expand(-1, heads[0], -1, -1), other.expand(-1, heads[1], -1, -1)], dim=1)
