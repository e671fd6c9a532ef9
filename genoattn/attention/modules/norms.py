"""Norms of the channels of a head: of queries and keys, and of outputs."""

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.modules import fused
from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.modules.rotary import head_groups, turn_into


def rms_normed(x: Float[Tensor, "*shape channels"]) -> Float[Tensor, "*shape channels"]:
    """`x` with a mean square of 1 over its channels; vectors of 0 stay 0."""
    if x.dim() == 4 and fused.fuses(x):
        from genoattn.attention.kernels.heads import turned_heads  # late: it imports triton

        return turned_heads(x)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)


def normed_heads(
    x: Float[Tensor, "batch length heads channels"],
    log_scale: Float[Tensor, "heads"],
    turned: tuple[Tensor, Tensor] | None = None,
    factor: float = 1.0,
) -> Float[Tensor, "batch length heads channels"]:
    """`x / rms(x) * exp(log_scale / 2) * factor` by head, then rotated by `turns` if they are given."""
    if fused.fuses(x):
        from genoattn.attention.kernels.heads import turned_heads  # late: it imports triton

        return turned_heads(x, log_scale, turned, factor=factor)
    y: Tensor = _NormedHeads.apply(x, log_scale, *(turned or (None, None)))  # pyright: ignore
    return y if factor == 1 else y * factor


class _NormedHeads(torch.autograd.Function):
    """It saves its output, which attention saves as well, and one number for each token and head.

    Torch's own norm saves its input and the values before the gain too: four times as much. A rotation changes neither
    the norm of the output nor its product with the gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, log_scale: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        gain, y = x.new_empty(*x.shape[:-1], 1, dtype=dtype), torch.empty_like(x)
        for heads in head_groups(x):
            wide = x[:, :, heads].to(dtype)
            # The epsilon is fixed because torch's default follows the dtype: bfloat16's would shrink ordinary queries.
            square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() / x.shape[-1] + 1e-6
            gain[:, :, heads] = square.rsqrt_() * (log_scale[heads] / 2).exp()[:, None].to(dtype)
            _write(y[:, :, heads], wide * gain[:, :, heads], cos, sin)
        ctx.save_for_backward(y, gain, log_scale, cos, sin)
        return y

    @staticmethod
    @first_order_only
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        y, gain, log_scale, cos, sin = ctx.saved_tensors
        dx, dscale = torch.empty_like(dy), torch.empty_like(log_scale)
        for heads in head_groups(y):
            d, out, by = dy[:, :, heads].to(gain.dtype), y[:, :, heads].to(gain.dtype), gain[:, :, heads]
            along = (d * out).sum(-1, keepdim=True)
            dscale[heads] = along.sum((0, 1, 3)).to(log_scale.dtype) / 2
            square = log_scale[heads].exp()[:, None].to(gain.dtype)  # mean square of the output
            d = (d * by).addcmul_(out, along * by / (-y.shape[-1] * square))
            _write(dx[:, :, heads], d, cos, None if sin is None else -sin)
        return dx, dscale, None, None


def _write(y: Tensor, wide: Tensor, cos: Tensor | None, sin: Tensor | None) -> None:
    """Write `wide` to `y`, turned if there are angles."""
    if cos is None or sin is None:
        y.copy_(wide)
    elif y.dtype == wide.dtype:
        turn_into(y, wide, cos, sin)
    else:
        turn_into(turned := torch.empty_like(wide), wide, cos, sin)
        y.copy_(turned)
