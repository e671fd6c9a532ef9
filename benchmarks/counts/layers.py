"""Layers as they are counted: 512 channels and 8 heads, looking both ways, weights and tokens in bfloat16."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.counts.counter import META, Counts, counting, on_meta
from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.delta import DeltaAttention
from genoattn.attention.full import FullAttention
from genoattn.attention.hierarchical import HierarchicalAttention
from genoattn.attention.hyena import HyenaAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.nsa import NativeSparseAttention
from genoattn.attention.sparse import SparseAttention
from genoattn.attention.ssd import StateSpaceAttention
from genoattn.attention.topk import TopKAttention
from genoattn.attention.window import WindowAttention

DIM, HEADS = 512, 8

EIGHT = HeadOptions(count=HEADS)


class Case(NamedTuple):
    """A layer, and what its Triton kernels compute for a token of a sequence of this length, by head."""

    factory: Callable[..., Attention]
    pairs: Callable[[int], int] = lambda length: 0
    """Keys whose scores a query of a softmax kernel needs, of 64 channels each."""
    sums: int = 0
    """Multiply-adds of a token with the sums of linear attention and inside its chunk of 64, and in its system."""
    longest: int = 2**20


def _cells(length: int) -> int:
    """Keys of a query of hierarchical attention in blocks of 16."""
    levels = 1
    while -(-length // (16 << (levels - 1))) > 2:
        levels += 1
    return 48 + 24 * (levels - 1)


CASES: Mapping[str, Case] = {
    "window": Case(partial(WindowAttention, heads=EIGHT), lambda length: 257),
    "window, dilation 4": Case(partial(WindowAttention, heads=EIGHT, dilation=4)),
    "window, 64 global tokens": Case(partial(WindowAttention, heads=EIGHT, global_tokens=64)),
    "window, ALiBi": Case(partial(WindowAttention, heads=HeadOptions(count=HEADS, positions="alibi"))),
    "flash": Case(partial(FullAttention, heads=EIGHT, backend="triton"), lambda length: length),
    "linear, elu": Case(
        partial(LinearAttention, heads=EIGHT, features="elu", key_dim=None, decay=False), sums=4 * 64 * 64
    ),
    "linear": Case(partial(LinearAttention, heads=EIGHT), sums=6 * 64 * 64),
    "linear, taylor": Case(
        partial(LinearAttention, heads=EIGHT, features="taylor", key_dim=16, decay=False), sums=2 * 153 * 64
    ),
    "delta": Case(partial(DeltaAttention, heads=EIGHT), sums=24 * 64 * 64),
    "ssd": Case(partial(StateSpaceAttention, heads=EIGHT), sums=14 * 64 * 64),
    "hierarchical": Case(partial(HierarchicalAttention, heads=EIGHT), _cells),
    "sparse": Case(partial(SparseAttention, heads=EIGHT), lambda length: min(1024, length), longest=2**18),
    "nsa": Case(partial(NativeSparseAttention, heads=EIGHT), longest=2**16),
    "topk": Case(partial(TopKAttention, heads=EIGHT, max_length=2**16), longest=2**16),
    "hyena": Case(partial(HyenaAttention, heads=EIGHT)),
}


def count(case: Case, length: int, causal: bool = False, padded: bool = False) -> tuple[Counts, Counts]:
    """The demands of the forward and the backward pass of a layer on a GPU, for one sequence of this length.

    The layer has seen one before: tables that follow from the length alone are there.
    """
    x = torch.empty(1, length, DIM, dtype=torch.bfloat16, device=META, requires_grad=True)
    layout = TokenLayout(torch.empty(1, length, dtype=torch.bool, device=META) if padded else None)
    with on_meta():
        layer = case.factory(DIM, causal).to(META, torch.bfloat16)
        with torch.no_grad():
            layer(x, layout)
        with counting() as forward:
            y = layer(x, layout)
        with counting() as backward:
            torch.autograd.grad(y, [x, *layer.parameters()], torch.empty_like(y), allow_unused=True)
    return forward, backward
