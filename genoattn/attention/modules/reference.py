"""Reference softmax attention over the full score matrix, to which tests compare the fast operators."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


class Columns(NamedTuple):
    """Keys that belong to no token, one by one: the score of each query, and the value that it reads there."""

    scores: Float[Tensor, "batch heads queries few"]
    values: Float[Tensor, "batch queries few heads dim_head"]

    def of(self, heads: slice) -> "Columns":
        """The columns of some heads."""
        return Columns(self.scores[:, heads], self.values[:, :, :, heads])


def reference_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    visible: Bool[Tensor, "#batch length length"],
    bias: Float[Tensor, "heads length length"] | None = None,
    beside: Columns | None = None,
) -> Float[Tensor, "batch length heads dim_value"]:
    """Softmax attention over the full score matrix, scores / sqrt(dim_head); 0 for a query without a visible key.

    The columns `beside` the matrix are visible to all.
    """
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    scores = scores if bias is None else scores + bias
    visible = visible[:, None]
    if beside is not None:
        scores = torch.cat([scores, beside.scores], dim=-1)
        visible = F.pad(visible, (0, beside.scores.shape[-1]), value=True)
    empty = ~visible.any(-1, keepdim=True)
    # A row of nothing but -inf would be NaN, backward too: it becomes a softmax of zeros, and its weights are dropped.
    weights = scores.masked_fill(~visible, float("-inf")).masked_fill(empty, 0).softmax(-1).masked_fill(~visible, 0)
    y = torch.einsum("bhqk,bkhd->bqhd", weights[..., : k.shape[1]], v)
    return y if beside is None else y + torch.einsum("bhqr,bqrhd->bqhd", weights[..., k.shape[1] :], beside.values)


def visibility_mask(
    length: int, left: int, right: int, padding_mask: Bool[Tensor, "batch length"] | None, device: torch.device
) -> Bool[Tensor, "#batch length length"]:
    """Mask [batch, query, key] of the pairs with key in [query - left, query + right] and both tokens real."""
    index = torch.arange(length, device=device)
    ahead = index[None, :] - index[:, None]
    near = ((ahead >= -left) & (ahead <= right))[None]
    return near if padding_mask is None else near & padding_mask[:, None, :] & padding_mask[:, :, None]
