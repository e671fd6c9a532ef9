"""The heads of linear attention: those that are scanned together, and their memories before training."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.feature_maps import FEATURES
from genoattn.attention.modules.segment_copies import SegmentCopies
from genoattn.attention.ops.chunk_state import CHUNK, chunk_flops
from genoattn.attention.ops.chunked_scan import chunk_bounds, chunk_length
from genoattn.attention.ops.linear import LinearOptions
from genoattn.errors import UserError

OWN, CROSS = (8, 2048), (8, 64)
"""Shortest and longest memory in tokens before training, of heads that see all segments and of those that see another.

A far token needs a long memory, and a near one is drowned by it, so heads begin with different ones. A counterpart in
another segment is near where segments are interleaved.
"""


MAX_TAYLOR_CHANNELS = 32


def check_features(features: str, qk_norm: bool, key_dim: int) -> None:
    """Refuse an unknown feature map, and one that these keys would make too large."""
    if features not in FEATURES:
        raise UserError(f"attention.features must be one of {', '.join(FEATURES)}, got {features}")
    if features == "exp" and not qk_norm:
        raise UserError("attention.features=exp overflows without heads.qk_norm=true, got qk_norm false")
    if features == "taylor" and key_dim > MAX_TAYLOR_CHANNELS:
        raise UserError(
            f"attention.features=taylor squares the channels of a key, at most {MAX_TAYLOR_CHANNELS}, got {key_dim}: "
            f"give attention.key_dim={MAX_TAYLOR_CHANNELS} or less"
        )


def log_memories(own: int, cross: int) -> Tensor:
    """Logarithms of the memories [own + cross] of heads, evenly spread within each kind; one has the longest."""
    kinds = ((own, OWN), (cross, CROSS))
    return torch.cat([torch.linspace(math.log(long), math.log(short), n).flip(0) for n, (short, long) in kinds])


def scan_flops(length: int, features: int, widths: tuple[int, ...], ways: int) -> int:
    """FLOPs of the scans of one head over values of these widths, in one direction or both."""
    segments = chunk_bounds(length, chunk_length(features, CHUNK))
    return sum(chunk_flops(stop - start, features, width, ways) for start, stop in segments for width in widths)


class LinearPart(NamedTuple):
    """Heads that are scanned together: with a copy of the batch for each segment, or without (None)."""

    heads: slice
    copies: SegmentCopies | None

    def inputs(self, qkv: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of these heads and all copies."""
        q, k, v = (t[:, :, self.heads] for t in qkv)
        if self.copies is None:
            return q, k, v
        return self.copies.repeat(q), self.copies.repeat(k), self.copies.repeat(v)

    def options(self, whole: LinearOptions, layout: TokenLayout, x: Tensor) -> LinearOptions:
        """Options of these heads: the keys of a copy are the tokens outside its segment."""
        whole = whole._replace(decay=None if whole.decay is None else whole.decay[self.heads])
        if self.copies is None:
            return whole
        others = ~self.copies.members(layout, x)
        if layout.padding_mask is not None:
            others = others & layout.padding_mask
        positions = None if whole.positions is None else whole.positions.expand(x.shape[:2])
        return whole._replace(
            padding_mask=None if layout.padding_mask is None else self.copies.repeat(layout.padding_mask),
            positions=None if positions is None else self.copies.repeat(positions),
            key_mask=others.flatten(0, 1),
        )

    def outputs(self, y: Tensor, layout: TokenLayout, x: Tensor) -> Tensor:
        """Each token's outputs from the copy for its segment."""
        return y if self.copies is None else self.copies.select(y, self.copies.members(layout, x))
