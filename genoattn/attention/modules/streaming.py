"""Segments of a long sequence with their neighbours, for what sees no farther than these."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genoattn.attention.base import Layout, Read


class Segment(NamedTuple):
    """Tokens [first, first + length of x) of a sequence, of which those from `start` to `stop` are to be answered."""

    start: int
    stop: int
    first: int
    x: Tensor
    layout: Layout

    def own(self, wide: Tensor) -> Tensor:
        """Of answers to all of x those that are asked for."""
        return wide[:, self.start - self.first : self.stop - self.first]


def segments(read: Read, length: int, size: int, before: int, after: int) -> Iterator[Segment]:
    """Each segment with `before` tokens to its left, kept from the reads before, and `after` to its right."""
    held: tuple[Tensor, Layout] | None = None
    for start in range(0, length, size):
        stop = min(start + size, length)
        x, layout = read(start, min(stop + after, length))
        first = start
        if held is not None:
            first -= held[0].shape[1]
            x, layout = torch.cat([held[0], x], dim=1), _joined(held[1], layout)
        low, high = max(stop - before, first) - first, stop - first
        held = x[:, low:high].clone(), _between(layout, low, high)  # now: what is answered may be overwritten
        yield Segment(start, stop, first, x, layout)


def cut(layout: Layout, x: Tensor, start: int, stop: int) -> Layout:
    """Of a layout of x [batch, length, …] that of tokens [start, stop), their positions written out."""
    part = _between(layout, start, stop)
    if part.positions is not None:
        return part
    positions = torch.arange(start, stop, device=x.device).expand(len(x), -1)
    return Layout(part.keep, positions, part.segments)


def _between(layout: Layout, start: int, stop: int) -> Layout:
    return Layout(*(None if t is None else t[:, start:stop] for t in (layout.keep, layout.positions, layout.segments)))


def _joined(left: Layout, right: Layout) -> Layout:
    pairs = (left.keep, right.keep), (left.positions, right.positions), (left.segments, right.segments)
    return Layout(*(None if a is None or b is None else torch.cat([a, b], dim=1) for a, b in pairs))
