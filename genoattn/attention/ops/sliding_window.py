"""Exact softmax attention over a sliding window, in blocks of queries on overlapping views: no copies, no padding.

A block of queries reads one view of the keys in its window, and one additive mask serves all blocks. Blocks whose keys
are all in the sequence go to the kernel many at a time, as a batch; blocks at the ends are computed one by one, with
fewer keys. Both passes process a sequence in segments, so that only the output and the gradients are as long as the
sequence.

The kernel returns its log-sum-exp, by which the outputs over two sets of keys are merged into one softmax. The backward
pass computes each set by itself from the merged output and log-sum-exp, which is exact.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.ops.beside import Beside
from genoattn.attention.ops.sliding_window_blocks import (
    GlobalKeys,
    Window,
    _rows_of_channels,
    _WindowAttention,
    keys_in_window,
)
from genoattn.attention.ops.softmax import full_attention


def windowed_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_head"],
    window: Window,
    *,
    padding_mask: Bool[Tensor, "batch keys"] | None = None,
    real: Bool[Tensor, "batch queries"] | None = None,
    slopes: Float[Tensor, "heads"] | None = None,
    global_keys: GlobalKeys | None = None,
    blind: bool = False,
    beside: Beside | None = None,
) -> Float[Tensor, "batch queries heads dim_head"]:
    """Softmax attention of each query over its window and the global keys, of which one must be real.

    With `blind` none need be real, and the output then is 0. `beside` is a key of each query that belongs to no token.
    Scores are multiplied by 1 / sqrt(dim_head), minus the slope of the head times the distance in tokens. The output of
    queries that are not `real` is 0. Inputs in half precision are computed in float32. Query head h reads key head
    h // (heads / kv_heads).
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    global_k, global_v, global_mask = (
        (None, None, None) if global_keys is None or not global_keys.k.shape[1] else global_keys
    )
    tensors = (None if t is None else _rows_of_channels(t.to(wide)) for t in (q, k, v, global_k, global_v))
    near = None if padding_mask is None or not blind else keys_in_window(padding_mask, window, q.shape[1])
    if near is not None and beside is None:
        seen = near if global_mask is None else near | global_mask.any(1, keepdim=True)
        real = seen if real is None else real & seen
    with torch.autocast(q.device.type, enabled=False):  # backward runs without it too
        score, value = (None, None) if beside is None else beside.as_blocks(wide)
        masks = padding_mask, real, near, global_mask
        y: Tensor = _WindowAttention.apply(*tensors, score, value, window, *masks, slopes)  # pyright: ignore
    return y.to(q.dtype)


def window_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_head"],
    *,
    left: int,
    right: int,
    causal: bool,
    dilation: int = 1,
    global_tokens: int = 0,
    before: int = 0,
    padding_mask: Bool[Tensor, "batch queries"] | None = None,
    key_mask: Bool[Tensor, "batch keys"] | None = None,
    slopes: Float[Tensor, "heads"] | None = None,
    beside: Beside | None = None,
) -> Float[Tensor, "batch queries heads dim_head"]:
    """Softmax attention of each token over `left` tokens before it, itself and `right` after it; 0 at padding.

    `key_mask` is true for the keys to read, if not all real tokens; a query without any has the output 0. With
    `dilation` only every dilation-th token of the window counts. The first `global_tokens` are visible to all tokens
    and attend to all (if causal, to earlier ones). `before` keys precede the key of the first query. Scores are
    multiplied by 1 / sqrt(dim_head), minus the head's slope for each token of distance. `beside` is a key of each query
    that belongs to no token.
    """
    first = min(global_tokens, k.shape[1])
    key_mask, blind = (padding_mask, False) if key_mask is None else (key_mask, True)
    if not first:
        window = Window(left, right, dilation, before)
        words = {"padding_mask": key_mask, "slopes": slopes, "blind": blind, "beside": beside}
        return windowed_attention(q, k, v, window, real=padding_mask, **words)
    own = min(max(first - before, 0), q.shape[1])  # queries that are global
    global_k, global_v, k_near, v_near = k[:, :first], v[:, :first], k[:, first:], v[:, first:]
    global_mask, near = (None, None) if key_mask is None else (key_mask[:, :first], key_mask[:, first:])

    def of(queries: slice) -> tuple[Tensor, dict[str, Any]]:
        real = None if padding_mask is None else padding_mask[:, queries]
        return q[:, queries], {"real": real, "beside": None if beside is None else beside.part(queries)}

    outputs = []
    if own and causal:
        some, words = of(slice(own))
        window = Window(first, 0, before=before)
        outputs.append(
            windowed_attention(some, global_k, global_v, window, padding_mask=global_mask, blind=blind, **words)
        )
    elif own:
        some, words = of(slice(own))
        outputs.append(_attend_to_all(some, k, v, key_mask, **words))
    if own < q.shape[1]:
        some, words = of(slice(own, None))
        if global_mask is None:
            global_mask = torch.ones(global_k.shape[:2], dtype=torch.bool, device=k.device)
        window = Window(left, right, dilation, before + own - first)
        words["global_keys"] = GlobalKeys(global_k, global_v, global_mask)
        outputs.append(windowed_attention(some, k_near, v_near, window, padding_mask=near, blind=blind, **words))
    return torch.cat(outputs, dim=1)


def _attend_to_all(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, real: Tensor | None, beside: Beside | None
) -> Tensor:
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        x, keys, values = (t.to(wide) for t in (q, k, v))
        y = full_attention(x, keys, values, causal=False, padding_mask=real, key_mask=key_mask, beside=beside)
    return y.to(q.dtype)
