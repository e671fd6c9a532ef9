"""Tokens of a sequence that several processes hold: shards of it, neighbours of a shard, and any tokens by index."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from genoattn.attention.layout import Span, TokenLayout
from genoattn.attention.parallel.collectives import exchange, gather, processes

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""Tokens [start, stop) of the whole sequence, in order and apart from each other; an empty range counts for nothing."""


class Wide(NamedTuple):
    """Tokens of a shard with neighbours on both sides, and their layout."""

    x: Float[Tensor, "batch wide dim"]
    layout: TokenLayout
    before: int
    """Neighbours to the left."""
    length: int
    """Tokens of the shard."""

    def inner(self, y: Shaped[Tensor, "batch wide ..."]) -> Shaped[Tensor, "batch shard ..."]:
        """The part of `y` that belongs to the tokens of the shard."""
        return y[:, self.before : self.before + self.length]

    def from_one_side(
        self, y: Shaped[Tensor, "batch wide ..."], right: bool
    ) -> tuple[Shaped[Tensor, "batch seen ..."], TokenLayout, int]:
        """The part of `y` without the neighbours on the other side, in the order of a scan from this side.

        Returns:
            The part, its layout, and the number of neighbours, which come first.
        """
        if not right:
            seen = y[:, : self.before + self.length]
            return seen, self.layout.part(seen, 0), self.before
        seen = y[:, self.before :]
        return seen.flip(1), self.layout.part(seen, self.before).turned, seen.shape[1] - self.length


def shard(
    x: Shaped[Tensor, "batch total ..."], layout: TokenLayout, group: Any, multiple: int = 1
) -> tuple[Shaped[Tensor, "batch shard ..."], TokenLayout]:
    """The tokens of a whole sequence that this process computes, and their layout, whose span says which they are.

    Sequences are filled up with padding at their ends, so that all shards have the same length.

    Args:
        x: All tokens, on every process.
        layout: Their layout.
        group: The processes.
        multiple: Tokens that the length of a shard must be a multiple of.
    """
    rank, world = processes(group)
    length = math.ceil(x.shape[1] / (world * multiple)) * multiple
    whole = padded_layout(layout, x, world * length)
    span = Span(group, rank, world, length, whole)
    some = x[:, span.start : span.stop]
    if some.shape[1] < length:
        some = F.pad(some, (*(0, 0) * (x.dim() - 2), 0, length - some.shape[1]))
    own = whole.part(some, span.start)
    return some, replace(own, span=span, keeps=layout.keeps)


def padded_layout(layout: TokenLayout, x: Shaped[Tensor, "batch length ..."], length: int) -> TokenLayout:
    """The layout of x with padding at the ends up to `length` tokens.

    Positions and segments of the padding follow those two tokens before them, so that segments which take turns still
    do, and no segment begins anew.
    """
    if x.shape[1] == length:
        return layout
    host = None if layout.host is None else padded_layout(layout.host, x.cpu(), length)
    more, mask = length - x.shape[1], layout.padding_mask
    if mask is None:
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    def longer(ids: Tensor | None) -> Tensor | None:
        if ids is None:
            return None
        last = ids[:, -2:] if ids.shape[1] > 1 else ids.expand(-1, 2)
        return torch.cat([ids, last.repeat(1, more // 2 + 1)[:, :more]], dim=1)

    ids = longer(layout.position_ids), longer(layout.segment_ids)
    return TokenLayout(F.pad(mask, (0, more)), *ids, host=host, keeps=layout.keeps)


def fetch(
    x: Shaped[Tensor, "batch shard ..."], span: Span, wanted: Callable[[int], Ranges]
) -> Shaped[Tensor, "batch rows ..."]:
    """The tokens of the whole sequence that this process asks for, in order; each token comes from its own process.

    Args:
        x: Tokens of the shard.
        span: The shard.
        wanted: The ranges that the process of a rank asks for: the same function on every process.
    """
    asked = [wanted(rank) for rank in range(span.world)]
    own = (span.start, span.stop)
    give = [_overlaps(ranges, own) for ranges in asked]
    bounds = [(rank * span.length, (rank + 1) * span.length) for rank in range(span.world)]
    take = [_count(_overlaps(asked[span.rank], shard)) for shard in bounds]
    if not any(_count(ranges) for ranges in asked):
        return x[:, :0]
    rows = [x[:, start - span.start : stop - span.start] for ranges in give for start, stop in ranges]
    sent = torch.cat([*rows, x[:, :0]], dim=1).transpose(0, 1)
    return exchange(sent, [_count(ranges) for ranges in give], take, span).transpose(0, 1)


def _overlaps(ranges: Ranges, bounds: tuple[int, int]) -> list[tuple[int, int]]:
    """The parts of ranges that lie within bounds."""
    cut = [(max(start, bounds[0]), min(stop, bounds[1])) for start, stop in ranges]
    return [(start, stop) for start, stop in cut if start < stop]


def _count(ranges: Ranges) -> int:
    return sum(max(0, stop - start) for start, stop in ranges)


def halo(x: Shaped[Tensor, "batch shard ..."], span: Span, left: int, right: int) -> Wide:
    """The shard with `left` tokens before and `right` tokens after it, fewer at the ends of the sequence.

    A halo that is longer than a shard comes from several processes.
    """

    def sides(rank: int) -> Ranges:
        start, stop = rank * span.length, (rank + 1) * span.length
        return (max(0, start - left), start), (stop, min(span.total, stop + right))

    came, before = fetch(x, span, sides), min(left, span.start)
    wide = torch.cat([came[:, :before], x, came[:, before:]], dim=1) if left or right else x
    return Wide(wide, span.whole.part(wide, span.start - before), before, span.length)


def gather_tokens(x: Shaped[Tensor, "batch shard ..."], span: Span) -> Shaped[Tensor, "batch total ..."]:
    """The tokens of all shards."""
    return gather(x, span).transpose(0, 1).flatten(1, 2)


def positions_of_all(x: Shaped[Tensor, "batch ..."], span: Span) -> Int[Tensor, "batch total"]:
    """The positions of all tokens of the sequences of which x holds a shard."""
    ids = span.whole.position_ids
    return torch.arange(span.total, device=x.device).expand(len(x), -1) if ids is None else ids


def mask_of_all(
    x: Shaped[Tensor, "batch ..."], span: Span, mask: Bool[Tensor, "batch total"] | None
) -> Bool[Tensor, "batch total"]:
    """A mask of all tokens of the sequences of which x holds a shard, written out: None is true everywhere."""
    return torch.ones(len(x), span.total, dtype=torch.bool, device=x.device) if mask is None else mask


def tied(y: Shaped[Tensor, "..."], *collected: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """`y`, with a gradient of 0 to what was collected from other processes.

    A backward pass runs a collective only where something depends on it. If a shard may not, as the first one does not
    on what comes before it, its process would leave the others waiting. Every result of a collective must reach the
    output of its layer on every process, through this function if in no other way.
    """
    return y + sum(x[:0].sum() for x in collected).to(y.dtype)  # pyright: ignore[reportAttributeAccessIssue]
