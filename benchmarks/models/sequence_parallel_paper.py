"""The bytes that a layer sends by its formula, and their time beside its computation on GPUs, on paper."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from genoattn.attention.base import Attention
from genoattn.attention.delta import DeltaAttention
from genoattn.attention.full import FullAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.feature_maps import feature_dim
from genoattn.attention.ssd import StateSpaceAttention
from genoattn.attention.window import WindowAttention
from genoattn.evaluation.report import Table

FLOAT = 4
"""Bytes of a number in float32."""


def formula(built: Attention, length: int, world: int, batch: int = 1) -> float:
    """Numbers that an inner one of three or more processes sends forwards; backwards it sends as many."""
    ways, others = 1 if built.causal else 2, world - 1
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
