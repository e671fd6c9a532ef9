"""Linear attention by sums over chunks, causal or both ways, with an optional decay by token, as a torch operator."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.kernels import WIDEST, launch
from genoattn.attention.kernels.configurations import INTERPRETED_CHUNKS, Chunks, linear_chunks, power_of_two
from genoattn.attention.kernels.linear_gradients import dk_kernel, dlog_kernel, dq_kernel, dv_kernel
from genoattn.attention.kernels.linear_kernels import LinearConstants, answers_kernel, scan_kernel, states_kernel
from genoattn.errors import UserError

SCAN_BLOCK = 256


def linear_attention(
    q: Float[Tensor, "batch length heads features"],
    k: Float[Tensor, "batch length heads features"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    log_decay: Float[Tensor, "batch length heads"] | None = None,
    epsilon: float = 1e-6,
) -> Float[Tensor, "batch length heads dim_value"]:
    """Linear attention: the numerators of `linear_sums` over their denominators.

    Args:
        q: Queries after the feature map, all positive.
        k: Keys after the feature map, all positive.
        v: Values.
        causal: Sum over j ≤ i only, not over all j.
        padding_mask: True for real tokens; padding is not read and gives 0.
        log_decay: As in `linear_sums`.
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
    log_decay: Float[Tensor, "batch length heads"] | None = None,
    lead: float = 0.0,
    denominators: bool = True,
) -> tuple[Float[Tensor, "batch length heads dim_value"], Float[Tensor, "batch length heads"] | Float[Tensor, "0"]]:
    """Sums N_i = sum_j w_ij (q_i·k_j) v_j and d_i = sum_j w_ij q_i·k_j in float32; all arguments have gradients.

    With G_i the sum of log_decay over the tokens up to i, w_ij = exp(-|G_i - G_j|); without a decay it is 1. Heads may
    share tensors, as `expand` makes them: they are not repeated in memory.

    Args:
        q: Queries after the feature map.
        k: Keys after the feature map.
        v: Values.
        causal: Sum over j ≤ i only, not over all j.
        padding_mask: True for real tokens; padding is not read, and gives 0 for both.
        log_decay: Logarithm of what each token keeps, finite and 0 or less, in float32. That of padding counts.
        lead: Tokens that query i stands after key i, between -1 and 1, at a decay that is the same for all tokens; a
            causal layer needs 0 or more.
        denominators: False: no d, whose place an empty tensor takes.

    Raises:
        UserError: Shapes, dtypes or a device that the kernel does not support.
    """
    launch.check_tokens(q, k, v, WIDEST["linear"])
    if padding_mask is not None and padding_mask.shape != q.shape[:2]:
        raise UserError(f"padding_mask must be {list(q.shape[:2])} as q is, got {list(padding_mask.shape)}")
    if log_decay is not None and (log_decay.shape != q.shape[:3] or log_decay.dtype != torch.float32):
        raise UserError(
            f"log_decay must be float32 {list(q.shape[:3])}, a number for each token and head, got "
            f"{list(log_decay.shape)} in {log_decay.dtype}"
        )
    if not (0 if causal else -1) <= lead <= 1:
        raise UserError(f"lead must be from {'0' if causal else '-1'} to 1, got {lead}")
    return linear_forward(q, k, v, padding_mask, log_decay, causal, lead, denominators)


