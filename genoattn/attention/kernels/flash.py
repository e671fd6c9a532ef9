"""Exact softmax attention without a stored score matrix: full, causal or windowed, as torch operators."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.flash_launch import backward, forward
from genoattn.errors import UserError

WIDTHS = (1, 128)


SEGMENTS = 128
"""Segments that a byte of a mask can tell apart, beside the bit for real tokens."""


def flash_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_head"],
    *,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    before: int = 0,
    dilation: int = 1,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    key_mask: Bool[Tensor, "batch keys"] | None = None,
    segments: tuple[Int[Tensor, "batch length"], Int[Tensor, "batch keys"]] | None = None,
    slopes: Float[Tensor, "heads"] | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention of query i over the keys i + before - left · dilation to i + before + right · dilation.

    Args:
        q: Queries. Their heads may be a multiple of the key heads: query head h reads key head h // (heads / kv_heads).
        k: Keys.
        v: Values.
        causal: Hide the keys after i + before.
        window: (left, right) in keys of the dilation, both included; None for no bound.
        before: Keys before the key of the first query.
        dilation: Distance of the keys that count.
        padding_mask: True for the queries to answer. Others are not read (they may hold NaN), give 0 and have no
            gradient.
        key_mask: True for the keys to read; by default the padding mask, if there are as many keys as queries.
        segments: Ids from 0 to 127 of the segments of queries and of keys: a query sees the keys of other segments.
        slopes: ALiBi's: what a key of distance costs each head's score.
        scale: Factor of the scores q·k, 1 / sqrt(dim_head) by default.
        return_lse: Also return the log-sum-exp of the scores of each query, with its gradient.

    Returns:
        The output [batch, length, heads, dim_head], and with `return_lse` the natural log-sum-exp [batch, heads,
        length], -inf for a query without a visible key. Outputs over disjoint keys merge exactly by it.

    Raises:
        UserError: Shapes, dtypes, device or settings that the kernel does not support.
    """
    if key_mask is None and k.shape[1] == q.shape[1]:
        key_mask = padding_mask
    _check(q, k, v, padding_mask, key_mask)
    left, right = _sides(q.shape[1] + k.shape[1] + before, causal, window)
    factor = float(q.shape[-1] ** -0.5 if scale is None else scale)
    if not factor > 0:
        raise UserError(f"scale must be above 0, got {scale}")
    if before < 0 or dilation < 1:
        raise UserError(f"before must be 0 or more and dilation 1 or more, got {before} and {dilation}")
    own, others = (None, None) if segments is None else segments
    q_marks, k_marks = _marks(padding_mask, own), _marks(key_mask, others)
    costs = None if slopes is None else (slopes.detach().float() * (dilation / factor))
    settings = segments is not None, left, right, before, factor
    attend = flash_forward if dilation == 1 else partial(_by_phases, dilation)
    out, lse = attend(q, k, v, q_marks, k_marks, costs, *settings)
    return (out, lse) if return_lse else out


def _by_phases(
    step: int, q: Tensor, k: Tensor, v: Tensor, q_marks: Tensor | None, k_marks: Tensor | None, costs: Tensor | None,
    segments: bool, left: int, right: int, before: int, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`flash_forward` with a dilation: the tokens of each phase are a sequence of their own."""
    batch, length, heads, dim = q.shape
    front = before % step
    turned_q, q_marks = _by_phase(q, q_marks, step, front)
    (turned_k, k_marks), (turned_v, _) = _by_phase(k, k_marks, step), _by_phase(v, None, step)
    costs = None if costs is None else costs.repeat(step)
    settings = segments, left, right, before // step, scale
    out, lse = flash_forward(turned_q, turned_k, turned_v, q_marks, k_marks, costs, *settings)
    lse = lse.unflatten(1, (step, heads)).permute(0, 2, 3, 1).flatten(2)
    return out.reshape(batch, -1, heads, dim)[:, front : front + length], lse[..., front : front + length]


def _by_phase(x: Tensor, marks: Tensor | None, step: int, front: int = 0) -> tuple[Tensor, Tensor | None]:
    """Tokens of each phase of a dilation as heads of their own: a view of [batch, tokens / step, step · heads, dim].

    Only if the tokens, `front` of them before the first, are no multiple of `step` they are copied, and marks say which
    are there. Marks are [batch · step, tokens / step] afterwards.
    """
    batch, length, heads, dim = x.shape
    tail = -(front + length) % step
    if front or tail:
        x = F.pad(x, (0, 0, 0, 0, front, tail))
        marks = torch.ones(batch, length, dtype=torch.uint8, device=x.device) if marks is None else marks
        marks = F.pad(marks, (front, tail))
    if marks is not None:
        marks = marks.unflatten(1, (-1, step)).transpose(1, 2).reshape(batch * step, -1).contiguous()
    return x.reshape(batch, -1, step * heads, dim), marks


def _check(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, key_mask: Tensor | None) -> None:
    launch.check_dtypes({"q": q, "k": k, "v": v})
    launch.check_device(q)
    batch, length, heads, dim_head = q.shape
    if k.shape != v.shape or k.shape[0] != batch or k.shape[3] != dim_head or heads % k.shape[2]:
        raise UserError(
            "k and v must have one shape, the batch and dim_head of q and a number of heads that divides q's, got "
            f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        )
    if not WIDTHS[0] <= dim_head <= WIDTHS[1]:
        raise UserError(f"dim_head must be from {WIDTHS[0]} to {WIDTHS[1]}, got {dim_head}")
    if not 1 <= min(length, k.shape[1]) <= max(length, k.shape[1]) <= launch.LONGEST:
        raise UserError(f"length and keys must be from 1 to {launch.LONGEST}, got {length} and {k.shape[1]}")
    for name, mask, tensor in (("padding_mask", padding_mask, q), ("key_mask", key_mask, k)):
        if mask is not None and mask.shape != tensor.shape[:2]:
            raise UserError(f"{name} must be {list(tensor.shape[:2])}, got {list(mask.shape)}")


def _marks(mask: Tensor | None, segments: Tensor | None) -> Tensor | None:
    """A byte for each token: 0 for one that is not real, else 1 and above this bit its segment; None: all are real."""
    if segments is None:
        return None if mask is None else mask.contiguous().view(torch.uint8)
    marks = segments.to(torch.uint8) * 2 + 1
    return marks if mask is None else marks * mask


def _sides(longest: int, causal: bool, window: tuple[int | None, int | None] | None) -> tuple[int, int]:
    """Visible keys to the left and to the right of a query's, at most `longest`."""
    left, right = (longest if side is None else side for side in window or (None, None))
    if left < 0 or right < 0:
        raise UserError(f"window must be a pair of 0 or more tokens, or None for no bound, got {window}")
    return min(left, longest), 0 if causal else min(right, longest)


flash_forward = torch.library.custom_op("genoattn::flash_forward", forward, mutates_args=())


@flash_forward.register_fake
def _(q: Tensor, *_: Any):
    batch, length, heads = q.shape[:3]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(batch, heads, length, dtype=torch.float32)


flash_backward = torch.library.custom_op("genoattn::flash_backward", backward, mutates_args=())


@flash_backward.register_fake
def _(dout: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.segments, ctx.left, ctx.right, ctx.before, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, dout: Tensor, dlse: Tensor):
    numbers = ctx.segments, ctx.left, ctx.right, ctx.before, ctx.scale
    return *flash_backward(dout, dlse, *ctx.saved_tensors, *numbers), *[None] * 8


flash_forward.register_autograd(_gradients, setup_context=_save_for_backward)
