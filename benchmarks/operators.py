"""The attention operators that are measured: ours, and each peer's as its users would call it.

Every one is given random queries, keys and values in the shape that it takes itself, so that none pays for another's
conventions. Where a peer offers only a module, its projections are replaced by what hands these tensors in.
"""

import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from measure import Foreign, Memory, timed
from torch import Tensor, nn

OURS = "genoattn"
BIDIRECTIONAL, CAUSAL = "bidirectional", "causal"
FORWARD, BOTH = "forward", "f+b"
TINY = 1024
"""Tokens of the call that comes first: libraries are loaded and buffers made before anything is measured."""


class Run(NamedTuple):
    """An operator with its inputs at hand, and those that get a gradient."""

    act: Callable[[], Tensor]
    leaves: tuple[Tensor, ...]


class Operator(NamedTuple):
    """How an operator is built (`build(heads, dim_head, length, causal)`) and what it can do."""

    build: Callable[[int, int, int, bool], Run]
    kinds: tuple[str, ...] = (BIDIRECTIONAL, CAUSAL)
    modes: tuple[str, ...] = (FORWARD, BOTH)
    growth: float = 1.0
    """The least power of the length by which its time and memory are taken to grow."""
    compiled: bool = False
    """Compiled anew for every length."""


class Given(nn.Module):
    """Stands where a peer's module projects its input, and answers tensors that are there already."""

    def __init__(self, answer: Callable[[], Tensor]):
        super().__init__()
        self.answer = answer

    def forward(self, *_: Tensor) -> Tensor:
        return self.answer()


