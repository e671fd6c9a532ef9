"""Cells of 1, 2, 4, … tokens: how keys and values are pooled, and which cells of each level a query reads."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genoattn.attention.base import blank
from genoattn.attention.heads import rotate
from genoattn.attention.segments import HIDDEN

NEAR = 4
"""Levels that are pooled anew for every segment of queries; only the cells of higher ones are held for the whole."""
BEYOND = -(2**40)  # so far to the left that nothing is there


class Cells(NamedTuple):
    """Sums over the real tokens of each cell, and how many those are; cells [batch, cells, …]."""

    k: Tensor
    v: Tensor
    positions: Tensor | None
    """None where nothing is turned by them."""
    count: Tensor

    def padded(self, start: int, stop: int) -> "Cells":
        """With so many empty cells before and after."""
        return Cells(*(t if t is None else F.pad(t, (0, 0) * (t.dim() - 2) + (start, stop)) for t in self))

    def halved(self) -> "Cells":
        """Two neighbours made one."""
        return Cells(*(t if t is None else t.unflatten(1, (-1, 2)).sum(2) for t in self))

    def coarse(self, level: int) -> "Cells":
        """So many levels up, from a whole number of cells."""
        return Cells(*(t if t is None else t.unflatten(1, (-1, 1 << level)).sum(2) for t in self))

    def means(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean keys, turned by the mean position, mean values, and the logarithm of the count; HIDDEN where empty."""
        present = self.count.clamp_min(1)
        share = present.to(self.k.dtype)
        k, v = self.k / share[..., None, None], self.v / share[..., None, None]
        bias = torch.where(self.count > 0, share.log(), HIDDEN)
        return (k if self.positions is None else rotate(k, self.positions // present)), v, bias


def tokens(k: Tensor, v: Tensor, positions: Tensor | None, keep: Tensor | None) -> Cells:
    """Every token a cell of its own; those at padding are empty. In float32 at least."""
    exact = torch.promote_types(k.dtype, torch.float32)
    real = torch.ones(k.shape[:2], dtype=torch.long, device=k.device) if keep is None else keep.long()
    turns = None if positions is None else positions * real
    return Cells(blank(k, keep).to(exact), blank(v, keep).to(exact), turns, real)


class Runs(NamedTuple):
    """Means of several levels, one after another, in runs of half a block of cells."""

    k: Tensor
    """[batch * heads, runs, half * dim_head]."""
    v: Tensor
    bias: Tensor
    """[batch, runs, half]."""
    begin: list[int]
    """Where each level's runs begin."""


def pool(cells: Cells, count: int, block: int) -> Runs:
    """So many levels of cells, each with half the cells of the one before."""
    levels, begin, half = [], [], block // 2
    for level in range(count):
        if level:
            cells = cells.halved()
        cells = cells.padded(0, -cells.count.shape[1] % block)
        k, v, bias = cells.means()
        k, v = (t.transpose(1, 2).flatten(0, 1).unflatten(1, (-1, half)).flatten(2) for t in (k, v))
        begin.append(sum(bias.shape[1] for _, _, bias in levels))
        levels.append((k, v, bias.unflatten(1, (-1, half))))
    return Runs(*(torch.cat(parts, dim=1) for parts in zip(*levels, strict=True)), begin)


def levels(length: int, block: int) -> int:
    """How many levels it takes until the blocks beside one's own are all there are."""
    count = 1
    while -(-length // (block << (count - 1))) > 2:
        count += 1
    return count


def unit(length: int, block: int) -> int:
    """Tokens in a block of the highest level that is pooled for a segment; segments begin at multiples of it."""
    return block << (min(levels(length, block), NEAR) - 1)


class Reading(NamedTuple):
    """Queries in groups of so many, and the runs that each group reads, in what is near or in what is held."""

    group: int
    held: bool
    runs: Tensor
    """[groups, slots]; negative where there is none."""


def readings(
    start: int,
    stop: int,
    length: int,
    block: int,
    causal: bool,
    near: list[int],
    held: list[int],
    held_runs: int,
    device: torch.device,
) -> list[Reading]:
    """What the queries from `start` to `stop` read, both multiples of the unit, in all of every token once.

    Near runs begin one unit before `start`; `near` and `held` say where each level's begin.
    """
    half, widest = block // 2, unit(length, block)

    def local(group: int, chosen: list[int]) -> Reading:
        first = torch.arange(start, stop, group, device=device)
        found = []
        for level in chosen:
            seen = _seen(first, level, half, causal)
            origin = (start - widest) // (half << level)
            found.append(torch.where(seen < -(2**30), -1, seen - origin + near[level]))
        return Reading(group, False, torch.cat(found, dim=1))

    parts = [local(block, list(range(min(2, len(near)))))]
    parts += [local(half << level, [level]) for level in range(2, len(near))]
    if held:
        first = torch.arange(start, stop, widest, device=device)
        ends = [*held[1:], held_runs]
        found = []
        for index, (begin, end) in enumerate(zip(held, ends, strict=True)):
            seen = _seen(first, NEAR + index, half, causal)
            found.append(torch.where((seen >= 0) & (seen < end - begin), seen + begin, -1))
        parts.append(Reading(widest, True, torch.cat(found, dim=1)))
    return parts


def _seen(first: Tensor, level: int, half: int, causal: bool) -> Tensor:
    """The runs of a level, counted from the first token of all, that the group beginning at each token reads.

    At level 0 all of one's own block and of those beside it; at others what those beside one's own hold that lower
    levels have not read: a query in the first half of its block has read the second half of the block before it, one
    in the second half the first half of the block after it.
    """
    own = first[:, None] // (half << level)
    if level == 0:
        return own + torch.arange(-2, 2 if causal else 4, device=first.device)
    offsets = ((-2, BEYOND), (-3, -2)) if causal else ((-2, 2, 3), (-3, -2, 2))
    return own + torch.tensor(offsets, device=first.device)[own[:, 0] % 2]
