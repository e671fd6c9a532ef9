"""Full softmax attention by torch's `varlen_attn`, FlashAttention over sequences of several lengths put end to end.

Padding is not computed, wherever it stands: real tokens are moved together, and their lengths are passed on. The host
never waits for the number of real tokens, because the rows after the last of them stay and are not looked at.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.base import zero_padding


def full_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length kv_heads dim_head"],
    v: Float[Tensor, "batch length kv_heads dim_head"],
    *,
    causal: bool,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`full_attention` of sequences whose queries and keys are the same tokens, in the dtype of autocast."""
    from torch.nn.attention.varlen import varlen_attn  # late: older versions of torch lack it

    device = q.device.type
    if torch.is_autocast_enabled(device):
        q, k, v = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (q, k, v))
    batch, length = q.shape[:2]
    # Zeroed first: the kernel leaves gradients of the rows after the last real token as the memory was.
    q, k, v = (zero_padding(tensor, padding_mask).flatten(0, 1) for tensor in (q, k, v))
    order = None
    if padding_mask is None:
        ends = torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=q.device)
    else:
        order = (~padding_mask.flatten()).to(torch.uint8).argsort(stable=True)
        ends = F.pad(padding_mask.sum(1).cumsum(0), (1, 0)).int()
        q, k, v = (tensor.index_select(0, order) for tensor in (q, k, v))
    words: dict[str, Any] = {"window_size": (-1, 0 if causal else -1), "enable_gqa": k.shape[1] < q.shape[1]}
    y = varlen_attn(q, k, v, ends, ends, length, length, **words)
    assert isinstance(y, Tensor)
    if order is not None:
        y = torch.zeros_like(y).index_copy(0, order, y)
    return zero_padding(y.unflatten(0, (batch, length)), padding_mask)
