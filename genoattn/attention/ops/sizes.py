"""Numbers that are computed at a time, by type of device.

On a CPU few numbers, which stay in its cache. On other devices many: each call there costs some microseconds, in which
a GPU computes millions of numbers. Results do not depend on sizes but for rounding.
"""

from typing import NamedTuple

import torch


class Sizes(NamedTuple):
    """Numbers, rows or queries that are computed together."""

    segment: int
    """Elements of the largest tensor of a segment of a scan."""
    gathered: int
    """Elements of gathered keys."""
    selecting: int
    """Elements of the scores by which blocks are selected; two such tensors are in memory at most."""
    convolved: int
    """Elements of a piece of a short convolution."""
    hierarchical_rows: int
    """Queries of hierarchical attention, of all sequences and heads."""
    window_block: int
    """Queries of a block of a window: with few of them few scores outside the window are computed."""
    window_queries: int
    """Queries of a window in one call, about."""
    topk_rows: int
    """Queries of top-k attention; their scores of all keys are in memory together."""
    masked_rows: int
    """Queries of full attention that have a mask each."""
    at_once: bool
    """States of chunks by products of many chunks, and not one after another."""


CPU = Sizes(
    segment=2**19,
    gathered=2**20,
    selecting=2**20,
    convolved=2**18,
    hierarchical_rows=2**13,
    window_block=32,
    window_queries=2**11,
    topk_rows=128,
    masked_rows=1024,
    at_once=False,
)


GPU = Sizes(
    segment=2**26,
    gathered=2**26,
    selecting=2**27,
    convolved=2**40,
    hierarchical_rows=2**19,
    window_block=64,
    window_queries=2**17,
    topk_rows=512,
    masked_rows=4096,
    at_once=True,
)


BY_DEVICE = {"cpu": CPU}
"""Sizes by type of device; `GPU` for types that are not named."""


def sizes(device: torch.device) -> Sizes:
    """The sizes for tensors on this device."""
    return BY_DEVICE.get(device.type, GPU)
