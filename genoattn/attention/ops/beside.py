"""One more key for each query, which belongs to no token: a sink.

Where an operator returns its log-sum-exp, the key is merged by it. Torch's fused operator does not, and it takes no
score that is given: there vectors get one channel more, which holds the score in a query, 1 in the key and 0 in the
keys of tokens. In the same channel the value of the key is 1 and those of tokens are 0, so the output there is the
weight of the key. The backward pass follows by itself.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LOWEST = -1e30
"""Stands for a log-sum-exp of -inf where differences are taken."""


class Beside(NamedTuple):
    """A key that each query sees beside the tokens, whatever masks and windows say."""

    score: Float[Tensor, "batch queries heads"]
    """Its score, 1 / sqrt(dim_head) included."""
    value: Float[Tensor, "batch queries heads dim_head"] | None = None
    """The vector that a query reads there (None: 0)."""

    def part(self, queries: slice, heads: slice = slice(None)) -> "Beside":
        """The keys of some queries and heads."""
        value = None if self.value is None else self.value[:, queries, heads]
        return Beside(self.score[:, queries, heads], value)

    def as_blocks(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Score `[batch, queries, heads, 1]` and value in this dtype."""
        return self.score[..., None].to(dtype), None if self.value is None else self.value.to(dtype)


def with_key(q: Tensor, k: Tensor, v: Tensor, beside: Beside) -> tuple[Tensor, Tensor, Tensor]:
    """Queries with the score in one more channel, and keys and values with one more token at the front."""
    width = q.shape[-1] + 1
    # Operators divide scores by the root of the channels, of which there now is one more.
    score = beside.score[..., None].to(q.dtype) * width**0.5
    q = torch.cat([q * (width / (width - 1)) ** 0.5, score], dim=-1)
    key = F.pad(k.new_zeros(width - 1), (0, 1), value=1.0)
    k, v = (torch.cat([key.expand(len(t), 1, t.shape[2], width), F.pad(t, (0, 1))], dim=1) for t in (k, v))
    return q, k, v


def read(y: Tensor, beside: Beside) -> Tensor:
    """Outputs from those of an operator that was given the queries, keys and values of `with_key`."""
    y, weight = y[..., :-1], y[..., -1:]
    return y if beside.value is None else y + weight * beside.value.to(y.dtype)


def merge(y: Tensor, lse: Float[Tensor, "batch heads queries"], beside: Beside) -> Tensor:
    """Outputs over tokens alone, whose log-sum-exp is known, with the key beside them."""
    weight = (beside.score - lse.transpose(1, 2)).sigmoid()[..., None]
    merged = y * (1 - weight) if beside.value is None else y * (1 - weight) + weight * beside.value
    return merged.to(y.dtype)


def merge_outputs(
    y: Float[Tensor, "batch queries heads dim_head"],
    lse: Float[Tensor, "batch heads queries"],
    other: Float[Tensor, "batch queries heads dim_head"],
    other_lse: Float[Tensor, "batch heads queries"],
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp over two sets of keys, from those over each; 0 and -inf for a query that sees no key."""
    first, second = (t.masked_fill(t == float("-inf"), LOWEST) for t in (lse, other_lse))
    share = (second - first).sigmoid().transpose(1, 2)[..., None]
    merged = torch.lerp(y.to(share.dtype), other.to(share.dtype), share).to(y.dtype)
    total = torch.logaddexp(first, second)
    return merged, total.masked_fill(total <= LOWEST / 2, float("-inf"))
