"""Operators of other packages, each called as its users do.

If a package has only a module, its projections are replaced by given queries, keys and values. A package is imported
when its operator is built: a package that is not installed is missing in the tables, and the others are measured.
"""

import contextlib
import io
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.operators.ours import Run, heads_first


class Given(nn.Module):
    """Replaces a projection of another package's module and returns a given tensor."""

    def __init__(self, tensor: Callable[[], Tensor]):
        super().__init__()
        self.tensor = tensor

    def forward(self, *_: Tensor) -> Tensor:
        return self.tensor()


def torch_sdpa(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    q, k, v = leaves = heads_first(heads, dim_head, length)
    return Run(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal), leaves)


def local_attention(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    from local_attention import LocalAttention

    q, k, v = leaves = heads_first(heads, dim_head, length)
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
    """FlexAttention, compiled by a C++ compiler; mask and compilation are not part of the measurement."""
    import torch._inductor.config
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as flex

    torch._inductor.config.compile_threads = 1  # no processes beside this one

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        back = query - key
        return (back >= 0) & (back <= 512) if causal else (back <= 256) & (back >= -256)

    q, k, v = leaves = heads_first(heads, dim_head, length)
    mask = torch.compile(create_block_mask)(visible, None, None, length, length, device="cpu")
    mix = torch.compile(flex)
    mix(q, k, v, block_mask=mask)
    return Run(lambda: mix(q, k, v, block_mask=mask), leaves)


def linear_attention_transformer(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """Softmax features if bidirectional; the causal form reads earlier buckets of 64, never its own."""
    from linear_attention_transformer.linear_attention_transformer import causal_linear_attn, linear_attn

    q, k, v = leaves = heads_first(heads, dim_head, length)
    return Run(lambda: causal_linear_attn(q, k, v) if causal else linear_attn(q, k, v), leaves)


def performer(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """performer-pytorch with its relu kernel."""
    from performer_pytorch import FastAttention

    q, k, v = leaves = heads_first(heads, dim_head, length)
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
    """The whole module with projections, compression and window, because the package has no smaller part."""
    from native_sparse_attention_pytorch import SparseAttention

    width = heads * dim_head
    mix = SparseAttention(
        dim=width,
        dim_head=dim_head,
        heads=heads,
        sliding_window_size=512,
        compress_block_size=64,
        compress_block_sliding_stride=64,
        selection_block_size=64,
        num_selected_blocks=16,
        causal=causal,
    )
    hidden = torch.randn(1, length, width)
    return Run(lambda: mix(hidden), (hidden,))
