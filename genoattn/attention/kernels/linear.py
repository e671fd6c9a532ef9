"""Linear attention by sums over chunks, causal or both ways, with optional decay, as a torch operator."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.configurations import INTERPRETED_CHUNKS, Chunks, linear_chunks, power_of_two
from genoattn.attention.kernels.linear_kernels import (
    LinearConstants,
    answers_kernel,
    dk_chunk_kernel,
    dq_chunk_kernel,
    dv_chunk_kernel,
    scan_kernel,
    states_kernel,
)
from genoattn.errors import UserError

SCAN_BLOCK = 256


WIDEST = 128


def linear_attention(
    q: Float[Tensor, "batch length heads features"],
    k: Float[Tensor, "batch length heads features"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    log_decay: Float[Tensor, "heads"] | None = None,
    epsilon: float = 1e-6,
) -> Float[Tensor, "batch length heads dim_value"]:
    """Linear attention sum_j w_ij (q_i·k_j) v_j / sum_j w_ij q_i·k_j, with w_ij = exp(log_decay |i - j|) or 1.

    Args:
        q: Queries after the feature map, all positive.
        k: Keys after the feature map, all positive.
        v: Values.
        causal: Sum over j ≤ i only, not over all j.
        padding_mask: True for real tokens; padding is not read and gives 0.
        log_decay: Logarithm of the decay per token of each head, 0 or less; it gets no gradient.
        epsilon: Least denominator for each visible token.
    """
    numerators, denominators = linear_sums(q, k, v, causal=causal, padding_mask=padding_mask, log_decay=log_decay)
    if padding_mask is None:
        visible = torch.arange(1, q.shape[1] + 1, device=q.device)[None] if causal else q.shape[1]
    else:
        visible = (padding_mask.cumsum(1) if causal else padding_mask.sum(1, keepdim=True)).clamp_min(1)
    least = epsilon * (visible[..., None] if isinstance(visible, Tensor) else torch.tensor(visible, device=q.device))
    return (numerators / torch.maximum(denominators, least)[..., None]).to(v.dtype)


def linear_sums(
    q: Float[Tensor, "batch length heads features"],
    k: Float[Tensor, "batch length heads features"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    log_decay: Float[Tensor, "heads"] | None = None,
) -> tuple[Float[Tensor, "batch length heads dim_value"], Float[Tensor, "batch length heads"]]:
    """Numerators and denominators of `linear_attention` in float32, not yet divided; both have gradients.

    Padding, False in `padding_mask`, is not read and gives 0 for both.
    """
    launch.check_dtypes({"q": q, "k": k, "v": v})
    launch.check_device(q)
    if q.shape != k.shape or v.shape[:3] != q.shape[:3] or max(q.shape[3], v.shape[3]) > WIDEST:
        raise UserError(
            f"q and k must have one shape and v their batch, length and heads, none wider than {WIDEST} channels, got "
            f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        )
    if not 1 <= q.shape[1] <= launch.LONGEST:
        raise UserError(f"length must be from 1 to {launch.LONGEST}, got {q.shape[1]}")
    if padding_mask is not None and padding_mask.shape != q.shape[:2]:
        raise UserError(f"padding_mask must be {list(q.shape[:2])} as q is, got {list(padding_mask.shape)}")
    if log_decay is not None and (log_decay.shape != q.shape[2:3] or log_decay.requires_grad):
        raise UserError(
            f"log_decay must be a number for each of {q.shape[2]} heads and ask for no gradient, got "
            f"{list(log_decay.shape)}, requires_grad={log_decay.requires_grad}"
        )
    return linear_forward(q, k, v, padding_mask, log_decay, causal)


class _Setting(NamedTuple):
    """Values that all kernels of one call share."""

    chunks: Chunks
    count: int
    byte_flags: Tensor
    mask_stride: int
    log_decay: Tensor
    constants: LinearConstants

    @property
    def options(self) -> dict[str, Any]:
        """Constants and options of the compiler."""
        return {"C": self.constants, "num_warps": self.chunks.warps, "num_stages": 1}

    @property
    def total(self) -> bool:
        """True if all tokens read the same sum."""
        return self.constants.TOTAL


def _setting(q: Tensor, v: Tensor, padding_mask: Tensor | None, log_decay: Tensor | None, causal: bool) -> _Setting:
    family = launch.family(q.device)
    widths = power_of_two(q.shape[-1]), power_of_two(v.shape[-1])
    chunks = INTERPRETED_CHUNKS if launch.INTERPRETED else linear_chunks(family, max(widths), q.element_size())
    byte_flags, mask_stride = launch.flags(padding_mask, q)
    constants = LinearConstants(
        CHUNK=chunks.tokens,
        M=q.shape[-1],
        D=v.shape[-1],
        DIM_M=widths[0],
        DIM_D=widths[1],
        CAUSAL=causal,
        TOTAL=not causal and log_decay is None,
        DECAY=log_decay is not None,
        PADDED=padding_mask is not None,
        PRECISION=launch.precision(q.dtype, family, halves="tf32"),
    )
    decay = q if log_decay is None else log_decay.float().contiguous()
    return _Setting(chunks, -(-q.shape[1] // chunks.tokens), byte_flags, mask_stride, decay, constants)


def _states(setting: _Setting, k: Tensor, v: Tensor, weights: Tensor | None, backward: bool) -> tuple[Tensor, Tensor]:
    """Sums of k vᵀ and of k (weighted) over all chunks before each, or with `backward` after each, or in total."""
    batch, length, heads, features = k.shape
    shape = (batch, heads, setting.count, features)
    matrices = torch.empty(*shape, v.shape[-1], dtype=torch.float32, device=k.device)
    vectors = torch.empty(shape, dtype=torch.float32, device=k.device)
    # The sums do not depend on these two, so that one compiled kernel serves all their values.
    constants = setting.constants._replace(CAUSAL=False, TOTAL=False)
    options = {**setting.options, "C": constants, "WEIGHTS": weights is not None, "BACKWARD": backward}
    tensors = [k, v, vectors if weights is None else weights, setting.byte_flags, setting.log_decay, matrices, vectors]
    strides = launch.strides_of(k), launch.strides_of(v), setting.mask_stride
    arguments = [*tensors, strides, (length, heads, setting.count)]
    launch.launch(states_kernel, setting.count * heads * batch, arguments, options)
    if setting.total:
        return matrices.sum(2), vectors.sum(2)
    for sums, size in ((matrices, features * v.shape[-1]), (vectors, features)):
        arguments = [sums, setting.log_decay, (heads, setting.count, size)]
        options = {"CHUNK": constants.CHUNK, "BLOCK": SCAN_BLOCK, "BACKWARD": backward, "DECAY": constants.DECAY}
        launch.launch(scan_kernel, -(-size // SCAN_BLOCK) * heads * batch, arguments, options)
    return matrices, vectors


def _both(
    setting: _Setting, k: Tensor, v: Tensor, weights: Tensor | None, backward: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States of the earlier chunks (with `backward` of the later), then those of the other side if they are read."""
    near = _states(setting, k, v, weights, backward)
    one_sided = setting.constants.CAUSAL or setting.total
    return *near, *(near if one_sided else _states(setting, k, v, weights, not backward))


