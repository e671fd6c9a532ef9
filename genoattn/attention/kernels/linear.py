"""Linear attention by sums over chunks, causal or both ways, with optional decay, as a torch operator."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.configurations import INTERPRETED_CHUNKS, Chunks, linear_chunks, power_of_two
from genoattn.attention.kernels.linear_kernels import (
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
    keep: Bool[Tensor, "batch length"] | None = None,
    log_decay: Float[Tensor, "heads"] | None = None,
    epsilon: float = 1e-6,
) -> Float[Tensor, "batch length heads dim_value"]:
    """sum_j w_ij (q_i·k_j) v_j / sum_j w_ij q_i·k_j over all j, or over j ≤ i; q and k are positive features already.

    w_ij is exp(log_decay |i - j|) by head, or 1. The denominator is at least `epsilon` for each token seen.
    """
    numerators, denominators = linear_sums(q, k, v, causal=causal, keep=keep, log_decay=log_decay)
    if keep is None:
        seen = torch.arange(1, q.shape[1] + 1, device=q.device)[None] if causal else q.shape[1]
    else:
        seen = (keep.cumsum(1) if causal else keep.sum(1, keepdim=True)).clamp_min(1)
    least = epsilon * (seen[..., None] if isinstance(seen, Tensor) else torch.tensor(seen, device=q.device))
    return (numerators / torch.maximum(denominators, least)[..., None]).to(v.dtype)


def linear_sums(
    q: Float[Tensor, "batch length heads features"],
    k: Float[Tensor, "batch length heads features"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    keep: Bool[Tensor, "batch length"] | None = None,
    log_decay: Float[Tensor, "heads"] | None = None,
) -> tuple[Float[Tensor, "batch length heads dim_value"], Float[Tensor, "batch length heads"]]:
    """Numerators and denominators of `linear_attention` in float32, not yet divided; both have gradients.

    At padding, False in `keep`, nothing is read and both are 0. `log_decay` must be 0 or less and gets no gradient.
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
    if keep is not None and keep.shape != q.shape[:2]:
        raise UserError(f"keep must be {list(q.shape[:2])} as q is, got {list(keep.shape)}")
    if log_decay is not None and (log_decay.shape != q.shape[2:3] or log_decay.requires_grad):
        raise UserError(
            f"log_decay must be a number for each of {q.shape[2]} heads and ask for no gradient, got "
            f"{list(log_decay.shape)}, requires_grad={log_decay.requires_grad}"
        )
    return linear_forward(q, k, v, keep, log_decay, causal)


class _Setting(NamedTuple):
    """What all kernels of one call share."""

    chunks: Chunks
    count: int
    byte_flags: Tensor
    keep_batch: int
    rate: Tensor
    constants: dict[str, Any]

    @property
    def total(self) -> bool:
        """True where every token reads one and the same sum."""
        return self.constants["TOTAL"]


