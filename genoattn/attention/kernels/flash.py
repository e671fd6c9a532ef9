"""Exact softmax attention without a stored score matrix: full, causal or windowed, as torch operators."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.configurations import INTERPRETED, Tiles, flash_tiles, power_of_two
from genoattn.attention.kernels.flash_backward import delta_kernel, dkv_kernel, dq_kernel
from genoattn.attention.kernels.flash_forward import FlashConstants, forward_kernel
from genoattn.attention.kernels.tiles import IS_KEY as KEY_BIT
from genoattn.attention.kernels.tiles import IS_QUERY as QUERY_BIT
from genoattn.errors import UserError

LOG2E = 1.4426950408889634


WIDTHS = (1, 128)


IS_KEY, IS_QUERY = KEY_BIT.value, QUERY_BIT.value


def flash_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length kv_heads dim_head"],
    v: Float[Tensor, "batch length kv_heads dim_head"],
    *,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    key_mask: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention of token i over tokens i - left to i + right.

    Args:
        q: Queries. Their heads may be a multiple of the key heads: query head h reads key head h // (heads / kv_heads).
        k: Keys.
        v: Values.
        causal: Hide the tokens to the right of i.
        window: (left, right) in tokens, both included; None for no bound.
        padding_mask: True for real tokens. Padding is not read (it may hold NaN), gives 0 and has no gradient.
        key_mask: True for the keys to read, if not all real tokens.
        scale: Factor of the scores q·k, 1 / sqrt(dim_head) by default.
        return_lse: Also return the log-sum-exp of the scores of each query, with its gradient.

    Returns:
        The output [batch, length, heads, dim_head], and with `return_lse` the natural log-sum-exp [batch, heads,
        length], -inf for a query without a visible key. Outputs over disjoint keys merge exactly by it.

    Raises:
        UserError: Shapes, dtypes, device or settings that the kernel does not support.
    """
    for mask in (padding_mask, key_mask):
        _check(q, k, v, mask)
    left, right = _sides(q.shape[1], causal, window)
    factor = float(q.shape[-1] ** -0.5 if scale is None else scale)
    if not factor > 0:
        raise UserError(f"scale must be above 0, got {scale}")
    out, lse = flash_forward(q, k, v, _marks(padding_mask, key_mask), left, right, factor)
    return (out, lse) if return_lse else out


def _check(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None) -> None:
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
    if padding_mask is not None and padding_mask.shape != (batch, length):
        raise UserError(f"padding_mask must be [{batch}, {length}] as q is, got {list(padding_mask.shape)}")


def _marks(padding_mask: Tensor | None, key_mask: Tensor | None) -> Tensor | None:
    """A byte for each token, the sum of IS_KEY and IS_QUERY, as the kernels read it; None if all are both."""
    if key_mask is None:
        return None if padding_mask is None else padding_mask.byte() * (IS_KEY + IS_QUERY)
    queries = torch.ones_like(key_mask) if padding_mask is None else padding_mask
    return key_mask.byte() * IS_KEY + queries.byte() * IS_QUERY


def _sides(length: int, causal: bool, window: tuple[int | None, int | None] | None) -> tuple[int, int]:
    """Visible tokens to the left and to the right of a token, at most the length of the sequence."""
    left, right = (length if side is None else side for side in window or (None, None))
    if left < 0 or right < 0:
        raise UserError(f"window must be a pair of 0 or more tokens, or None for no bound, got {window}")
    return min(left, length), 0 if causal else min(right, length)


class _Setup(NamedTuple):
    """Tiles of one kernel, the constants that it is compiled for, its inputs as pointers or descriptors."""

    tiles: Tiles
    constants: dict[str, Any]
    sources: Sequence[Tensor | TensorDescriptor]


def _setup(
    kernel: str, by_query: Sequence[Tensor], by_key: Sequence[Tensor], padding_mask: Tensor | None, edge: bool
) -> _Setup:
    """Setup of a kernel that reads the tensors of `by_query` in query tiles and those of `by_key` in key tiles.

    `edge` is true if the window is bounded on its far side, so that the tiles there need a mask.
    """
    tensors = [*by_query, *by_key]
    width, family = tensors[0].shape[-1], launch.family(tensors[0].device)
    dim = power_of_two(width)
    tiles = INTERPRETED if launch.INTERPRETED else flash_tiles(kernel, family, dim, tensors[0].element_size())
    # Padding must not be read, and a descriptor reads whole tiles.
    descriptors = padding_mask is None and launch.has_descriptors(family) and launch.can_describe(tensors)
    precision = launch.precision(tensors[0].dtype, family)
    padded = padding_mask is not None
    fixed = FlashConstants(tiles.queries, tiles.keys, dim, width, edge, padded, descriptors, precision)
    constants = {"C": fixed, "num_warps": tiles.warps, "num_stages": tiles.stages}
    if not descriptors:
        return _Setup(tiles, constants, tensors)
    queries = [launch.described(tensor, tiles.queries, dim) for tensor in by_query]
    return _Setup(tiles, constants, queries + [launch.described(tensor, tiles.keys, dim) for tensor in by_key])


