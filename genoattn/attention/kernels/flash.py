"""Exact softmax attention that stores no square: full, causal or windowed, forward and backward, as torch operators."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.configurations import INTERPRETED, Tiles, flash_tiles, power_of_two
from genoattn.attention.kernels.flash_backward import delta_kernel, dkv_kernel, dq_kernel
from genoattn.attention.kernels.flash_forward import forward_kernel
from genoattn.errors import UserError

LOG2E = 1.4426950408889634


WIDTHS = (1, 128)


def flash_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length kv_heads dim_head"],
    v: Float[Tensor, "batch length kv_heads dim_head"],
    *,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    keep: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention of token i over tokens i - left to i + right of `window`, both included; None is no bound.

    `causal` hides what lies to the right of i. Heads of q may be a multiple of those of k and v: query head h reads key
    head h // (heads / kv_heads). Scores are q·k `scale`, 1 / sqrt(dim_head) by default. Padding, False in `keep`, is
    not read (it may hold NaN), answers 0 and has no gradient.

    With `return_lse` also the natural logarithm of each query's sum of exponentials [batch, heads, length], -inf where
    it sees nothing, with its gradient: two answers over disjoint keys merge exactly by it.
    """
    _check(q, k, v, keep)
    left, right = _sides(q.shape[1], causal, window)
    factor = float(q.shape[-1] ** -0.5 if scale is None else scale)
    if not factor > 0:
        raise UserError(f"scale must be above 0, got {scale}")
    out, lse = flash_forward(q, k, v, keep, left, right, factor)
    return (out, lse) if return_lse else out


