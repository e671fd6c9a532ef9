"""Cells of 1, 2, 4, … tokens: pooling of keys and values level by level, and of the gradients back to the tokens."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.rotary import Rope, rotate

HIDDEN = -30000.0
"""Added to the score of a hidden cell: its weight underflows to exactly 0, and the number fits into float16."""


NEAR_LEVELS = 4
"""Levels that are pooled again for each segment of queries; higher levels are stored for the whole sequence."""


def levels(length: int, block: int) -> int:
    """Number of levels until the highest one has at most two blocks."""
    count = 1
    while -(-length // (block << (count - 1))) > 2:
        count += 1
    return count


def chunk_unit(length: int, block: int) -> int:
    """Tokens of a block of the highest near level; segments begin at its multiples and read one block beside them."""
    return block << (min(levels(length, block), NEAR_LEVELS) - 1)


class PooledTokens(NamedTuple):
    """Means over the real tokens of each cell of one level."""

    k: Float[Tensor, "batch cells heads dim_head"]
    v: Float[Tensor, "batch cells heads dim_head"]
    count: Int[Tensor, "batch cells"]
    """Number of real tokens of each cell."""
    positions: Int[Tensor, "batch cells"] | None
    """Sum of their positions; None if keys are not rotated."""

    def slice_tokens(self, at: slice) -> "PooledTokens":
        """Slice of the cells."""
        return PooledTokens(self.k[:, at], self.v[:, at], self.count[:, at], _slice(self.positions, at))


def concatenate(pieces: Iterable[PooledTokens]) -> PooledTokens:
    """Join cells one after another."""
    ks, vs, counts, positions = zip(*pieces, strict=True)
    given = [position for position in positions if position is not None]
    k, v, count = (torch.cat(tensors, dim=1) for tensors in (ks, vs, counts))
    return PooledTokens(k, v, count, torch.cat(given, dim=1) if given else None)


def concatenate_into(pieces: Iterable[PooledTokens], total: int) -> PooledTokens:
    """Join `total` cells in tensors allocated at the start: separate tensors would fragment the memory."""
    whole: list[Tensor | None] = []
    done = 0
    for piece in pieces:
        whole = whole or [None if t is None else t.new_empty(len(t), total, *t.shape[2:]) for t in piece]
        count = piece.count.shape[1]
        for target, source in zip(whole, piece, strict=True):
            if target is not None and source is not None:
                target[:, done : done + count] = source
        done += count
    k, v, count, positions = whole
    assert done == total and k is not None and v is not None and count is not None
    return PooledTokens(k, v, count, positions)


def _slice(x: Tensor | None, at: slice) -> Tensor | None:
    return None if x is None else x[:, at]


class LevelBuffer(NamedTuple):
    """Cells of several levels, one after another, in runs of half a block; keys rotated by their mean position."""

    k: Float[Tensor, "sequences runs channels"]
    """Channels of the cells of a run side by side, for each sequence and head."""
    v: Float[Tensor, "sequences runs channels"]
    bias: Float[Tensor, "batch runs cells"]
    """Logarithm of the number of tokens; HIDDEN for an empty cell."""
    begin: list[int]
    """First run of each level, and the end."""
    shares: list[Tensor]
    """Shares of the two cells below in the tokens of a cell, for each level but the lowest: [batch, cells, 2]."""
    mean_positions: list[Tensor]
    """Mean positions of each level [batch, cells]; empty if keys are not rotated."""
    taken: slice
    """Slice of the given cells among those of the lowest level."""
    rope: Rope = Rope()
    """Frequencies of the rotation of keys."""
    totals: tuple[Tensor, ...] = ()
    """Sums of the gradients of k and of v."""


def unpooled_tokens(
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    positions: Int[Tensor, "batch length"] | None,
    padding_mask: Bool[Tensor, "batch length"] | None,
) -> PooledTokens:
    """Cells of one token each, empty at padding."""
    count = torch.ones(k.shape[:2], dtype=torch.long, device=k.device) if padding_mask is None else padding_mask.long()
    return PooledTokens(
        zero_padding(k, padding_mask),
        zero_padding(v, padding_mask),
        count,
        None if positions is None else positions * count,
    )


def pool_to_level(pooled: PooledTokens) -> PooledTokens:
    """Pool tokens to the lowest stored level, from the start of a cell; the last cell may have fewer tokens."""
    size, tail = 1 << NEAR_LEVELS, -pooled.count.shape[1] % (1 << NEAR_LEVELS)
    k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)) if tail else t for t in pooled[:2])
    count = F.pad(pooled.count, (0, tail)).unflatten(1, (-1, size)).sum(2)
    positions = None
    if pooled.positions is not None:
        positions = F.pad(pooled.positions, (0, tail)).unflatten(1, (-1, size)).sum(2)
    exact = torch.promote_types(k.dtype, torch.float32)
    share = count.clamp_min(1).to(exact)[..., None, None]
    k, v = (t.unflatten(1, (-1, size)).sum(2, dtype=exact) / share for t in (k, v))
    return PooledTokens(k, v, count, positions)


def pool_levels(
    pooled: PooledTokens, count: int, block: int, before: int = 0, after: int = 0, rope: Rope = Rope()
) -> LevelBuffer:
    """Pool `count` levels from the cells, with empty cells before and after them to whole blocks."""
    batch, given, heads, dim_head = pooled.k.shape
    half, exact = block // 2, torch.promote_types(pooled.k.dtype, torch.float32)
    sizes = [-(-(before + given + after) // block) * block]
    while len(sizes) < count:
        sizes.append(-(-sizes[-1] // 2 // block) * block)
    begin = [sum(sizes[:level]) // half for level in range(count + 1)]
    buffers = pooled.k.new_empty(2, batch * heads, begin[-1], half * dim_head, dtype=exact)
    whole = [_level(t, begin, level, batch, dim_head) for t in buffers for level in range(count)]
    ks, vs = whole[:count], whole[count:]
    taken = slice(before, before + given)
    for source, target in ((pooled.k, ks[0]), (pooled.v, vs[0])):
        target[:, :, taken] = source.transpose(1, 2)
        target[:, :, :before] = 0
        target[:, :, before + given :] = 0
    number = F.pad(pooled.count, (before, sizes[0] - before - given))
    position = None if pooled.positions is None else F.pad(pooled.positions, (before, sizes[0] - before - given))
    biases, shares, mean_positions = [], [], []
    for level in range(count):
        if level:
            pairs, number = number.unflatten(1, (-1, 2)), number.unflatten(1, (-1, 2)).sum(2)
            shares.append(pairs.to(exact) / number.clamp_min(1)[..., None])
            rest = sizes[level] - number.shape[1]
            _merge(ks[level - 1], shares[-1], ks[level])
            _merge(vs[level - 1], shares[-1], vs[level])
            number = F.pad(number, (0, rest))
            if position is not None:
                position = F.pad(position.unflatten(1, (-1, 2)).sum(2), (0, rest))
        biases.append(torch.where(number > 0, number.clamp_min(1).to(exact).log(), HIDDEN).unflatten(1, (-1, half)))
        if position is not None:
            mean_positions.append(position // number.clamp_min(1))
    for k, turn in zip(ks, mean_positions, strict=bool(mean_positions)):
        k.copy_(rotate(k.transpose(1, 2), turn, rope).transpose(1, 2))
    return LevelBuffer(buffers[0], buffers[1], torch.cat(biases, dim=1), begin, shares, mean_positions, taken, rope)


def unpool_gradients(runs: LevelBuffer) -> tuple[Tensor, Tensor]:
    """Gradients of the keys and values of the given cells, both [batch, cells, heads, dim_head].

    The sums of the gradients in `runs.totals` are overwritten.
    """
    k, v = runs.totals
    batch, half = runs.bias.shape[0], runs.bias.shape[2]
    count, dim_head = len(runs.begin) - 1, k.shape[2] // half
    ks, vs = ([_level(t, runs.begin, level, batch, dim_head) for level in range(count)] for t in (k, v))
    for gradient, turn in zip(ks, runs.mean_positions, strict=bool(runs.mean_positions)):
        gradient.copy_(rotate(gradient.transpose(1, 2), -turn, runs.rope).transpose(1, 2))
    for level in reversed(range(1, count)):
        share = runs.shares[level - 1][:, None, ..., None]
        for gradients in (ks, vs):
            below = gradients[level - 1].unflatten(2, (-1, 2))
            below.addcmul_(gradients[level][:, :, : below.shape[2], None], share)
    return ks[0][:, :, runs.taken].transpose(1, 2), vs[0][:, :, runs.taken].transpose(1, 2)


def _level(runs: Tensor, begin: list[int], level: int, batch: int, dim_head: int) -> Tensor:
    """Cells of one level: [batch, heads, cells, dim_head]."""
    return runs[:, begin[level] : begin[level + 1]].unflatten(0, (batch, -1)).flatten(2).unflatten(2, (-1, dim_head))


def _merge(below: Tensor, share: Tensor, into: Tensor) -> None:
    """Write the means of pairs of cells, and zeros after the last."""
    pairs = below.unflatten(2, (-1, 2))
    pooled = pairs.shape[2]
    torch.mul(pairs[:, :, :, 0], share[:, None, :, 0, None], out=into[:, :, :pooled])
    into[:, :, :pooled].addcmul_(pairs[:, :, :, 1], share[:, None, :, 1, None])
    into[:, :, pooled:] = 0
