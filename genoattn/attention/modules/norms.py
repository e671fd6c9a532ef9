"""Norms of the channels of a head: of queries and keys, and of outputs."""

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.modules.autograd import first_order_only


def rms_normed(x: Float[Tensor, "*shape channels"]) -> Float[Tensor, "*shape channels"]:
    """`x` with a mean square of 1 over its channels; vectors of 0 stay 0."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)


class NormedHeads(torch.autograd.Function):
    """`x / rms(x) * exp(log_scale / 2)` by head, for x `[*tokens, heads, dim_head]`.

    It saves its output, which attention saves as well, and one number for each token and head. Torch's own norm saves
    its input and the values before the gain too: four times as much.
    """

    @staticmethod
    def forward(ctx, x: Tensor, log_scale: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # The epsilon is fixed because torch's default follows the dtype: bfloat16's would shrink ordinary queries.
        mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() / x.shape[-1] + 1e-6
        gain = mean_square.rsqrt_() * (log_scale / 2).exp()[:, None].to(wide.dtype)
        y = (wide * gain).to(x.dtype)
        ctx.save_for_backward(y, gain, log_scale)
        return y

    @staticmethod
    @first_order_only
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        y, gain, log_scale = ctx.saved_tensors
        wide, y = dy.to(gain.dtype), y.to(gain.dtype)
        along = (wide * y).sum(-1, keepdim=True)
        square = log_scale.exp()[:, None].to(gain.dtype)  # mean square of the output
        dx = (wide * gain).addcmul_(y, along * gain / (-y.shape[-1] * square))
        return dx.to(dy.dtype), along.flatten(0, -3).sum((0, 2)).to(log_scale.dtype) / 2
