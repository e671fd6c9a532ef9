"""Cells of all levels of hierarchical attention one after another, for kernels that read them by lists.

All that follows from the length alone is computed once for each length. Sums of keys and values by level take one
operation each in either pass.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.ops.hierarchical_pooling import levels

Levels = tuple[tuple[int, int], ...]
"""First cell and number of cells of each level; empty cells fill up the last block of each."""


class Filling(NamedTuple):
    """The number of tokens that each cell stands for, in the forms that its uses want."""

    tokens: Int[Tensor, "sequences cells"]
    """The number, or 1 for an empty cell."""
    weight: Float[Tensor, "sequences cells"]
    """The same as float32."""
    bias: Float[Tensor, "sequences cells"]
    """Logarithm of the number, -inf for an empty cell."""

    @classmethod
    def of(cls, tokens: Int[Tensor, "sequences cells"]) -> "Filling":
        """The filling by the number of tokens of each cell."""
        some = tokens.clamp_min(1)
        return cls(some, some.float(), tokens.float().log())


class Cells(NamedTuple):
    """The cells of a length, and what query blocks read of them."""

    levels: Levels
    starts: Int[Tensor, "cells"]
    """First token of each cell, at most the length."""
    stops: Int[Tensor, "cells"]
    ends: Int[Tensor, "cells"]
    """Last token of each cell, past the length too."""
    whole: Filling
    """The filling of the cells if every token is real."""
    lists: Any
    """Runs of half a block of cells that each query block reads, as `BlockLists`."""

    def sums(self, numbers: Int[Tensor, "batch length"]) -> Int[Tensor, "batch cells"]:
        """The sum of a number of each token over each cell."""
        total = F.pad(numbers.cumsum(1), (1, 0))
        return total[:, self.stops] - total[:, self.starts]


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a table of a validation is there for training too
def cells_of(length: int, block: int, causal: bool, device: torch.device) -> Cells:
    """The cells of a length on a device; computed on the CPU once."""
    from genoattn.attention.kernels.block_lists import cached_lists  # the rest of the package works without triton

    counts = [-(-length // block) * block]
    while len(counts) < levels(length, block):
        counts.append(-(-(counts[-1] // 2) // block) * block)
    index = [torch.arange(count) for count in counts]
    starts = torch.cat([cells << level for level, cells in enumerate(index)])
    stops = torch.cat([(cells + 1) << level for level, cells in enumerate(index)])
    table = listed_runs(length, block, [2 * count // block for count in counts], causal)[None, None]
    lists = cached_lists(table, sum(counts) // (block // 2))
    ends, starts, stops = (stops - 1).int(), starts.clamp_max(length), stops.clamp_max(length)
    return Cells(
        tuple((sum(counts[:level]), count) for level, count in enumerate(counts)),
        starts.to(device),
        stops.to(device),
        ends.to(device),
        Filling._make(tensor.to(device) for tensor in Filling.of((stops - starts)[None])),
        lists._replace(**{name: tensor.to(device) for name, tensor in lists._asdict().items()}),
    )


def listed_runs(length: int, block: int, counts: list[int], causal: bool) -> Int[Tensor, "blocks runs"]:
    """Runs of half a block of cells that each query block reads, -1 for none; `counts` are the runs of each level.

    Of the tokens a query block reads those of its block and of the neighbouring blocks; of each higher level the three
    runs of these blocks that the level below does not cover.
    """
    own = torch.arange(-(-length // block))[:, None]
    wanted = [2 * own + torch.arange(-2, 4)]
    for level in range(1, len(counts)):
        below, here = own >> (level - 1), own >> level
        neighbours = 2 * here + torch.arange(-2, 4)
        unread = (neighbours - below).abs() > 1
        wanted.append(neighbours[unread].view(len(own), 3))
    first, lists = 0, []
    for level, (runs, count) in enumerate(zip(wanted, counts, strict=True)):
        last = 2 * own + 1 if level == 0 else own >> (level - 1)
        exists = (runs >= 0) & (runs < count) & ((runs <= last) | (not causal))
        lists.append(torch.where(exists, runs + first, -1))
        first += count
    return torch.cat(lists, dim=1)


def cell_means(
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    real: Bool[Tensor, "batch length"] | None,
    weight: Float[Tensor, "sequences cells"],
    levels: Levels,
) -> tuple[Float[Tensor, "batch cells heads dim_head"], Float[Tensor, "batch cells heads dim_head"]]:
    """Means of the keys, in float32, and of the values, in their dtype, over the real tokens of each cell.

    `weight` are the numbers of real tokens, or 1. Keys are rounded after their rotation alone.
    """
    return _CellMeans.apply(k, v, real, weight[:, :, None, None], levels)  # pyright: ignore[reportReturnType]


@final
class _CellMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx, k, v, real, weight, levels):  # pyright: ignore
        length, (last, count) = k.shape[1], levels[-1]
        sums = k.new_zeros(2, len(k), last + count, *k.shape[2:], dtype=torch.float32)
        tokens = sums[:, :, :length]
        tokens[0], tokens[1] = k, v
        if real is not None:
            tokens.masked_fill_(~real[:, :, None, None], 0)
        for below, above in pairwise(levels):
            torch.sum(_pairs(sums, below), 3, out=_part(sums, above[0], below[1] // 2))
        ctx.save_for_backward(real, weight)
        ctx.levels, ctx.length, ctx.dtypes = levels, length, (k.dtype, v.dtype)
        mean_v = torch.div(sums[1], weight, out=torch.empty_like(sums[1], dtype=v.dtype))
        return sums[0] / weight, mean_v

    @staticmethod
    @first_order_only
    def backward(ctx, of_k, of_v):  # pyright: ignore
        real, weight = ctx.saved_tensors
        g = torch.empty(2, *of_k.shape, dtype=torch.float32, device=of_k.device)
        for upstream, into in zip((of_k, of_v), g, strict=True):
            torch.div(upstream, weight, out=into)
        for below, above in reversed(list(pairwise(ctx.levels))):
            _pairs(g, below).add_(_part(g, above[0], below[1] // 2).unsqueeze(3))
        tokens = g[:, :, : ctx.length]
        if real is not None:
            tokens.masked_fill_(~real[:, :, None, None], 0)
        dk, dv = (gradient.to(dtype) for gradient, dtype in zip(tokens, ctx.dtypes, strict=True))
        return dk, dv, None, None, None


def _part(sums: Tensor, first: int, count: int) -> Tensor:
    return sums[:, :, first : first + count]


def _pairs(sums: Tensor, level: tuple[int, int]) -> Tensor:
    """The cells of a level by pairs, of which each is a cell of the level above."""
    return _part(sums, *level).unflatten(2, (-1, 2))
