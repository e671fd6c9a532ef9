"""Full softmax attention by torch's fused operator, with padding."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.ops.beside import Beside, read, with_key
from genoattn.attention.ops.sizes import sizes


def full_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_head"],
    *,
    causal: bool,
    padding_mask: Bool[Tensor, "batch queries"] | None = None,
    key_mask: Bool[Tensor, "batch keys"] | None = None,
    beside: Beside | None = None,
    before: int = 0,
) -> Float[Tensor, "batch queries heads dim_head"]:
    """Softmax attention without a stored score matrix.

    Args:
        q: Queries; padding may hold any finite values. Query head h reads key head h // (heads / kv_heads).
        k: Keys.
        v: Values.
        causal: Hide later tokens.
        padding_mask: True for real tokens; the output is 0 at padding.
        key_mask: True for the keys to read, if not all real tokens; the output is 0 for a query without any.
        beside: A key of each query that belongs to no token.
        before: Keys before that of the first query of a causal layer.
    """
    if beside is not None:  # a first token that answers nothing: with it key i still is the last of causal query i
        q, k, v = with_key(q, k, v, beside)
        masks = (None if mask is None else F.pad(mask, (1, 0), value=True) for mask in (padding_mask, key_mask))
        q = F.pad(q, (0, 0, 0, 0, 1, 0))
        words = dict(zip(("padding_mask", "key_mask"), masks, strict=True))
        y = full_attention(q, k, v, causal=causal, before=before, **words)
        return read(y[:, 1:], beside)
    if causal and before and key_mask is None:
        key_mask = torch.ones(k.shape[:2], dtype=torch.bool, device=k.device)
    if key_mask is not None:
        return zero_padding(_attend_to_some(q, k, v, key_mask, causal, before), padding_mask)
    if padding_mask is None:
        return _attend(q, k, v, causal=causal)
    if not causal:
        # A sequence of padding alone attends to all of it, so that no kernel gets a row without keys.
        visible = padding_mask | ~padding_mask.any(1, keepdim=True)
        return zero_padding(_attend(q, k, v, visible=visible[:, None, None, :]), padding_mask)
    # Fused kernels take causality or a mask, not both. With the real tokens moved to the front in their order, the
    # causal rule alone hides all padding from them.
    order = (~padding_mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :, None, None]
    y = _attend(*(t.gather(1, order.expand_as(t)) for t in (q, k, v)), causal=True)
    return zero_padding(torch.zeros_like(y).scatter(1, order.expand_as(y), y), padding_mask)


def _attend_to_some(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, causal: bool, before: int) -> Tensor:
    """Attention to the keys of a mask that is not that of the queries; 0 for a query without a key."""
    if not causal:
        some = key_mask.any(1, keepdim=True)
        return zero_padding(_attend(q, k, v, visible=(key_mask | ~some)[:, None, None, :]), some.expand(q.shape[:2]))
    some, outputs = key_mask.cummax(1).values[:, before : before + q.shape[1]], []
    many = sizes(q.device).masked_rows
    for start in range(0, q.shape[1], many):  # a mask of some rows at a time, so that memory stays linear
        rows = slice(start, min(start + many, q.shape[1]))
        stop = before + rows.stop
        index = torch.arange(stop, device=q.device)
        visible = (key_mask[:, None, :stop] & (index <= index[before + start :, None])) | ~some[:, rows, None]
        outputs.append(_attend(q[:, rows], k[:, :stop], v[:, :stop], visible=visible[:, None]))
    return zero_padding(torch.cat(outputs, dim=1), some) if outputs else q


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None, causal: bool = False) -> Tensor:
    shared = k.shape[2] < q.shape[2]
    if shared and not _knows_groups(q):
        k, v = (t.repeat_interleave(q.shape[2] // t.shape[2], dim=2) for t in (k, v))
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal, enable_gqa=shared)
    return y.transpose(1, 2)


def _knows_groups(q: Tensor) -> bool:
    """True if a fused kernel of torch knows keys that heads share: on a GPU it does in half precision alone."""
    device = q.device.type
    return device == "cpu" or q.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(device)