def _check(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> None:
    launch.check_dtypes({"q": q, "k": k, "v": v})
    launch.check_device(q)
    batch, length, heads, dim_head = q.shape
    if k.shape != v.shape or k.shape[:2] != q.shape[:2] or k.shape[3] != dim_head or heads % k.shape[2]:
        raise UserError(
            "k and v must have the batch, length and dim_head of q and a number of heads that divides q's, got "
            f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        )
    if not WIDTHS[0] <= dim_head <= WIDTHS[1]:
        raise UserError(f"dim_head must be from {WIDTHS[0]} to {WIDTHS[1]}, got {dim_head}")
    if not 1 <= length <= launch.LONGEST:
        raise UserError(f"length must be from 1 to {launch.LONGEST}, got {length}")
    if keep is not None and keep.shape != (batch, length):
        raise UserError(f"keep must be [{batch}, {length}] as q is, got {list(keep.shape)}")


def _sides(length: int, causal: bool, window: tuple[int | None, int | None] | None) -> tuple[int, int]:
    """How far a token sees to the left and to the right, no farther than the sequence is long."""
    left, right = (length if side is None else side for side in window or (None, None))
    if left < 0 or right < 0:
        raise UserError(f"window must be a pair of 0 or more tokens, or None for no bound, got {window}")
    return min(left, length), 0 if causal else min(right, length)


class _Plan(NamedTuple):
    """How one kernel is started: its tiles, the constants it is compiled for, its inputs as pointers or descriptors."""

    tiles: Tiles
    constants: dict[str, int | bool | str]
    sources: Sequence[Tensor | TensorDescriptor]


def _plan(
    kernel: str, by_query: dict[str, Tensor], by_key: dict[str, Tensor], keep: Tensor | None, edge: bool
) -> _Plan:
    """The plan of a kernel that reads the tensors of `by_query` in query tiles and those of `by_key` in key tiles.

    `edge` says whether the far side of the reach is bounded, so that tiles there need a mask.
    """
    tensors = [*by_query.values(), *by_key.values()]
    width, family = tensors[0].shape[-1], launch.family(tensors[0].device)
    dim = power_of_two(width)
    tiles = INTERPRETED if launch.INTERPRETED else flash_tiles(kernel, family, dim, tensors[0].element_size())
    # Padding must not be read, and a descriptor reads whole tiles.
    descriptors = keep is None and launch.has_descriptors(family) and launch.can_describe(tensors)
    constants = {
        "BLOCK_Q": tiles.queries, "BLOCK_K": tiles.keys, "DIM": dim, "WIDTH": width, "LEFT_EDGE": edge,
        "KEEP": keep is not None, "DESCRIPTORS": descriptors, "PRECISION": launch.precision(tensors[0].dtype, family),
        "num_warps": tiles.warps, "num_stages": tiles.stages,
    }  # fmt: skip
    if not descriptors:
        return _Plan(tiles, constants, tensors)
    queries = [launch.described(tensor, tiles.queries, dim) for tensor in by_query.values()]
    return _Plan(tiles, constants, queries + [launch.described(tensor, tiles.keys, dim) for tensor in by_key.values()])


def forward(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, left: int, right: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Answers [batch, length, heads, dim_head] and natural log-sum-exps [batch, heads, length], these in float32."""
    batch, length, heads, _ = q.shape
    dtype, (q, k, v) = q.dtype, (launch.readable(tensor) for tensor in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    plan = _plan("forward", {"q": q}, {"k": k, "v": v}, keep, left < length)
    byte_flags, keep_batch = launch.flags(keep, lse)
    launch.launch(
        forward_kernel, -(-length // plan.tiles.queries) * heads * batch, [
        *plan.sources, byte_flags, out, lse, *map(launch.strides_of, (q, k, v, out)), keep_batch,
        length, heads, heads // k.shape[2], left, right, scale * LOG2E,
        ], plan.constants,
    )  # fmt: skip
    return out.to(dtype), lse


flash_forward = torch.library.custom_op("genoattn::flash_forward", forward, mutates_args=())


@flash_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, left: int, right: int, scale: float):
    batch, length, heads, _ = q.shape
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(
        batch, heads, length, dtype=torch.float32
    )


def backward(
    dout: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, out: Tensor, lse: Tensor,
    left: int, right: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v, each in its own shape and dtype, contiguous."""
    batch, length, heads, width = q.shape
    kv_heads, dtype = k.shape[2], q.dtype
    q, k, v, out, dout = (launch.readable(tensor) for tensor in (q, k, v, out, dout))
    dlse, lse = dlse.contiguous(), lse.contiguous()
    delta = torch.empty(lse.shape, dtype=lse.dtype, device=lse.device)
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    byte_flags, keep_batch = launch.flags(keep, lse)
    strides = {name: launch.strides_of(t) for name, t in (("q", q), ("k", k), ("v", v), ("dout", dout))}
    block = launch.ROWS_OF_DELTA
    launch.launch(
        delta_kernel, -(-length // block) * heads * batch, [
        out, dout, dlse, byte_flags, delta, launch.strides_of(out), strides["dout"], keep_batch, length, heads,
        ], {"BLOCK": block, "DIM": power_of_two(width), "WIDTH": width, "KEEP": keep is not None},
    )  # fmt: skip
    plan = _plan("dq", {"q": q, "dout": dout}, {"k": k, "v": v}, keep, left < length)
    q_read, dout_read, k_read, v_read = plan.sources
    launch.launch(
        dq_kernel, -(-length // plan.tiles.queries) * heads * batch, [
        q_read, k_read, v_read, byte_flags, dout_read, lse, delta, dq,
        *strides.values(), launch.strides_of(dq), keep_batch,
        length, heads, heads // kv_heads, left, right, scale * LOG2E,
        ], plan.constants,
    )  # fmt: skip
    plan = _plan("dkv", {"q": q, "dout": dout}, {"k": k, "v": v}, keep, right < length)
    q_read, dout_read, k_read, v_read = plan.sources
    launch.launch(
        dkv_kernel, -(-length // plan.tiles.keys) * kv_heads * batch, [
        q_read, k_read, v_read, byte_flags, dout_read, lse, delta, dk, dv,
        *strides.values(), launch.strides_of(dk), launch.strides_of(dv), keep_batch,
        length, kv_heads, heads // kv_heads, left, right, scale * LOG2E,
        ], plan.constants,
    )  # fmt: skip
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


flash_backward = torch.library.custom_op("genoattn::flash_backward", backward, mutates_args=())


@flash_backward.register_fake
def _(
    dout: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, out: Tensor, lse: Tensor,
    left: int, right: int, scale: float,
):  # fmt: skip
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))


def _remember(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    q, k, v, keep, *ctx.numbers = inputs
    ctx.save_for_backward(q, k, v, keep, *output)


def _gradients(ctx: Any, dout: Tensor, dlse: Tensor):
    q, k, v, keep, out, lse = ctx.saved_tensors
    return *flash_backward(dout, dlse, q, k, v, keep, out, lse, *ctx.numbers), None, None, None, None


flash_forward.register_autograd(_gradients, setup_context=_remember)
