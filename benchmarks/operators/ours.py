"""Our attention operators as measured by the benchmark."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Run(NamedTuple):
    """An operator with its inputs, and the inputs that get a gradient."""

    act: Callable[[], Tensor]
    leaves: tuple[Tensor, ...]


def tokens_first(heads: int, dim_head: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [1, length, heads, dim_head]."""
    q, k, v = (torch.randn(1, length, heads, dim_head) for _ in range(3))
    return q, k, v


def heads_first(heads: int, dim_head: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [1, heads, length, dim_head]."""
    q, k, v = (torch.randn(1, heads, length, dim_head) for _ in range(3))
    return q, k, v


def full(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    from genoattn.attention.ops.softmax import full_attention

    q, k, v = leaves = tokens_first(heads, dim_head, length)
    return Run(lambda: full_attention(q, k, v, causal=causal), leaves)


def window(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """513 keys: 256 on either side and its own, or 512 before and its own."""
    from genoattn.attention.ops.sliding_window import window_attention

    q, k, v = leaves = tokens_first(heads, dim_head, length)
    left, right = (512, 0) if causal else (256, 256)
    return Run(lambda: window_attention(q, k, v, left=left, right=right, causal=causal), leaves)


def linear(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    from genoattn.attention.ops.linear import linear_attention

    q, k, v = leaves = tokens_first(heads, dim_head, length)
    return Run(lambda: linear_attention(q, k, v, causal=causal, features="elu"), leaves)


def delta(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """Keys of length 1, write strength 0.5, decay 0.98; two passes if bidirectional."""
    from genoattn.attention.ops.delta_rule import delta_rule

    q, k, v = tokens_first(heads, dim_head, length)
    k = F.normalize(k, dim=-1)
    leaves = q, k, v, torch.full((1, length, heads), 0.5), torch.full((1, length, heads), -0.02)

    empty = torch.zeros(1, heads, dim_head, dim_head)

    def both_ways() -> Tensor:
        return delta_rule(*leaves, empty)[0] + delta_rule(*leaves, empty, ahead=True)[0]

    return Run((lambda: delta_rule(*leaves, empty)[0]) if causal else both_ways, leaves)


def sparse(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    """16 blocks of 64 keys for every block of 64 queries."""
    from genoattn.attention.ops.block_sparse import sparse_attention

    q, k, v = leaves = tokens_first(heads, dim_head, length)
    return Run(lambda: sparse_attention(q, k, v, causal=causal, block=64, blocks=16, pool=8), leaves)


def hierarchical(heads: int, dim_head: int, length: int, causal: bool) -> Run:
    from genoattn.attention.ops.hierarchical import hierarchical_attention

    q, k, v = leaves = tokens_first(heads, dim_head, length)
    return Run(lambda: hierarchical_attention(q, k, v, causal=causal, block=16), leaves)
