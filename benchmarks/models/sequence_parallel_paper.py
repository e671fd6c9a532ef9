"""The bytes that a layer sends by its formula, and their time beside its computation on GPUs, on paper."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from genoattn.attention.base import Attention
from genoattn.attention.delta import DeltaAttention
from genoattn.attention.full import FullAttention
from genoattn.attention.hierarchical import HierarchicalAttention
from genoattn.attention.hyena import HyenaAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.feature_maps import feature_dim
from genoattn.attention.nsa import NativeSparseAttention
from genoattn.attention.ops.hierarchical_pooling import NEAR_LEVELS, chunk_unit, levels
from genoattn.attention.pyramid import PyramidAttention
from genoattn.attention.sparse import SparseAttention
from genoattn.attention.ssd import StateSpaceAttention
from genoattn.attention.topk import TopKAttention
from genoattn.attention.window import WindowAttention
from genoattn.evaluation.report import Table

FLOAT = 4
"""Bytes of a number in float32."""


def formula(built: Attention, length: int, world: int, batch: int = 1) -> float:
    """Numbers that an inner one of three or more processes sends forwards; backwards it sends as many.

    Of layers that choose blocks it is the most that the first one sends, if the others choose all of its blocks. What
    leads to the choice has no gradient: `sent_to_choose`.
    """
    ways, others = 1 if built.causal else 2, world - 1
    if isinstance(built, HyenaAttention):
        dim = built.out.in_features
        channels = 2 * others / world * batch * length / world * dim  # to channels, and back
        return channels + halo(built.short.left + built.short.right, dim, batch)
    if isinstance(built, PyramidAttention):
        of_levels = [
            formula(level, length // pool, world, batch)
            for level, pool in zip(built.levels, built.pool_sizes, strict=True)  # type: ignore[arg-type]
        ]
        cells_before = len(built.pool_sizes) - 1 if built.causal else 0  # a token reads the last complete cell
        return sum(of_levels) + halo(cells_before, built.dim, batch)
    if isinstance(built, TopKAttention | SparseAttention | NativeSparseAttention | HierarchicalAttention):
        return _of_tokens_and_cells(built, length, world, batch)
    if isinstance(built, FullAttention):
        heads = built.heads
        return others * batch * length / world * heads.kv_count * (heads.key_dim + heads.dim_head)
    if isinstance(built, LinearAttention):
        features = feature_dim(built.heads.key_dim, built.features)
        state = batch * built.heads.count * features * (built.heads.dim_head + 1)
        if built.decay:
            return others * ways * state + halo(built.heads.past_tokens(length), built.heads.out.in_features, batch)
        return (others if built.causal else 2 * others / world) * (state + batch)
    if isinstance(built, DeltaAttention):
        heads = built.heads
        states = others * ways * 2 * batch * heads.count * heads.dim_head**2
        return states + halo(heads.past_tokens(length), heads.out.in_features, batch)
    if isinstance(built, StateSpaceAttention):
        inner, dim = built.out.in_features, built.out.out_features
        reach = built.convolutions[0].reach[0]  # type: ignore[union-attr]
        return others * ways * batch * (built.state * inner + built.count) + halo(ways * reach, dim, batch)
    assert isinstance(built, WindowAttention) and built.receptive_field is not None
    return halo(sum(built.receptive_field), built.heads.out.in_features, batch)


def _of_tokens_and_cells(
    built: TopKAttention | SparseAttention | NativeSparseAttention | HierarchicalAttention,
    length: int,
    world: int,
    batch: int,
) -> float:
    """The same of a layer whose shards read keys and values of others, or of cells of them."""
    dim = built.heads.out.in_features
    keys_values = (world - 1) * batch * length / world * 2 * dim
    if isinstance(built, HierarchicalAttention):
        far = keys_values / 2**NEAR_LEVELS if levels(length, built.block_size) > NEAR_LEVELS else 0
        return far + halo((1 if built.causal else 2) * chunk_unit(length, built.block_size), dim, batch)
    if isinstance(built, NativeSparseAttention):
        beside = halo(built.window.left + built.window.right, dim, batch)
        return keys_values + keys_values / built.cell_size + beside
    return keys_values


def sent_to_choose(built: Attention, length: int, world: int, batch: int = 1) -> float:
    """Bytes without a gradient, besides: means of keys, weights of the block before, and the numbers of blocks.

    The process sends them whose blocks all others choose: in a causal layer the first one, which chooses none of
    theirs.
    """
    if not isinstance(built, SparseAttention | NativeSparseAttention):
        return 0
    heads, blocks, shard = built.heads.count, length // built.block_size, batch * length / world
    counts = 8 * (world - 1) * world  # of the numbers that follow
    numbers = 0 if built.causal else 8 * (world - 1) * shard / built.block_size * heads
    if isinstance(built, NativeSparseAttention):
        return counts + numbers + (FLOAT * batch * heads * blocks if built.causal else 0)
    dim = built.heads.out.in_features
    before = built.block_size // built.pool * batch * dim if built.causal else 0
    return counts + numbers + FLOAT * ((world - 1) * shard / built.pool * dim + before)


def halo(tokens: int, dim: int, batch: int) -> float:
    """Numbers of the neighbours that a shard sends to others."""
    return tokens * dim * batch


class Machine(NamedTuple):
    """A machine on paper."""

    gpus: int
    flops: float
    """FLOPs a second that a GPU reaches on products in bfloat16."""
    link: float
    """Bytes a second that a GPU sends to others, all of them at once."""
    latency: float
    """Seconds of a collective however small."""


NODE = Machine(8, 4e14, 3.5e11, 2e-5)
"""8 GPUs of the H200 class: 40 % of 989 TFLOPS, and NVLink at 350 of 450 GB/s."""
CLUSTER = Machine(64, 4e14, 4e10, 5e-5)
"""64 of them in 8 nodes, where the slowest link counts: InfiniBand at 40 of 50 GB/s a GPU."""


def paper(dim: int = 1024, lengths: Sequence[int] = (2**20, 2**24)) -> list[Table]:
    """Milliseconds of a layer forwards: products, what it sends in bfloat16 (states in float32), and the longer one."""
    layers = {
        "window": WindowAttention(dim, False, left=512, right=512),
        "full": FullAttention(dim, False),
        "linear": LinearAttention(dim, False),
        "ssd": StateSpaceAttention(dim, False),
        "delta": DeltaAttention(dim, False),
    }
    tables = []
    for machine in (NODE, CLUSTER):
        lines = []
        for length in lengths:
            for name, built in layers.items():
                compute = built.flops(length) / machine.gpus / machine.flops
                width = 2 if name in ("window", "full") else FLOAT
                sent = width * formula(built, length, machine.gpus)
                send = sent / machine.link + machine.latency
                bound = "sending" if send > compute else "products"
                share = math.log10(compute / send)
                words = [f"{compute * 1e3:,.2f}", f"{sent / 2**20:,.1f}", f"{send * 1e3:,.2f}"]
                lines.append([f"{name}, {length // 2**20} Mi tokens", *words, bound, f"10^{share:.1f}"])
        title = f"a layer of dim {dim} on {machine.gpus} GPUs, one sequence"
        columns = ["layer", "products ms", "sent MiB a GPU", "sending ms", "bound by", "products / sending"]
        tables.append(Table(title, columns, lines))
    return tables