def forward(
    q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, log_decay: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Numerators [batch, length, heads, dim_value] and denominators [batch, length, heads] in float32."""
    batch, length, heads, _ = q.shape
    q, k, v = (launch.readable(tensor) for tensor in (q, k, v))
    setting = _setting(q, v, padding_mask, log_decay, causal)
    numerators = torch.empty(*q.shape[:3], v.shape[-1], dtype=torch.float32, device=q.device)
    denominators = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    strides = (*map(launch.strides_of, (q, k, v, numerators)), setting.mask_stride)
    arguments = [q, k, v, setting.byte_flags, setting.log_decay, _both(setting, k, v, None, False)]
    arguments += [numerators, denominators, strides, (length, heads, setting.count)]
    launch.launch(answers_kernel, setting.count * heads * batch, arguments, setting.options)
    return numerators, denominators


def backward(
    g: Tensor,
    h: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding_mask: Tensor | None,
    log_decay: Tensor | None,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from those of the numerators and the denominators; the sums are computed again."""
    batch, length, heads, _ = q.shape
    dtype, (q, k, v) = q.dtype, (launch.readable(tensor) for tensor in (q, k, v))
    g, h = launch.readable(g), h.contiguous()
    setting = _setting(q, v, padding_mask, log_decay, causal)
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    programs, sizes = setting.count * heads * batch, (length, heads, setting.count)
    masks = [setting.byte_flags, setting.log_decay]
    strides = (*map(launch.strides_of, (k, v, g, dq)), setting.mask_stride)
    arguments = [q, k, v, g, h, *masks, _both(setting, k, v, None, False), dq, strides, sizes]
    launch.launch(dq_chunk_kernel, programs, arguments, setting.options)
    states = _both(setting, q, g, h, True)
    strides = (*map(launch.strides_of, (q, v, g, dk)), setting.mask_stride)
    arguments = [q, v, g, h, *masks, states, dk, strides, sizes]
    launch.launch(dk_chunk_kernel, programs, arguments, setting.options)
    strides = (*map(launch.strides_of, (q, k, g, dv)), setting.mask_stride)
    arguments = [q, k, g, *masks, states, dv, strides, sizes]
    launch.launch(dv_chunk_kernel, programs, arguments, setting.options)
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


linear_forward = torch.library.custom_op("genoattn::linear_forward", forward, mutates_args=())


linear_backward = torch.library.custom_op("genoattn::linear_backward", backward, mutates_args=())


@linear_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, log_decay: Tensor | None, causal: bool):
    shape = (q.shape[0], q.shape[1], q.shape[2])
    return q.new_empty(*shape, v.shape[-1], dtype=torch.float32), q.new_empty(shape, dtype=torch.float32)


@linear_backward.register_fake
def _(
    g: Tensor,
    h: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding_mask: Tensor | None,
    log_decay: Tensor | None,
    causal: bool,
):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, g: Tensor, h: Tensor):
    return *linear_backward(g, h, *ctx.saved_tensors, ctx.causal), None, None, None


linear_forward.register_autograd(_gradients, setup_context=_save_for_backward)
