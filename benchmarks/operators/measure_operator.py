"""Attention operators by layer, and the measurement of one.

Each operator gets random queries, keys and values in its own shape, so that none pays for the conventions of another.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.common.measure import Foreign, Memory, timed
from benchmarks.operators import ours, peers
from benchmarks.operators.ours import Run

OURS = "genoattn"
BIDIRECTIONAL, CAUSAL = "bidirectional", "causal"
FORWARD, BOTH = "forward", "f+b"
TINY = 1024
"""Tokens of a first call, in which libraries are loaded and buffers allocated before the measurement."""


class Operator(NamedTuple):
    """Factory of an operator (`build(heads, dim_head, length, causal)`) and its capabilities."""

    build: Callable[[int, int, int, bool], Run]
    kinds: tuple[str, ...] = (BIDIRECTIONAL, CAUSAL)
    modes: tuple[str, ...] = (FORWARD, BOTH)
    growth: float = 1.0
    """Least power of the length with which its time and memory are assumed to grow."""
    compiled: bool = False
    """True if it is compiled again for every length."""


OPERATORS: Mapping[str, Mapping[str, Operator]] = {
    "full": {OURS: Operator(ours.full, growth=2), "torch SDPA": Operator(peers.torch_sdpa, growth=2)},
    "window": {
        OURS: Operator(ours.window),
        "local-attention": Operator(peers.local_attention),
        "Longformer": Operator(peers.longformer, kinds=(BIDIRECTIONAL,)),
        "FlexAttention": Operator(peers.flex_attention, modes=(FORWARD,), compiled=True),  # no backward on CPU
    },
    "linear": {
        OURS: Operator(ours.linear),
        "linear-attention-transformer": Operator(peers.linear_attention_transformer),
        "performer-relu": Operator(peers.performer),
    },
    "delta": {OURS: Operator(ours.delta)},
    "sparse": {
        OURS: Operator(ours.sparse),
        "native-sparse-attention": Operator(peers.native_sparse_attention, growth=1.6),
    },
    "hierarchical": {OURS: Operator(ours.hierarchical), "h-transformer-1d": Operator(peers.h_transformer)},
}
"""By layer and name; ours comes first."""

PACKAGES = (
    "torch",
    "transformers",
    "local-attention",
    "linear-attention-transformer",
    "performer-pytorch",
    "h-transformer-1d",
    "native-sparse-attention-pytorch",
)
MODULES = (
    "torch",
    "transformers.models.longformer.modeling_longformer",
    "local_attention",
    "linear_attention_transformer",
    "performer_pytorch",
    "h_transformer_1d",
    "native_sparse_attention_pytorch",
    "rich.table",
    "genoattn.attention.full",
    "genoattn.attention.window",
    "genoattn.attention.linear",
    "genoattn.attention.delta",
    "genoattn.attention.hierarchical",
    "genoattn.attention.sparse",
)
"""Modules that nearly every process imports."""


def measured(
    layer: str, name: str, kind: str, heads: str, length: int, mode: str, seconds: float, patience: float
) -> dict[str, Any]:
    """Time and memory of one case; run in a process of its own."""
    torch.manual_seed(0)
    operator, causal = OPERATORS[layer][name], kind == CAUSAL
    count, width = map(int, heads.split("x"))
    shape = None
    if not operator.compiled:
        tiny = _call(operator.build(count, width, TINY, causal), mode, None)
        shape = [length if size == TINY else size for size in tiny().shape]
    gradient = torch.randn(shape) if shape and mode == BOTH else None
    call = _call(operator.build(count, width, length, causal), mode, gradient)
    with Foreign() as foreign, Memory() as memory:
        timing = timed(call, seconds, patience)
    memory_use = {"peak_mib": round(memory.peak), "above_mib": round(memory.above), "foreign": foreign.cores}
    return timing._asdict() | memory_use


def _call(run: Run, mode: str, gradient: Tensor | None) -> Callable[[], Tensor]:
    """One call of an operator: forward without a graph, or forward and backward from `gradient` (None: from ones)."""
    for leaf in run.leaves:
        leaf.requires_grad_(mode == BOTH)

    def forward() -> Tensor:
        with torch.no_grad():
            return run.act()

    def both() -> Tensor:
        for leaf in run.leaves:
            leaf.grad = None
        y = run.act()
        y.backward(torch.ones_like(y) if gradient is None else gradient)
        return y.detach()

    return both if mode == BOTH else forward