def _tokens_first(heads: int, dim_head: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (torch.randn(1, length, heads, dim_head) for _ in range(3))
    return q, k, v


def _heads_first(heads: int, dim_head: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (torch.randn(1, heads, length, dim_head) for _ in range(3))
    return q, k, v


def full(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    from genoattn.attention.full import full_attention

    q, k, v = leaves = _tokens_first(heads, dim_head, length)
    return Run(lambda: full_attention(q, k, v, causal=causal), leaves)


def window(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """513 keys: 256 on either side and its own, or 512 before and its own."""
    from genoattn.attention.window import window_attention

    q, k, v = leaves = _tokens_first(heads, dim_head, length)
    left, right = (512, 0) if causal else (256, 256)
    return Run(lambda: window_attention(q, k, v, left=left, right=right), leaves)


def linear(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    from genoattn.attention.linear import linear_attention

    q, k, v = leaves = _tokens_first(heads, dim_head, length)
    return Run(lambda: linear_attention(q, k, v, causal=causal, features="elu"), leaves)


def delta(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """Keys of length 1, half of each written, and a memory that keeps 0.98; looking both ways, two passes."""
    from genoattn.attention.delta import delta_rule

    q, k, v = _tokens_first(heads, dim_head, length)
    k = F.normalize(k, dim=-1)
    leaves = q, k, v, torch.full((1, length, heads), 0.5), torch.full((1, length, heads), -0.02)

    def both_ways() -> Tensor:
        return delta_rule(*leaves) + delta_rule(*(t.flip(1) for t in leaves), own=False).flip(1)

    return Run((lambda: delta_rule(*leaves)) if causal else both_ways, leaves)


def sparse(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """16 blocks of 64 keys for every block of 64 queries."""
    from genoattn.attention.sparse import sparse_attention

    q, k, v = leaves = _tokens_first(heads, dim_head, length)
    return Run(lambda: sparse_attention(q, k, v, causal=causal, block=64, blocks=16), leaves)


def hierarchical(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    from genoattn.attention.hierarchical import hierarchical_attention

    q, k, v = leaves = _tokens_first(heads, dim_head, length)
    return Run(lambda: hierarchical_attention(q, k, v, causal=causal, block=16), leaves)


def torch_sdpa(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    q, k, v = leaves = _heads_first(heads, dim_head, length)
    return Run(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal), leaves)


def local_attention(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    from local_attention import LocalAttention

    q, k, v = leaves = _heads_first(heads, dim_head, length)
    window, ahead = (512, 0) if causal else (256, 1)
    mix = LocalAttention(
        window, causal=causal, look_backward=1, look_forward=ahead, exact_windowsize=True, use_rotary_pos_emb=False
    )
    return Run(lambda: mix(q, k, v), leaves)


def longformer(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """transformers' LongformerSelfAttention without its projections, no token global."""
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    assert not causal
    width = heads * dim_head
    q, k, v = leaves = tuple(torch.randn(length, 1, width) for _ in range(3))
    config = LongformerConfig(
        hidden_size=width, num_attention_heads=heads, attention_window=[512], attention_probs_dropout_prob=0.0
    )
    mix = LongformerSelfAttention(config, 0)
    mix.query, mix.key, mix.value = Given(q.clone), Given(lambda: k), Given(lambda: v)  # it scales its query in place
    hidden, nowhere = torch.empty(1, length, width), torch.zeros(1, length, dtype=torch.bool)
    mask = torch.zeros(1, length)
    return Run(
        lambda: mix(
            hidden, attention_mask=mask, is_index_masked=nowhere, is_index_global_attn=nowhere, is_global_attn=False
        )[0],
        leaves,
    )


def flex_attention(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """Compiled, which takes a C++ compiler; the mask is made and compilation done before anything is measured."""
    import torch._inductor.config
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as flex

    torch._inductor.config.compile_threads = 1  # no processes beside this one

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        back = query - key
        return (back >= 0) & (back <= 512) if causal else (back <= 256) & (back >= -256)

    q, k, v = leaves = _heads_first(heads, dim_head, length)
    mask = torch.compile(create_block_mask)(seen, None, None, length, length, device="cpu")
    mix = torch.compile(flex)
    mix(q, k, v, block_mask=mask)
    return Run(lambda: mix(q, k, v, block_mask=mask), leaves)


def linear_attention_transformer(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """Looking both ways, softmax features; its causal form reads earlier buckets of 64, never its own."""
    from linear_attention_transformer.linear_attention_transformer import causal_linear_attn, linear_attn

    q, k, v = leaves = _heads_first(heads, dim_head, length)
    return Run(lambda: causal_linear_attn(q, k, v) if causal else linear_attn(q, k, v), leaves)


def performer(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """performer-pytorch with its relu kernel."""
    from performer_pytorch import FastAttention

    q, k, v = leaves = _heads_first(heads, dim_head, length)
    with contextlib.redirect_stdout(io.StringIO()):
        mix = FastAttention(dim_head, causal=causal, generalized_attention=True)
    return Run(lambda: mix(q, k, v), leaves)


def h_transformer(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """h-transformer-1d's attention module without its projections."""
    from h_transformer_1d.h_transformer_1d import CausalHAttention1D, HAttention1D

    width = heads * dim_head
    if causal:
        mix = CausalHAttention1D(width, max_seq_len=length, heads=heads, dim_head=dim_head, block_size=16)
    else:
        mix = HAttention1D(width, heads=heads, dim_head=dim_head, block_size=16)
    qkv, hidden = torch.randn(1, length, 3 * width), torch.empty(1, length, width)
    mix.to_qkv, mix.to_out = Given(lambda: qkv), nn.Identity()
    return Run(lambda: mix(hidden), (qkv,))


def native_sparse_attention(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """The whole module, projections, compression and window included: it offers nothing smaller."""
    from native_sparse_attention_pytorch import SparseAttention

    width = heads * dim_head
    mix = SparseAttention(
        dim=width, dim_head=dim_head, heads=heads, sliding_window_size=512, compress_block_size=64,
        compress_block_sliding_stride=64, selection_block_size=64, num_selected_blocks=16, causal=causal,
    )  # fmt: skip
    hidden = torch.randn(1, length, width)
    return Run(lambda: mix(hidden), (hidden,))


OPERATORS: Mapping[str, Mapping[str, Operator]] = {
    "full": {OURS: Operator(full, growth=2), "torch SDPA": Operator(torch_sdpa, growth=2)},
    "window": {
        OURS: Operator(window),
        "local-attention": Operator(local_attention),
        "Longformer": Operator(longformer, kinds=(BIDIRECTIONAL,)),
        "FlexAttention": Operator(flex_attention, modes=(FORWARD,), compiled=True),  # no backward on CPU
    },
    "linear": {
        OURS: Operator(linear),
        "linear-attention-transformer": Operator(linear_attention_transformer),
        "performer-relu": Operator(performer),
    },
    "delta": {OURS: Operator(delta)},
    "sparse": {
        OURS: Operator(sparse),
        "native-sparse-attention": Operator(native_sparse_attention, growth=1.6),
    },
    "hierarchical": {OURS: Operator(hierarchical), "h-transformer-1d": Operator(h_transformer)},
}
"""By layer and name; ours comes first."""

PACKAGES = (
    "torch", "transformers", "local-attention", "linear-attention-transformer", "performer-pytorch",
    "h-transformer-1d", "native-sparse-attention-pytorch",
)  # fmt: skip
MODULES = (
    "torch", "transformers.models.longformer.modeling_longformer", "local_attention", "linear_attention_transformer",
    "performer_pytorch", "h_transformer_1d", "native_sparse_attention_pytorch", "rich.table",
    "genoattn.attention.full", "genoattn.attention.window", "genoattn.attention.linear", "genoattn.attention.delta",
    "genoattn.attention.hierarchical",
)  # fmt: skip
"""What nearly every process imports."""


def measured(layer: str, name: str, kind: str, heads: str, length: int, mode: str, seconds: float) -> dict[str, Any]:
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
        timing = timed(call, seconds)
    figures = {"peak_mib": round(memory.peak), "above_mib": round(memory.above), "foreign": foreign.cores}
    return timing._asdict() | figures


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
