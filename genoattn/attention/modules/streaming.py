"""Segments of a long sequence with their neighbours, for what sees no farther than these."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from genoattn.attention.base import ChunkReader, TokenLayout


class Chunk(NamedTuple):
    """Tokens [first, first + length of x) of a sequence, of which those from `start` to `stop` are to be answered."""

    start: int
    stop: int
    first: int
    x: Tensor
    layout: TokenLayout

    def inner(self, wide: Tensor) -> Tensor:
        """Outputs of the requested tokens, from the outputs at all of x."""
        return wide[:, self.start - self.first : self.stop - self.first]

    def inner_layout(self) -> TokenLayout:
        """Layout of the requested tokens."""
        return _between(self.layout, self.start - self.first, self.stop - self.first)


def overlapping_chunks(read_chunk: ChunkReader, length: int, size: int, before: int, after: int) -> Iterator[Chunk]:
    """Each segment with `before` tokens to its left, kept from the reads before, and `after` to its right."""
    held: tuple[Tensor, TokenLayout] | None = None
    for start in range(0, length, size):
        stop = min(start + size, length)
        x, layout = read_chunk(start, min(stop + after, length))
        first = start
        if held is not None:
            first -= held[0].shape[1]
            x, layout = torch.cat([held[0], x], dim=1), _joined(held[1], layout)
        low, high = max(stop - before, first) - first, stop - first
        held = x[:, low:high].clone(), _between(layout, low, high)  # now: what is answered may be overwritten
        yield Chunk(start, stop, first, x, layout)


def with_positions(layout: TokenLayout, x: Tensor, start: int) -> TokenLayout:
    """The layout of the tokens x [batch, length, …] with explicit positions: its own, or those from `start` on."""
    if layout.position_ids is not None:
        return layout
    positions = torch.arange(start, start + x.shape[1], device=x.device).expand(len(x), -1)
    return replace(layout, position_ids=positions)


def slice_layout(layout: TokenLayout, x: Tensor, start: int, stop: int) -> TokenLayout:
    """Layout of the tokens [start, stop) of x [batch, length, …], with explicit positions."""
    return with_positions(_between(layout, start, stop), x[:, start:stop], start)


def _between(layout: TokenLayout, start: int, stop: int) -> TokenLayout:
    mask, positions, segments = (
        None if t is None else t[:, start:stop] for t in (layout.padding_mask, layout.position_ids, layout.segment_ids)
    )
    return TokenLayout(mask, positions, segments)


def _joined(left: TokenLayout, right: TokenLayout) -> TokenLayout:
    pairs = (
        (left.padding_mask, right.padding_mask),
        (left.position_ids, right.position_ids),
        (left.segment_ids, right.segment_ids),
    )
    mask, positions, segments = (None if a is None or b is None else torch.cat([a, b], dim=1) for a, b in pairs)
    return TokenLayout(mask, positions, segments)
