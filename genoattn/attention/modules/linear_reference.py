"""Linear attention from the whole square of weights, to which tests compare the fast operator."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.modules.feature_maps import feature_map
from genoattn.attention.modules.reference import visibility_mask
from genoattn.attention.modules.rotary import Rope, rotate
from genoattn.attention.ops.linear import EPSILON


def naive_linear_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    features: str = "elu",
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    positions: Int[Tensor, "#batch length"] | None = None,
    decay: Float[Tensor, "heads"] | None = None,
    rope: Rope = Rope(),
    hidden: Bool[Tensor, "batch length length"] | None = None,
) -> Float[Tensor, "batch length heads dim_value"]:
    """`linear_attention` from the whole square of weights, without the pairs of queries and keys that are `hidden`."""
    length = q.shape[1]
    visible = visibility_mask(length, length, 0 if causal else length, padding_mask, q.device)
    visible = (visible if hidden is None else visible & ~hidden)[:, None]
    phi_q, phi_k = feature_map(q, features), feature_map(k, features)
    weights = torch.einsum("bqhm,bkhm->bhqk", phi_q, phi_k).masked_fill(~visible, 0)
    least = EPSILON * visible.sum(-1, keepdim=True).clamp_min(1)
    index = torch.arange(length, device=q.device)
    factors = None if decay is None else (-decay[:, None, None] * (index[:, None] - index).abs()).exp()
    if factors is not None:
        weights, least = weights * factors, least.clamp_max(EPSILON)
    if features == "signed":
        return torch.einsum("bhqk,bkhd->bqhd", weights.to(v.dtype), v)
    denominator = torch.maximum(weights.sum(-1, keepdim=True), least)
    if positions is not None:
        turned = torch.einsum("bqhm,bkhm->bhqk", rotate(phi_q, positions, rope), rotate(phi_k, positions, rope))
        weights = turned.masked_fill(~visible, 0) * (1 if factors is None else factors)
    return torch.einsum("bhqk,bkhd->bqhd", (weights / denominator).to(v.dtype), v)
