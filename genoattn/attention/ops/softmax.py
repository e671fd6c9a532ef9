"""Full softmax attention by torch's fused operator, with padding."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.base import zero_padding


def full_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention without a stored score matrix.

    Args:
        q: Queries; padding may hold any finite values.
        k: Keys.
        v: Values.
        causal: Hide later tokens.
        padding_mask: True for real tokens; the output is 0 at padding.
        scale: Factor of the scores, 1 / sqrt(dim_head) by default.
    """
    if padding_mask is None:
        return _attend(q, k, v, scale, causal=causal)
    if not causal:
        # A sequence of padding alone attends to all of it, so that no kernel gets a row without keys.
        visible = padding_mask | ~padding_mask.any(1, keepdim=True)
        return zero_padding(_attend(q, k, v, scale, visible=visible[:, None, None, :]), padding_mask)
    # Fused kernels take causality or a mask, not both. With the real tokens moved to the front in their order, the
    # causal rule alone hides all padding from them.
    order = (~padding_mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :, None, None].expand_as(q)
    y = _attend(q.gather(1, order), k.gather(1, order), v.gather(1, order), scale, causal=True)
    return zero_padding(torch.zeros_like(y).scatter(1, order, y), padding_mask)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, visible: Tensor | None = None, causal: bool = False
) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal, scale=scale)
    return y.transpose(1, 2)
