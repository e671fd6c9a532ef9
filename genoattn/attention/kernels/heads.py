"""Norm and rotation of queries and keys by head, as one torch operator."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.heads_kernels import HeadsConstants, heads_backward_kernel, heads_forward_kernel
from genoattn.errors import UserError

WIDEST = 256
"""Channels of a head."""

TILE = 1024
"""Numbers of each half of a head that a program computes at a time: about eight a thread."""

PROGRAMS = 1024
"""Programs from which one computes all heads of its tokens; with fewer, each computes one head."""

WARPS = 4


def turned_heads(
    x: Float[Tensor, "batch length heads channels"],
    log_scale: Float[Tensor, "heads"] | None = None,
    turned: tuple[Tensor, Tensor] | None = None,
    *,
    norm: bool = True,
    factor: float = 1.0,
) -> Float[Tensor, "batch length heads channels"]:
    """`x / rms(x) * exp(log_scale / 2) * factor` by head, then rotated; computed in float32, in the dtype of `x`.

    Args:
        x: Queries or keys. A head of zeros stays zero.
        log_scale: Logarithm of the mean square of the outputs of each head (None: 0); it needs `norm`.
        turned: Cosine and sine of the angle of each channel pair (c, c + channels / 2), both float32
            `[1 or batch, length, 1, channels / 2]` (None: no rotation).
        norm: False: without the division by the root mean square.
        factor: Factor of the outputs.

    Raises:
        UserError: Shapes, dtypes or a device that the kernel does not support.
    """
    heads = x.shape[2]
    check(x, turned)
    if log_scale is not None and (not norm or log_scale.shape != (heads,)):
        raise UserError(f"log_scale must be [{heads}], with norm=True, got {list(log_scale.shape)} and norm={norm}")
    cos, sin = (None, None) if turned is None else turned
    return heads_forward(x, log_scale, cos, sin, norm, factor)[0]


def check(x: Tensor, turned: tuple[Tensor, Tensor] | None) -> None:
    """Raise a UserError unless the kernels know such heads and angles."""
    launch.check_dtypes({"x": x})
    launch.check_device(x)
    batch, length, _, width = x.shape
    if not 1 <= width <= WIDEST or not 1 <= length <= launch.LONGEST:
        raise UserError(
            f"x must have from 1 to {WIDEST} channels and from 1 to {launch.LONGEST} tokens, got {list(x.shape)}"
        )
    for angles in turned or ():
        fits = angles.shape[1:] == (length, 1, width // 2) and len(angles) in (1, batch) and width % 2 == 0
        if not fits or angles.dtype != torch.float32:
            raise UserError(
                f"the angles of x {list(x.shape)} must be float32 [1 or {batch}, {length}, 1, {width // 2}], got "
                f"{list(angles.shape)} in {angles.dtype}"
            )


def tile(width: int) -> tuple[int, int, int, int]:
    """Tokens of a block, channels, and those of the first half, also as a power of two."""
    half = -(-width // 2)
    dim = max(16, 1 << (half - 1).bit_length())
    return max(1, TILE // dim), width, half, dim


def _constants(x: Tensor, log_scale: Tensor | None, cos: Tensor | None, norm: bool) -> dict[str, Any]:
    fixed = HeadsConstants(*tile(x.shape[-1]), norm, log_scale is not None, cos is not None)
    return {"C": fixed, "num_warps": WARPS, "num_stages": 1}


def programs_of(x: Tensor, rows: int) -> tuple[int, int, int]:
    """Programs of a launch, the heads of each, and blocks of tokens of all sequences."""
    batch, length, heads, _ = x.shape
    blocks = -(-length // rows) * batch
    group = heads if blocks >= PROGRAMS else 1
    return blocks * -(-heads // group), group, blocks


def angles(cos: Tensor | None, sin: Tensor | None, stand_in: Tensor) -> tuple[Tensor, Tensor, int]:
    """Cosine and sine, contiguous, and the stride of their sequences; without them `stand_in`, which is not read."""
    if cos is None or sin is None:
        return stand_in, stand_in, 0
    return cos.contiguous(), sin.contiguous(), 0 if len(cos) == 1 else cos.shape[1] * cos.shape[3]


def forward(
    x: Tensor, log_scale: Tensor | None, cos: Tensor | None, sin: Tensor | None, norm: bool, factor: float
) -> tuple[Tensor, Tensor]:
    """Outputs, contiguous, and the factor of each head [batch, length, heads] in float32 (empty without a norm)."""
    dtype, x = x.dtype, launch.readable(x)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    gain = torch.empty(x.shape[:3] if norm else (0,), dtype=torch.float32, device=x.device)
    constants = _constants(x, log_scale, cos, norm)
    programs, group, _ = programs_of(x, constants["C"].ROWS)
    cosine, sine, angle_stride = angles(cos, sin, x)
    strides = launch.strides_of(x), launch.strides_of(y), angle_stride
    scale = x if log_scale is None else launch.readable(log_scale)
    arguments = [x, scale, cosine, sine, y, gain, strides, (x.shape[1], x.shape[2], group), factor]
    launch.launch(heads_forward_kernel, programs, arguments, constants)
    return y.to(dtype), gain


heads_forward = torch.library.custom_op("genoattn::heads_forward", forward, mutates_args=())


@heads_forward.register_fake
def _(x: Tensor, log_scale: Tensor | None, cos: Tensor | None, sin: Tensor | None, norm: bool, factor: float):
    gain = x.new_empty(x.shape[:3] if norm else (0,), dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), gain


def backward(
    dy: Tensor,
    y: Tensor | None,
    gain: Tensor,
    log_scale: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    factor: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of x, contiguous, and of log_scale (empty without one); without a norm no y is needed."""
    dtype, dy = dy.dtype, launch.readable(dy)
    y = dy if y is None else launch.readable(y)
    dx = torch.empty(dy.shape, dtype=dy.dtype, device=dy.device)
    constants = _constants(dy, log_scale, cos, gain.numel() > 0)
    programs, group, blocks = programs_of(dy, constants["C"].ROWS)
    along = torch.empty(blocks if log_scale is not None else 0, dy.shape[2], dtype=torch.float32, device=dy.device)
    cosine, sine, angle_stride = angles(cos, sin, dy)
    strides = launch.strides_of(dy), launch.strides_of(dx), angle_stride
    scale = dy if log_scale is None else launch.readable(log_scale)
    arguments = [dy, y, gain, scale, cosine, sine, dx, along, strides, (dy.shape[1], dy.shape[2], group), factor]
    launch.launch(heads_backward_kernel, programs, arguments, constants)
    dscale = along if log_scale is None else along.sum(0).div_(2).to(log_scale.dtype)
    return dx.to(dtype), dscale


heads_backward = torch.library.custom_op("genoattn::heads_backward", backward, mutates_args=())


@heads_backward.register_fake
def _(
    dy: Tensor,
    y: Tensor | None,
    gain: Tensor,
    log_scale: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    factor: float,
):
    scale = dy.new_empty(0, dy.shape[2], dtype=torch.float32) if log_scale is None else torch.empty_like(log_scale)
    return torch.empty_like(dy, memory_format=torch.contiguous_format), scale


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    _, log_scale, cos, sin, norm, ctx.factor = inputs
    y, gain = output
    ctx.mark_non_differentiable(gain)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y if norm else None, gain, log_scale, cos, sin)


def _gradients(ctx: Any, dy: Tensor, _: Tensor):
    y, gain, log_scale, cos, sin = ctx.saved_tensors
    if dy is None:
        return None, None, None, None, None, None
    dx, dscale = heads_backward(dy, y, gain, log_scale, cos, sin, ctx.factor)
    return dx, None if log_scale is None else dscale, None, None, None, None


heads_forward.register_autograd(_gradients, setup_context=_save_for_backward)