class Setting(NamedTuple):
    """Values that all kernels of one call share."""

    chunks: Chunks
    sizes: tuple[int, int, int, int]
    programs: int
    """One for each chunk of each head."""
    byte_flags: Tensor
    mask_stride: int
    log_decay: Tensor
    decay_strides: tuple[int, ...]
    constants: LinearConstants

    @property
    def options(self) -> dict[str, Any]:
        """Constants and options of the compiler."""
        return {"C": self.constants, "num_warps": self.chunks.warps, "num_stages": 1}

    @property
    def spread(self) -> dict[str, Any]:
        """Options of kernels that hold more tiles than the others: smaller ones, on more threads."""
        fixed = self.constants
        most = self.chunks.narrow
        smaller = fixed._replace(BLOCK_M=min(fixed.BLOCK_M, most), BLOCK_D=min(fixed.BLOCK_D, most))
        return {"C": smaller, "num_warps": self.chunks.spread, "num_stages": 1}

    @property
    def blocks(self) -> tuple[int, int]:
        """Parts of the channels of keys and of values that programs of their own compute."""
        fixed = self.constants
        return -(-fixed.M // fixed.BLOCK_M), -(-fixed.D // fixed.BLOCK_D)

    def strides(self, *tensors: Tensor) -> tuple[Any, ...]:
        """Strides of these tensors, of the decay and of the mask."""
        return *map(launch.strides_of, tensors), self.decay_strides, self.mask_stride


def setting_of(
    q: Tensor,
    v: Tensor,
    padding_mask: Tensor | None,
    log_decay: Tensor | None,
    causal: bool,
    sums: bool,
    least: int = 0,
) -> Setting:
    """The settings of a call; its chunks are those of heads of `least` channels or more."""
    family = launch.family(q.device)
    batch, length, heads, features = q.shape
    widest = max(features, v.shape[-1], least)
    chunks = INTERPRETED_CHUNKS if launch.INTERPRETED else linear_chunks(family, widest, q.element_size())
    blocks = [min(power_of_two(t.shape[-1]), chunks.block) for t in (q, v)]
    byte_flags, mask_stride = launch.flags(padding_mask, q)
    total, count = not causal and log_decay is None, -(-length // chunks.tokens)
    constants = LinearConstants(
        CHUNK=chunks.tokens,
        M=features,
        D=v.shape[-1],
        BLOCK_M=blocks[0],
        BLOCK_D=blocks[1],
        SIZE=features * (v.shape[-1] + sums),
        CAUSAL=causal,
        TOTAL=total,
        DECAY=log_decay is not None,
        SUMS=sums,
        PADDED=padding_mask is not None,
        PRECISION=launch.precision(q.dtype, family, halves="tf32"),
    )
    decay, decay_strides = (q, (0, 0, 0)) if log_decay is None else (log_decay, log_decay.stride())
    sizes = length, heads, count, batch * heads * (1 if total else count)
    return Setting(chunks, sizes, batch * heads * count, byte_flags, mask_stride, decay, decay_strides, constants)


def _states(setting: Setting, k: Tensor, v: Tensor, weights: Tensor | None, lead: float = 0.0) -> Tensor:
    """Sums of k vᵀ and of k (weighted) over all chunks on each side of each, or in total; with weights for dk and dv.

    Those are of queries, so that the one way of a causal layer is that from the right.
    """
    batch, _, heads, _ = k.shape
    fixed, upstream = setting.constants, weights is not None
    _, _, count, _ = setting.sizes
    past, future = fixed.TOTAL or not (fixed.CAUSAL and upstream), not fixed.TOTAL and (upstream or not fixed.CAUSAL)
    states = torch.empty(past + future, batch, heads, count, fixed.SIZE, dtype=torch.float32, device=k.device)
    totals = torch.empty(batch, heads, count if fixed.DECAY else 0, dtype=torch.float32, device=k.device)
    # The sums do not depend on these two, so that one compiled kernel serves all their values.
    constants = fixed._replace(CAUSAL=False, TOTAL=False)
    options = {**setting.options, "C": constants, "WEIGHTS": upstream, "PAST": past, "FUTURE": future}
    tensors = [k, v, states if weights is None else weights, setting.byte_flags, setting.log_decay, states, totals]
    sizes = (*setting.sizes[:3], batch * heads * count)
    m_blocks, d_blocks = setting.blocks
    programs = setting.programs * m_blocks * d_blocks
    launch.launch(states_kernel, programs, [*tensors, setting.strides(k, v), sizes, lead], options)
    if fixed.TOTAL:
        return states.sum(3)
    options = {"BLOCK": SCAN_BLOCK, "SIZE": fixed.SIZE, "PAST": past, "DECAY": fixed.DECAY}
    lines = (past + future) * batch * heads
    launch.launch(scan_kernel, -(-fixed.SIZE // SCAN_BLOCK) * lines, [states, totals, (batch * heads, count)], options)
    return states


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding_mask: Tensor | None,
    log_decay: Tensor | None,
    causal: bool,
    lead: float,
    sums: bool,
) -> tuple[Tensor, Tensor]:
    """Numerators [batch, length, heads, dim_value] and denominators [batch, length, heads] in float32."""
    q, k, v = (launch.readable(tensor) for tensor in (q, k, v))
    setting = setting_of(q, v, padding_mask, log_decay, causal, sums)
    numerators = torch.empty(v.shape, dtype=torch.float32, device=q.device)
    denominators = torch.empty(q.shape[:3] if sums else (0,), dtype=torch.float32, device=q.device)
    arguments = [q, k, v, setting.byte_flags, setting.log_decay, _states(setting, k, v, None)]
    arguments += [numerators, denominators, setting.strides(q, k, v, numerators), setting.sizes, lead]
    launch.launch(answers_kernel, setting.programs * setting.blocks[1], arguments, setting.options)
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
    lead: float,
    sums: bool,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and log_decay (empty unless it learns); the sums are computed again."""
    dtype, (q, k, v) = q.dtype, (launch.readable(tensor) for tensor in (q, k, v))
    g, h = launch.readable(g), h.contiguous()
    setting = setting_of(q, v, padding_mask, log_decay, causal, sums)
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    dlog = torch.empty(q.shape[:3] if learns else (0,), dtype=torch.float32, device=q.device)
    (m_blocks, d_blocks), ends, masks = setting.blocks, (setting.sizes, lead), (setting.byte_flags, setting.log_decay)
    states, upstream = _states(setting, k, v, None), _states(setting, q, g, h, lead)
    arguments = [q, k, v, g, h, *masks, states, dq, setting.strides(k, v, g, dq), *ends]
    launch.launch(dq_kernel, setting.programs * m_blocks, arguments, setting.options)
    arguments = [q, v, g, h, *masks, upstream, dk, setting.strides(q, v, g, dk), *ends]
    launch.launch(dk_kernel, setting.programs * m_blocks, arguments, setting.options)
    arguments = [q, k, g, *masks, upstream, dv, setting.strides(q, k, g, dv), *ends]
    launch.launch(dv_kernel, setting.programs * d_blocks, arguments, {**setting.options, "FAR": True})
    if learns:
        arguments = [q, k, v, g, h, *masks, states, upstream, dlog, setting.strides(q, k, v, g), *ends]
        launch.launch(dlog_kernel, setting.programs, arguments, setting.spread)
    return dq.to(dtype), dk.to(dtype), dv.to(dtype), dlog


linear_forward = torch.library.custom_op("genoattn::linear_forward", forward, mutates_args=())


linear_backward = torch.library.custom_op("genoattn::linear_backward", backward, mutates_args=())


@linear_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, padding_mask: Any, log_decay: Any, causal: bool, lead: float, sums: bool):
    denominators = q.new_empty(q.shape[:3] if sums else (0,), dtype=torch.float32)
    return torch.empty_like(v, dtype=torch.float32, memory_format=torch.contiguous_format), denominators


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
    lead: float,
    sums: bool,
    learns: bool,
):
    like = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    return *like, q.new_empty(q.shape[:3] if learns else (0,), dtype=torch.float32)


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.causal, ctx.lead, ctx.sums = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, g: Tensor, h: Tensor):
    learns = ctx.needs_input_grad[4]
    found = linear_backward(g, h, *ctx.saved_tensors, ctx.causal, ctx.lead, ctx.sums, learns)
    return *found[:3], None, found[3] if learns else None, None, None, None


linear_forward.register_autograd(_gradients, setup_context=_save_for_backward)
