"""Which keys groups of queries read, tokens nearby and cells farther away: every token once."""

from typing import Protocol, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genoattn.attention.cells import NEAR, Runs, unit
from genoattn.attention.segments import HIDDEN

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


class Part(Protocol):
    """Groups of `group` queries that read `keys` keys each. Rows are [sequences, queries, dim_head]."""

    group: int
    keys: int
    held: bool
    """Whether it reads what is held for the whole sequence, or what was pooled for the segment."""
    bias: Tensor
    """[batch, 1, groups, 1 or group, keys], added to the scores."""

    def take(self, runs: Tensor, scratch: Scratch, name: str) -> list[Tensor]:
        """The keys of each group, [groups, keys, dim_head], for so many sequences at once as they come."""
        ...

    def give(self, gradient: Tensor, total: Tensor) -> None:
        """Add the gradient of what was taken, [sequences * groups, keys, dim_head], to that of the runs."""
        ...


@final
class Window:
    """The tokens of a group's own block and of those beside it, in place."""

    held = False

    def __init__(self, near: Runs, block: int, causal: bool, before: int, groups: int):
        self.group, self.groups = block, groups
        self.keys = (2 if causal else 3) * block
        self.first = before // block - 1  # the block that the first group begins to read
        seen = near.bias.flatten(1)[:, self.first * block :].unfold(1, self.keys, block)[:, :groups]
        self.bias = seen[:, None, :, None]
        if causal:
            index = torch.arange(block, device=seen.device)
            ahead = F.pad(index[None, :] > index[:, None], (block, 0))
            self.bias = self.bias.masked_fill(ahead, HIDDEN)

    def take(self, runs: Tensor, scratch: Scratch, name: str) -> list[Tensor]:
        channels = 2 * runs.shape[2] // self.group
        rows = runs.flatten(1).unflatten(1, (-1, channels))[:, self.first * self.group :]
        return [one.unfold(0, self.keys, self.group)[: self.groups].transpose(1, 2) for one in rows]

    def give(self, gradient: Tensor, total: Tensor) -> None:
        blocks = gradient.view(len(total), self.groups, self.keys // self.group, -1)
        wide = total[:, : total.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)
        for beside in range(blocks.shape[2]):
            wide[:, self.first + beside : self.first + beside + self.groups] += blocks[:, :, beside]


@final
class Gathered:
    """Runs of cells farther away, copied for each group."""

    def __init__(self, source: Runs, group: int, held: bool, runs: Int[Tensor, "groups slots"]):
        self.group, self.held, self.groups = group, held, len(runs)
        sequences, count = source.k.shape[:2]
        at = runs.clamp_min(0)
        self.index = (torch.arange(sequences, device=at.device)[:, None, None] * count + at).flatten()
        bias = source.bias.index_select(1, at.flatten()).unflatten(1, at.shape)
        self.bias = bias.masked_fill((runs < 0)[..., None], HIDDEN).flatten(2)[:, None, :, None]
        self.keys = self.bias.shape[-1]

    def take(self, runs: Tensor, scratch: Scratch, name: str) -> list[Tensor]:
        room = scratch(name, runs, len(self.index), runs.shape[2])
        torch.index_select(runs.flatten(0, 1), 0, self.index, out=room)
        return [room.view(len(runs) * self.groups, self.keys, -1)]

    def give(self, gradient: Tensor, total: Tensor) -> None:
        total.view(-1, total.shape[2]).index_add_(0, self.index, gradient.view(len(self.index), -1))


def partition(
    near: Runs, held: Runs | None, *, start: int, stop: int, length: int, block: int, causal: bool
) -> list[Window | Gathered]:
    """What the queries from `start` to `stop`, multiples of the unit, read; near runs begin one unit before `start`."""
    half, whole = block // 2, unit(length, block)
    device = near.k.device
    parts: list[Window | Gathered] = [Window(near, block, causal, whole, (stop - start) // block)]
    for level in range(1, len(near.begin) - 1):
        group = half << level
        seen = _seen(torch.arange(start // group, stop // group, device=device), causal)
        origin = (start - whole) // group
        runs = torch.where(seen < NOWHERE // 2, -1, seen - origin + near.begin[level])
        parts.append(Gathered(near, group, False, runs))
    if held is not None:
        found = []
        for index, (begin, end) in enumerate(zip(held.begin, held.begin[1:], strict=False)):
            own = torch.arange(start, stop, whole, device=device) // (half << (NEAR + index))
            seen = _seen(own, causal)
            found.append(torch.where((seen >= 0) & (seen < end - begin), seen + begin, -1))
        parts.append(Gathered(held, whole, True, torch.cat(found, dim=1)))
    return parts


def _seen(own: Int[Tensor, "groups"], causal: bool) -> Int[Tensor, "groups slots"]:
    """The runs of a level, counted from the first token, that queries in the run `own` of that level read.

    They are those of the blocks beside their own that no lower level has read: a query in the first half of its block
    has read the second half of the block before it, one in the second half the first half of the block after it.
    """
    offsets = ((-2, NOWHERE), (-3, -2)) if causal else ((-2, 2, 3), (-3, -2, 2))
    return own[:, None] + torch.tensor(offsets, device=own.device)[own % 2]


def answer(
    rows: Float[Tensor, "rows dim_head"],
    parts: list[Window | Gathered],
    near: Runs,
    held: Runs | None,
    scratch: Scratch,
) -> Float[Tensor, "rows dim_head"]:
    """The softmax of scaled queries over all parts, one sequence and head after another."""
    weights, _ = _weights(rows, parts, near, held, scratch)
    y = torch.zeros_like(rows)
    for number, (part, share) in enumerate(_columns(parts, weights)):
        values = part.take(_of(part, near, held).v, scratch, f"values {number}")
        _multiply_add(y.view(-1, part.group, y.shape[1]), share, values)
    return y


def gradients(
    rows: Float[Tensor, "rows dim_head"],
    upstream: Float[Tensor, "rows dim_head"],
    parts: list[Window | Gathered],
    near: Runs,
    held: Runs | None,
    totals: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None],
    scratch: Scratch,
) -> Float[Tensor, "rows dim_head"]:
    """Of the queries; those of keys and values are added to the totals of near and held runs."""
    weights, keys = _weights(rows, parts, near, held, scratch)
    changes = scratch("changes", rows, *weights.shape)
    for number, (part, target) in enumerate(_columns(parts, changes)):
        values = part.take(_of(part, near, held).v, scratch, f"values {number}")
        target.copy_(_multiply(upstream, part, values, scratch))
    for part, share in _columns(parts, weights):
        _give(part, share, upstream, totals, 1, scratch)
    torch.ops.aten._softmax_backward_data.out(changes, weights, -1, weights.dtype, grad_input=changes)
    d_rows = torch.zeros_like(rows)
    for (part, share), key in zip(_columns(parts, changes), keys, strict=True):
        _multiply_add(d_rows.view(-1, part.group, rows.shape[1]), share, key)
        _give(part, share, rows, totals, 0, scratch)
    return d_rows


def _of(part: Window | Gathered, near: Runs, held: Runs | None) -> Runs:
    return held if part.held and held is not None else near


def _weights(
    rows: Tensor, parts: list[Window | Gathered], near: Runs, held: Runs | None, scratch: Scratch
) -> tuple[Tensor, list[list[Tensor]]]:
    """The softmax over all parts, side by side, and each part's keys."""
    scores, keys = scratch("weights", rows, len(rows), sum(part.keys for part in parts)), []
    for number, (part, target) in enumerate(_columns(parts, scores)):
        keys.append(part.take(_of(part, near, held).k, scratch, f"keys {number}"))
        product = _multiply(rows, part, keys[-1], scratch)
        batch, groups = part.bias.shape[0], part.bias.shape[2]
        shape = (batch, -1, groups, part.group, part.keys)
        torch.add(product.view(shape), part.bias, out=target.unflatten(0, shape[:3]))
    return torch.softmax(scores, dim=-1, out=scores), keys


def _columns(parts: list[Window | Gathered], matrix: Tensor) -> list[tuple[Window | Gathered, Tensor]]:
    """Each part's columns [sequences * groups, group, keys] of a matrix of a row for every query."""
    found, at = [], 0
    for part in parts:
        found.append((part, matrix.view(-1, part.group, matrix.shape[1])[..., at : at + part.keys]))
        at += part.keys
    return found


def _multiply(rows: Tensor, part: Window | Gathered, keys: list[Tensor], scratch: Scratch) -> Tensor:
    """Products of each group's rows with its keys; contiguous, since others are written through a copy."""
    rows = rows.view(-1, part.group, rows.shape[1])
    product = scratch("product", rows, len(rows), part.group, part.keys)
    for left, right, out in zip(rows.chunk(len(keys)), keys, product.chunk(len(keys)), strict=True):
        torch.bmm(left, right.transpose(1, 2), out=out)
    return product


def _multiply_add(into: Tensor, share: Tensor, keys: list[Tensor]) -> None:
    for left, right, out in zip(share.chunk(len(keys)), keys, into.chunk(len(keys)), strict=True):
        torch.baddbmm(out, left, right, out=out)


def _give(part: Window | Gathered, share: Tensor, rows: Tensor, totals, which: int, scratch: Scratch) -> None:
    rows = rows.view(-1, part.group, rows.shape[1])
    gradient = scratch("gradient", rows, len(rows), part.keys, rows.shape[2])
    torch.bmm(share.transpose(1, 2), rows, out=gradient)
    part.give(gradient, totals[1 if part.held else 0][which])
