"""Sets of keys that groups of queries read: tokens nearby and pooled cells farther away, every token once."""

from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from genoattn.attention.ops.hierarchical_pooling import HIDDEN, NEAR_LEVELS, LevelBuffer, chunk_unit

NOWHERE = -(2**40)  # number of a run that is far to the left of the sequence


class Workspace:
    """Buffers by name that are used again, because new memory costs ten times as much as the computation in it."""

    def __init__(self):
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Buffer of this shape, with the dtype and device of `like`; its content is undefined."""
        size = torch.Size(shape).numel()
        if name not in self.buffers or self.buffers[name].numel() < size:
            self.buffers[name] = like.new_empty(size)
        return self.buffers[name][:size].view(shape)


@final
class NeighbourBlocks:
    """Keys of a query block: its tokens and those of the neighbouring blocks, read in place."""

    def __init__(self, near_levels: LevelBuffer, block: int, causal: bool, before: int, groups: int):
        self.source, self.group, self.groups = near_levels, block, groups
        self.keys = (2 if causal else 3) * block
        self.first = before // block - 1  # the block that the first group begins to read
        bias = near_levels.bias.flatten(1)[:, self.first * block :].unfold(1, self.keys, block)[:, :groups]
        self.bias = bias[:, None, :, None]  # [batch, 1, groups, 1, keys], added to scores
        if causal:
            index = torch.arange(block, device=bias.device)
            ahead = F.pad(index[None, :] > index[:, None], (block, 0))
            self.bias = self.bias.masked_fill(ahead, HIDDEN)

    def gather(self, runs: Tensor, workspace: Workspace, name: str) -> list[Tensor]:
        """Keys or values of each group [groups, keys, dim_head], one view for each sequence."""
        channels = 2 * runs.shape[2] // self.group
        rows = runs.flatten(1).unflatten(1, (-1, channels))[:, self.first * self.group :]
        return [row.unfold(0, self.keys, self.group)[: self.groups].transpose(1, 2) for row in rows]

    def scatter_add(self, gradient: Tensor, total: Tensor) -> None:
        """Add the gradients of gathered keys or values to the total of their source."""
        blocks = gradient.view(len(total), self.groups, self.keys // self.group, -1)
        wide = total[:, : total.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)
        for neighbours in range(blocks.shape[2]):
            wide[:, self.first + neighbours : self.first + neighbours + self.groups] += blocks[:, :, neighbours]


@final
class GatheredRuns:
    """Keys of a group of queries: copies of runs of cells (-1: no run)."""

    def __init__(self, source: LevelBuffer, group: int, runs: Int[Tensor, "groups slots"]):
        self.source, self.group, self.groups = source, group, len(runs)
        sequences, count = source.k.shape[:2]
        at = runs.clamp_min(0)
        self.index = (torch.arange(sequences, device=at.device)[:, None, None] * count + at).flatten()
        bias = source.bias.index_select(1, at.flatten()).unflatten(1, at.shape)
        self.bias = bias.masked_fill((runs < 0)[..., None], HIDDEN).flatten(2)[:, None, :, None]
        # [batch, 1, groups, 1, keys], to be added to scores.
        self.keys = self.bias.shape[-1]

    def gather(self, runs: Tensor, workspace: Workspace, name: str) -> list[Tensor]:
        """Keys or values of each group [sequences * groups, keys, dim_head], one copy for all sequences."""
        gathered = workspace(name, runs, len(self.index), runs.shape[2])
        torch.index_select(runs.flatten(0, 1), 0, self.index, out=gathered)
        return [gathered.view(len(runs) * self.groups, self.keys, -1)]

    def scatter_add(self, gradient: Tensor, total: Tensor) -> None:
        """Add the gradients of gathered keys or values to the total of their source."""
        total.view(-1, total.shape[2]).index_add_(0, self.index, gradient.view(len(self.index), -1))


KeySet: TypeAlias = NeighbourBlocks | GatheredRuns


def key_sets(
    near_levels: LevelBuffer,
    far_levels: LevelBuffer | None,
    *,
    start: int,
    stop: int,
    length: int,
    block: int,
    causal: bool,
) -> list[KeySet]:
    """Key sets of the queries from `start` to `stop`, multiples of the unit; near runs begin a unit before `start`."""
    half, whole = block // 2, chunk_unit(length, block)
    device = near_levels.k.device
    sets: list[KeySet] = [NeighbourBlocks(near_levels, block, causal, whole, (stop - start) // block)]
    for level in range(1, len(near_levels.begin) - 1):
        group = half << level
        runs_read = _runs_read(torch.arange(start // group, stop // group, device=device), causal)
        origin = (start - whole) // group
        runs = torch.where(runs_read < NOWHERE // 2, -1, runs_read - origin + near_levels.begin[level])
        sets.append(GatheredRuns(near_levels, group, runs))
    if far_levels is not None:
        far_runs = []
        for index, (begin, end) in enumerate(zip(far_levels.begin, far_levels.begin[1:], strict=False)):
            own = torch.arange(start, stop, whole, device=device) // (half << (NEAR_LEVELS + index))
            runs_read = _runs_read(own, causal)
            far_runs.append(torch.where((runs_read >= 0) & (runs_read < end - begin), runs_read + begin, -1))
        sets.append(GatheredRuns(far_levels, whole, torch.cat(far_runs, dim=1)))
    return sets


def _runs_read(own: Int[Tensor, "groups"], causal: bool) -> Int[Tensor, "groups slots"]:
    """Runs of a level, counted from the first token, that queries in the run `own` of that level read.

    They are the runs of the neighbouring blocks that no lower level reads: for a query in the first half of its block
    a lower level reads the second half of the block before, in the second half the first half of the block after.
    """
    offsets = ((-2, NOWHERE), (-3, -2)) if causal else ((-2, 2, 3), (-3, -2, 2))
    return own[:, None] + torch.tensor(offsets, device=own.device)[own % 2]
