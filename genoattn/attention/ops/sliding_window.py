"""Exact softmax attention over a sliding window, in blocks of queries on overlapping views: no copies, no padding.

A block of queries reads one view of the keys in its window, and one additive mask serves all blocks. Blocks whose keys
are all in the sequence go to the kernel many at a time, as a batch; blocks at the ends are computed one by one, with
fewer keys. Both passes process a sequence in segments, so that only the output and the gradients are as long as the
sequence.

The kernel returns its log-sum-exp, by which the outputs over two sets of keys are merged into one softmax. The backward
pass computes each set by itself from the merged output and log-sum-exp, which is exact.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.ops.sliding_window_blocks import (
    GlobalKeys,
    Window,
    _rows_of_channels,
    _WindowAttention,
    keys_in_window,
)


def windowed_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys heads dim_head"],
    v: Float[Tensor, "batch keys heads dim_head"],
    window: Window,
    *,
    padding_mask: Bool[Tensor, "batch keys"] | None = None,
    real: Bool[Tensor, "batch queries"] | None = None,
    slopes: Float[Tensor, "heads"] | None = None,
    global_keys: GlobalKeys | None = None,
    blind: bool = False,
) -> Float[Tensor, "batch queries heads dim_head"]:
    """Softmax attention of each query over its window and the global keys, of which one must be real.

    With `blind` none need be real, and the output then is 0. Scores are multiplied by 1 / sqrt(dim_head), minus the
    slope of the head times the distance in tokens. The output of queries that are not `real` is 0. Inputs in half
    precision are computed in float32.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    global_k, global_v, global_mask = (
        (None, None, None) if global_keys is None or not global_keys.k.shape[1] else global_keys
    )
    tensors = (None if t is None else _rows_of_channels(t.to(wide)) for t in (q, k, v, global_k, global_v))
    near = None if padding_mask is None or not blind else keys_in_window(padding_mask, window, q.shape[1])
    if near is not None:
        seen = near if global_mask is None else near | global_mask.any(1, keepdim=True)
        real = seen if real is None else real & seen
    with torch.autocast(q.device.type, enabled=False):  # backward runs without it too
        y: Tensor = _WindowAttention.apply(*tensors, window, padding_mask, real, near, global_mask, slopes)  # pyright: ignore
    return y.to(q.dtype)


def window_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys heads dim_head"],
    v: Float[Tensor, "batch keys heads dim_head"],
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
) -> Float[Tensor, "batch queries heads dim_head"]:
    """Softmax attention of each token over `left` tokens before it, itself and `right` after it; 0 at padding.

    `key_mask` is true for the keys to read, if not all real tokens; a query without any has the output 0. With
    `dilation` only every dilation-th token of the window counts. The first `global_tokens` are visible to all tokens
    and attend to all (if causal, to earlier ones). `before` keys precede the key of the first query. Scores are
    multiplied by 1 / sqrt(dim_head), minus the head's slope for each token of distance.
    """
    real, first = padding_mask, min(global_tokens, k.shape[1])
    key_mask, blind = (padding_mask, False) if key_mask is None else (key_mask, True)
    if not first:
        window = Window(left, right, dilation, before)
        return windowed_attention(q, k, v, window, padding_mask=key_mask, real=real, slopes=slopes, blind=blind)
    own = min(max(first - before, 0), q.shape[1])  # queries that are global
    global_k, global_v, k_near, v_near = k[:, :first], v[:, :first], k[:, first:], v[:, first:]
    global_mask, near = (None, None) if key_mask is None else (key_mask[:, :first], key_mask[:, first:])
    outputs = []
    if own and causal:
        real_queries = None if real is None else real[:, :own]
        window = Window(first, 0, before=before)
        outputs.append(
            windowed_attention(
                q[:, :own], global_k, global_v, window, padding_mask=global_mask, real=real_queries, blind=blind
            )
        )
    elif own:
        outputs.append(_attend_to_all(q[:, :own], k, v, key_mask, None if real is None else real[:, :own]))
    if own < q.shape[1]:
        real_queries = None if real is None else real[:, own:]
        if global_mask is None:
            global_mask = torch.ones(global_k.shape[:2], dtype=torch.bool, device=k.device)
        window = Window(left, right, dilation, before + own - first)
        global_keys = GlobalKeys(global_k, global_v, global_mask)
        outputs.append(
            windowed_attention(
                q[:, own:],
                k_near,
                v_near,
                window,
                padding_mask=near,
                real=real_queries,
                global_keys=global_keys,
                blind=blind,
            )
        )
    return torch.cat(outputs, dim=1)


def _attend_to_all(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, real: Tensor | None) -> Tensor:
    some = None if key_mask is None else key_mask.any(1, keepdim=True)
    visible = None if key_mask is None or some is None else (key_mask | ~some)[:, None, None, :]
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        y = F.scaled_dot_product_attention(*(t.to(wide).transpose(1, 2) for t in (q, k, v)), attn_mask=visible)
    y = zero_padding(y.transpose(1, 2), None if some is None else some.expand(q.shape[:2]))
    return zero_padding(y, real).to(q.dtype)
