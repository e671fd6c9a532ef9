"""The gated delta rule from an empty state, from left to right, as a torch operator."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.kernels import WIDEST, launch
from genoattn.attention.kernels.configurations import power_of_two
from genoattn.attention.kernels.delta_kernels import (
    recur_back_kernel,
    recur_kernel,
    solve_kernel,
    system_kernel,
    unsolve_kernel,
)
from genoattn.attention.kernels.linear import Setting, setting_of
from genoattn.attention.kernels.linear_gradients import dk_kernel, dlog_kernel, dq_kernel, dv_kernel
from genoattn.attention.kernels.linear_kernels import answers_kernel
from genoattn.errors import UserError

CARRIED = 16
"""Channels of a state that a program carries from chunk to chunk: few, for there are as many programs as blocks."""


def delta_rule(
    q: Float[Tensor, "batch length heads dim_key"],
    k: Float[Tensor, "batch length heads dim_key"],
    v: Float[Tensor, "batch length heads dim_value"],
    write: Float[Tensor, "batch length heads"],
    log_kept: Float[Tensor, "batch length heads"],
    own: bool = True,
) -> Float[Tensor, "batch length heads dim_value"]:
    """y_t = S_tᵀ q_t in float32 with S_t = a_t (I - b_t k_t k_tᵀ) S_{t-1} + b_t k_t v_tᵀ; all tensors have gradients.

    Args:
        q: Queries.
        k: Keys of length 1.
        v: Values.
        write: b_t, the write strength of each token, in float32.
        log_kept: Logarithm of a_t, the decay of each token, finite and 0 or less, in float32.
        own: A token reads the state after its own update; else the one before its decay and its update.

    Raises:
        UserError: Shapes, dtypes or a device that the kernel does not support.
    """
    launch.check_tokens(q, k, v, WIDEST["delta"])
    for name, tensor in {"write": write, "log_kept": log_kept}.items():
        if tensor.shape != q.shape[:3] or tensor.dtype != torch.float32:
            raise UserError(f"{name} must be float32 {list(q.shape[:3])}, got {list(tensor.shape)} in {tensor.dtype}")
    return delta_forward(q, k, v, write, log_kept, own)


class _Solved(NamedTuple):
    """The systems of all chunks and what the states make of them; names as in `delta_kernels`."""

    u: Tensor
    w: Tensor
    solved: Tensor
    states: Tensor
    values: Tensor


def _setting(q: Tensor, v: Tensor, log_kept: Tensor, own: bool) -> tuple[Setting, float]:
    """The values that all kernels share, and the lead of queries, which read their own decay only with their update."""
    setting = setting_of(q, v, None, log_kept, True, False, least=64)
    exact = "ieee" if launch.family(q.device).startswith("gfx") else "tf32x3"
    return setting._replace(constants=setting.constants._replace(STRICT=not own, EXACT=exact)), 0.0 if own else -1.0


def _carried(setting: Setting) -> tuple[dict[str, Any], int]:
    """Options and programs of kernels that carry states from chunk to chunk."""
    fixed, (*_, chunks, states) = setting.constants, setting.sizes
    options = {"C": fixed._replace(BLOCK_M=power_of_two(fixed.M), BLOCK_D=CARRIED), "num_warps": 4, "num_stages": 1}
    return options, states // chunks * -(-fixed.D // CARRIED)


def _solve(setting: Setting, k: Tensor, v: Tensor, write: Tensor) -> _Solved:
    batch, length, heads, _ = k.shape
    fixed = setting.constants

    def empty(channels: int) -> Tensor:
        return torch.empty(batch, length, heads, channels, dtype=torch.float32, device=k.device)

    u, w, solved, values = empty(fixed.D), empty(fixed.M), empty(fixed.CHUNK), empty(fixed.D)
    tensors = [k, v, write, setting.log_decay, u, w, solved]
    launch.launch(
        solve_kernel,
        setting.programs,
        [*tensors, setting.strides(k, v, u, w, solved), setting.sizes],
        setting.spread,
    )
    states = torch.empty(1, batch, heads, setting.sizes[2], fixed.SIZE, dtype=torch.float32, device=k.device)
    options, programs = _carried(setting)
    arguments = [k, u, w, setting.log_decay, states, values, setting.strides(k, u, w, values), setting.sizes]
    launch.launch(recur_kernel, programs, arguments, options)
    return _Solved(u, w, solved, states, values)


def forward(q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor, own: bool) -> Tensor:
    """The output of each token, in float32."""
    (q, k, v), write = (launch.readable(tensor) for tensor in (q, k, v)), write.contiguous()
    setting, lead = _setting(q, v, log_kept, own)
    *_, states, values = _solve(setting, k, v, write)
    y = torch.empty(v.shape, dtype=torch.float32, device=q.device)
    arguments = [q, k, values, q, setting.log_decay, states, y, y, setting.strides(q, k, values, y)]
    launch.launch(
        answers_kernel, setting.programs * setting.blocks[1], [*arguments, setting.sizes, lead], setting.options
    )
    return y


def backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor, own: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, write and log_kept; systems and states are computed again."""
    dtype, (q, k, v), write = q.dtype, (launch.readable(tensor) for tensor in (q, k, v)), write.contiguous()
    g = launch.readable(g)
    setting, lead = _setting(q, v, log_kept, own)
    u, w, solved, states, values = _solve(setting, k, v, write)
    dvalues, p, r, dk = (torch.empty_like(t) for t in (values, values, w, w))
    dq, dv, upstream = (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        torch.empty_like(values),
        torch.empty_like(states),
    )
    dwrite, dlog = (torch.empty(q.shape[:3], dtype=torch.float32, device=q.device) for _ in range(2))
    (m_blocks, d_blocks), ends, decay = setting.blocks, (setting.sizes, lead), setting.log_decay
    arguments = [q, k, g, q, decay, states, dvalues, setting.strides(q, k, g, dvalues), *ends]
    launch.launch(dv_kernel, setting.programs * d_blocks, arguments, {**setting.options, "FAR": False})
    options, programs = _carried(setting)
    arguments = [q, k, w, g, decay, dvalues, upstream, setting.strides(q, k, w, g, dvalues), *ends]
    launch.launch(recur_back_kernel, programs, arguments, options)
    arguments = [q, k, values, g, g, q, decay, states, dq, setting.strides(k, values, g, dq), *ends]
    launch.launch(dq_kernel, setting.programs * m_blocks, arguments, setting.options)
    arguments = [q, values, g, g, q, decay, upstream, dk, setting.strides(q, values, g, dk), *ends]
    launch.launch(dk_kernel, setting.programs * m_blocks, arguments, setting.options)
    arguments = [q, k, values, g, g, q, decay, states, upstream, dlog, setting.strides(q, k, values, g), *ends]
    launch.launch(dlog_kernel, setting.programs, arguments, setting.spread)
    arguments = [write, solved, states, dvalues, p, r, dv, setting.strides(solved, dvalues, p, r, dv), setting.sizes]
    launch.launch(unsolve_kernel, setting.programs, arguments, setting.options)
    arguments = [k, v, write, decay, u, w, p, r, dk, dwrite, dlog, setting.strides(k, v, u, w, p, r, dk), setting.sizes]
    launch.launch(system_kernel, setting.programs, arguments, setting.spread)
    return dq.to(dtype), dk.to(dtype), dv.to(dtype), dwrite, dlog


delta_forward = torch.library.custom_op("genoattn::delta_forward", forward, mutates_args=())


delta_backward = torch.library.custom_op("genoattn::delta_backward", backward, mutates_args=())


@delta_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor, own: bool):
    return torch.empty_like(v, dtype=torch.float32, memory_format=torch.contiguous_format)


@delta_backward.register_fake
def _(g: Tensor, q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor, own: bool):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v, write, log_kept))


def _save_for_backward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.own = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, g: Tensor):
    return *delta_backward(g, *ctx.saved_tensors, ctx.own), None


delta_forward.register_autograd(_gradients, setup_context=_save_for_backward)