def forward(
    q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, left: int, right: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Outputs [batch, length, heads, dim_head] and natural log-sum-exps [batch, heads, length], these in float32."""
    batch, length, heads, _ = q.shape
    dtype, (q, k, v) = q.dtype, (launch.readable(tensor) for tensor in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    setup = _setup("forward", [q], [k, v], padding_mask, left < length)
    byte_flags, mask_stride = launch.flags(padding_mask, lse)
    strides, sizes = (*map(launch.strides_of, (q, k, v, out)), mask_stride), (length, heads, heads // k.shape[2])
    programs = -(-length // setup.tiles.queries) * heads * batch
    arguments = [*setup.sources, byte_flags, out, lse, strides, sizes, left, right, scale * LOG2E]
    launch.launch(forward_kernel, programs, arguments, setup.constants)
    return out.to(dtype), lse


flash_forward = torch.library.custom_op("genoattn::flash_forward", forward, mutates_args=())


@flash_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, left: int, right: int, scale: float):
    batch, length, heads, _ = q.shape
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(
        batch, heads, length, dtype=torch.float32
    )


def row_deltas(out: Tensor, dout: Tensor, dlse: Tensor, padding_mask: Tensor | None) -> Tensor:
    """delta = rowsum(dO ∘ O) - dlse [batch, heads, length], which the gradients of the scores need."""
    batch, length, heads, width = out.shape
    delta = torch.empty(dlse.shape, dtype=dlse.dtype, device=dlse.device)
    byte_flags, mask_stride = launch.flags(padding_mask, dlse)
    strides = launch.strides_of(out), launch.strides_of(dout), mask_stride
    rows = launch.ROWS_OF_DELTA
    constants = {"BLOCK": rows, "DIM": power_of_two(width), "WIDTH": width, "PADDED": padding_mask is not None}
    arguments = [out, dout, dlse, byte_flags, delta, strides, length, heads]
    launch.launch(delta_kernel, -(-length // rows) * heads * batch, arguments, constants)
    return delta


def backward(
    dout: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding_mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    left: int,
    right: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, each in its own shape and dtype, contiguous."""
    batch, length, heads, _ = q.shape
    kv_heads, dtype = k.shape[2], q.dtype
    q, k, v, out, dout = (launch.readable(tensor) for tensor in (q, k, v, out, dout))
    dlse, lse = dlse.contiguous(), lse.contiguous()
    delta = row_deltas(out, dout, dlse, padding_mask)
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    byte_flags, mask_stride = launch.flags(padding_mask, lse)
    strides = [launch.strides_of(tensor) for tensor in (q, k, v, dout)]
    window, group = (left, right, scale * LOG2E), heads // kv_heads
    setup = _setup("dq", [q, dout], [k, v], padding_mask, left < length)
    q_source, dout_source, k_source, v_source = setup.sources
    arguments = [q_source, k_source, v_source, byte_flags, dout_source, lse, delta, dq]
    arguments += [(*strides, launch.strides_of(dq), mask_stride), (length, heads, group), *window]
    launch.launch(dq_kernel, -(-length // setup.tiles.queries) * heads * batch, arguments, setup.constants)
    setup = _setup("dkv", [q, dout], [k, v], padding_mask, right < length)
    q_source, dout_source, k_source, v_source = setup.sources
    arguments = [q_source, k_source, v_source, byte_flags, dout_source, lse, delta, dk, dv]
    dkv_strides = (*strides, launch.strides_of(dk), launch.strides_of(dv), mask_stride)
    arguments += [dkv_strides, (length, kv_heads, group), *window]
    launch.launch(dkv_kernel, -(-length // setup.tiles.keys) * kv_heads * batch, arguments, setup.constants)
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


flash_backward = torch.library.custom_op("genoattn::flash_backward", backward, mutates_args=())


@flash_backward.register_fake
def _(
    dout: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding_mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    left: int,
    right: int,
    scale: float,
):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    q, k, v, padding_mask, *ctx.numbers = inputs
    ctx.save_for_backward(q, k, v, padding_mask, *output)


def _gradients(ctx: Any, dout: Tensor, dlse: Tensor):
    q, k, v, padding_mask, out, lse = ctx.saved_tensors
    return *flash_backward(dout, dlse, q, k, v, padding_mask, out, lse, *ctx.numbers), None, None, None, None


flash_forward.register_autograd(_gradients, setup_context=_save_for_backward)