def _setting(q: Tensor, v: Tensor, keep: Tensor | None, log_decay: Tensor | None, causal: bool) -> _Setting:
    family = launch.family(q.device)
    widths = power_of_two(q.shape[-1]), power_of_two(v.shape[-1])
    chunks = INTERPRETED_CHUNKS if launch.INTERPRETED else linear_chunks(family, max(widths), q.element_size())
    byte_flags, keep_batch = launch.flags(keep, q)
    rate = q if log_decay is None else log_decay.float().contiguous()
    constants = {
        "CHUNK": chunks.tokens, "M": q.shape[-1], "D": v.shape[-1], "DIM_M": widths[0], "DIM_D": widths[1],
        "CAUSAL": causal, "TOTAL": not causal and log_decay is None, "DECAY": log_decay is not None,
        "KEEP": keep is not None, "PRECISION": launch.precision(q.dtype, family, halves="tf32"),
        "num_warps": chunks.warps, "num_stages": 1,
    }  # fmt: skip
    return _Setting(chunks, -(-q.shape[1] // chunks.tokens), byte_flags, keep_batch, rate, constants)


def _states(setting: _Setting, k: Tensor, v: Tensor, weights: Tensor | None, backward: bool) -> tuple[Tensor, Tensor]:
    """Sums of k vᵀ and of k (weighted) over the chunks before each or, `backward`, after each; or over everything."""
    batch, length, heads, features = k.shape
    shape = (batch, heads, setting.count, features)
    matrices = torch.empty(*shape, v.shape[-1], dtype=torch.float32, device=k.device)
    vectors = torch.empty(shape, dtype=torch.float32, device=k.device)
    left_out = ("CAUSAL", "TOTAL")
    constants = {name: value for name, value in setting.constants.items() if name not in left_out}
    launch.launch(
        states_kernel, setting.count * heads * batch, [
        k, v, vectors if weights is None else weights, setting.byte_flags, setting.rate, matrices, vectors,
        launch.strides_of(k), launch.strides_of(v), setting.keep_batch, length, heads, setting.count,
        ], constants | {"WEIGHTS": weights is not None, "BACKWARD": backward},
    )  # fmt: skip
    if setting.total:
        return matrices.sum(2), vectors.sum(2)
    for sums, size in ((matrices, features * v.shape[-1]), (vectors, features)):
        launch.launch(
            scan_kernel, -(-size // SCAN_BLOCK) * heads * batch, [sums, setting.rate, heads, setting.count, size],
            {"CHUNK": setting.chunks.tokens, "BLOCK": SCAN_BLOCK, "BACKWARD": backward,
             "DECAY": setting.constants["DECAY"]},
        )  # fmt: skip
    return matrices, vectors


def _both(
    setting: _Setting, k: Tensor, v: Tensor, weights: Tensor | None, backward: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The states towards the past (the future, `backward`), and those on the other side where they are read."""
    near = _states(setting, k, v, weights, backward)
    one_sided = setting.constants["CAUSAL"] or setting.total
    return *near, *(near if one_sided else _states(setting, k, v, weights, not backward))


def forward(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, log_decay: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Numerators [batch, length, heads, dim_value] and denominators [batch, length, heads] in float32."""
    batch, length, heads, _ = q.shape
    q, k, v = (launch.readable(tensor) for tensor in (q, k, v))
    setting = _setting(q, v, keep, log_decay, causal)
    numerators = torch.empty(*q.shape[:3], v.shape[-1], dtype=torch.float32, device=q.device)
    denominators = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    launch.launch(
        answers_kernel, setting.count * heads * batch, [
        q, k, v, setting.byte_flags, setting.rate, *_both(setting, k, v, None, False), numerators, denominators,
        *map(launch.strides_of, (q, k, v, numerators)), setting.keep_batch, length, heads, setting.count,
        ], setting.constants,
    )  # fmt: skip
    return numerators, denominators


def backward(
    g: Tensor, h: Tensor, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, log_decay: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from those of the numerators and the denominators; the sums are taken anew."""
    batch, length, heads, _ = q.shape
    dtype, (q, k, v) = q.dtype, (launch.readable(tensor) for tensor in (q, k, v))
    g, h = launch.readable(g), h.contiguous()
    setting = _setting(q, v, keep, log_decay, causal)
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    programs, numbers = setting.count * heads * batch, [setting.keep_batch, length, heads, setting.count]
    launch.launch(
        dq_chunk_kernel, programs, [
        q, k, v, g, h, setting.byte_flags, setting.rate, *_both(setting, k, v, None, False), dq,
        *map(launch.strides_of, (k, v, g, dq)), *numbers,
        ], setting.constants,
    )  # fmt: skip
    later, later_vectors, earlier, earlier_vectors = _both(setting, q, g, h, True)
    launch.launch(
        dk_chunk_kernel, programs, [
        q, v, g, h, setting.byte_flags, setting.rate, later, later_vectors, earlier, earlier_vectors, dk,
        *map(launch.strides_of, (q, v, g, dk)), *numbers,
        ], setting.constants,
    )  # fmt: skip
    launch.launch(
        dv_chunk_kernel, programs, [
        q, k, g, setting.byte_flags, setting.rate, later, earlier, dv,
        *map(launch.strides_of, (q, k, g, dv)), *numbers,
        ], setting.constants,
    )  # fmt: skip
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


linear_forward = torch.library.custom_op("genoattn::linear_forward", forward, mutates_args=())


linear_backward = torch.library.custom_op("genoattn::linear_backward", backward, mutates_args=())


@linear_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, log_decay: Tensor | None, causal: bool):
    shape = (q.shape[0], q.shape[1], q.shape[2])
    return q.new_empty(*shape, v.shape[-1], dtype=torch.float32), q.new_empty(shape, dtype=torch.float32)


@linear_backward.register_fake
def _(
    g: Tensor, h: Tensor, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, log_decay: Tensor | None, causal: bool
):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))


def _remember(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, g: Tensor, h: Tensor):
    return *linear_backward(g, h, *ctx.saved_tensors, ctx.causal), None, None, None


linear_forward.register_autograd(_gradients, setup_context=_remember)
