"""Which keys groups of queries read, tokens nearby and cells farther away: every token once."""

from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from genoattn.attention.modules.cross_segment import HIDDEN
from genoattn.attention.ops.hierarchical_pooling import NEAR, Runs, unit

NOWHERE = -(2**40)  # runs: so far to the left that nothing is there


class Scratch:
    """Memory that is used again under the same name: fresh memory costs ten times what it is needed for."""

    def __init__(self):
        self.held: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Of this shape, and the dtype and device of another tensor; what it holds is whatever was left there."""
        size = torch.Size(shape).numel()
        if name not in self.held or self.held[name].numel() < size:
            self.held[name] = like.new_empty(size)
        return self.held[name][:size].view(shape)


@final
class Window:
    """Queries of a block read, in place, its tokens and those of the blocks beside it."""

    def __init__(self, near: Runs, block: int, causal: bool, before: int, groups: int):
        self.source, self.group, self.groups = near, block, groups
        self.keys = (2 if causal else 3) * block
        self.first = before // block - 1  # the block that the first group begins to read
        seen = near.bias.flatten(1)[:, self.first * block :].unfold(1, self.keys, block)[:, :groups]
        self.bias = seen[:, None, :, None]  # as Gathered's
        if causal:
            index = torch.arange(block, device=seen.device)
            ahead = F.pad(index[None, :] > index[:, None], (block, 0))
            self.bias = self.bias.masked_fill(ahead, HIDDEN)

    def take(self, runs: Tensor, scratch: Scratch, name: str) -> list[Tensor]:
        """A source's keys or values as each group reads them [groups, keys, dim_head], a view for every sequence."""
        channels = 2 * runs.shape[2] // self.group
        rows = runs.flatten(1).unflatten(1, (-1, channels))[:, self.first * self.group :]
        return [one.unfold(0, self.keys, self.group)[: self.groups].transpose(1, 2) for one in rows]

    def give(self, gradient: Tensor, total: Tensor) -> None:
        """Add gradients of what was taken to a source's total."""
        blocks = gradient.view(len(total), self.groups, self.keys // self.group, -1)
        wide = total[:, : total.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)
        for beside in range(blocks.shape[2]):
            wide[:, self.first + beside : self.first + beside + self.groups] += blocks[:, :, beside]


@final
class Gathered:
    """Groups of queries read copies of runs of cells (-1: of none)."""

    def __init__(self, source: Runs, group: int, runs: Int[Tensor, "groups slots"]):
        self.source, self.group, self.groups = source, group, len(runs)
        sequences, count = source.k.shape[:2]
        at = runs.clamp_min(0)
        self.index = (torch.arange(sequences, device=at.device)[:, None, None] * count + at).flatten()
        bias = source.bias.index_select(1, at.flatten()).unflatten(1, at.shape)
        self.bias = bias.masked_fill((runs < 0)[..., None], HIDDEN).flatten(2)[:, None, :, None]
        # [batch, 1, groups, 1, keys], to be added to scores.
        self.keys = self.bias.shape[-1]

    def take(self, runs: Tensor, scratch: Scratch, name: str) -> list[Tensor]:
        """A source's keys or values as each group reads them [sequences * groups, keys, dim_head], one copy for all."""
        room = scratch(name, runs, len(self.index), runs.shape[2])
        torch.index_select(runs.flatten(0, 1), 0, self.index, out=room)
        return [room.view(len(runs) * self.groups, self.keys, -1)]

    def give(self, gradient: Tensor, total: Tensor) -> None:
        """Add gradients of what was taken to a source's total."""
        total.view(-1, total.shape[2]).index_add_(0, self.index, gradient.view(len(self.index), -1))


Part: TypeAlias = Window | Gathered


def partition(
    near: Runs, held: Runs | None, *, start: int, stop: int, length: int, block: int, causal: bool
) -> list[Part]:
    """What the queries from `start` to `stop`, multiples of the unit, read; near runs begin one unit before `start`."""
    half, whole = block // 2, unit(length, block)
    device = near.k.device
    parts: list[Part] = [Window(near, block, causal, whole, (stop - start) // block)]
    for level in range(1, len(near.begin) - 1):
        group = half << level
        seen = _seen(torch.arange(start // group, stop // group, device=device), causal)
        origin = (start - whole) // group
        runs = torch.where(seen < NOWHERE // 2, -1, seen - origin + near.begin[level])
        parts.append(Gathered(near, group, runs))
    if held is not None:
        found = []
        for index, (begin, end) in enumerate(zip(held.begin, held.begin[1:], strict=False)):
            own = torch.arange(start, stop, whole, device=device) // (half << (NEAR + index))
            seen = _seen(own, causal)
            found.append(torch.where((seen >= 0) & (seen < end - begin), seen + begin, -1))
        parts.append(Gathered(held, whole, torch.cat(found, dim=1)))
    return parts


def _seen(own: Int[Tensor, "groups"], causal: bool) -> Int[Tensor, "groups slots"]:
    """The runs of a level, counted from the first token, that queries in the run `own` of that level read.

    They are those of the blocks beside their own that no lower level has read: a query in the first half of its block
    has read the second half of the block before it, one in the second half the first half of the block after it.
    """
    offsets = ((-2, NOWHERE), (-3, -2)) if causal else ((-2, 2, 3), (-3, -2, 2))
    return own[:, None] + torch.tensor(offsets, device=own.device)[own % 2]
