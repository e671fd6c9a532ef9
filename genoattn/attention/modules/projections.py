"""To be said in a sentence."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from genoattn.errors import UserError


@final
class QKVProjection(nn.Module):
    """Projections of a sequence to queries, keys and values by head, and of the answers back."""

    def __init__(
        self,
        dim: int,
        heads: int,
        qk_norm: bool = True,
        logit_scale: float = 1.0,
        tie_qk_init: bool = False,
        kv_heads: int | None = None,
    ):
        super().__init__()
        if heads < 1 or dim % heads:
            raise UserError(f"attention.heads must divide the model's dim of {dim}, got {heads}")
        if not logit_scale > 0:
            raise UserError(f"attention.sharpness must be more than 0, got {logit_scale}")
        if logit_scale != 1 and not qk_norm:
            raise UserError(f"attention.sharpness needs attention.qk_norm=true, which it belongs to, got {logit_scale}")
        if kv_heads is not None and (kv_heads < 1 or heads % kv_heads):
            raise UserError(f"attention.kv_heads must divide the {heads} heads, got {kv_heads}")
        self.count = heads
        self.kv_count = kv_heads or heads
        self.dim_head = dim // heads
        self.qk_norm = qk_norm
        # No biases: zeros at padding stay zeros through every projection.
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, self.kv_count * self.dim_head, bias=False)
        self.value = nn.Linear(dim, self.kv_count * self.dim_head, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        if tie_qk_init:  # what looks alike attracts from the first step on
            group = (self.kv_count, -1, self.dim_head, dim)  # the queries of one key begin alike too
            self.key.weight.data.copy_(self.query.weight.data.view(group)[:, 0].flatten(0, 1))
            self.query.weight.data.copy_(
                self.key.weight.data.view(group).expand(group[0], heads // group[0], *group[2:]).flatten(0, 2)
            )
        if qk_norm:
            self.log_logit_scale = nn.Parameter(torch.full((heads,), math.log(logit_scale)))

    def project(self, x: Float[Tensor, "batch length dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [batch, length, heads, dim_head].

        With `qk_norm` queries and keys have a mean square of 1 times a learned sharpness per head (at first as given),
        shared equally by both sides: a softmax sees only their product, a feature map sees each.
        """
        return self.queries(x), *self.keys_values(x)

    def queries(self, x: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens heads dim_head"]:
        """The first of `split`."""
        return self._normed(self.query(x).unflatten(-1, (-1, self.dim_head)))

    def keys_values(self, x: Float[Tensor, "*tokens dim"]) -> tuple[Tensor, Tensor]:
        """The second and the third of `split`."""
        k, v = (project(x).unflatten(-1, (-1, self.dim_head)) for project in (self.key, self.value))
        if self.kv_count < self.count:  # each key and value serves several queries
            k, v = (t.repeat_interleave(self.count // self.kv_count, dim=-2) for t in (k, v))
        return self._normed(k), v

    def _normed(self, x: Tensor) -> Tensor:
        return _Normed.apply(x, self.log_logit_scale) if self.qk_norm else x  # type: ignore[return-value]

    def combine(self, y: Float[Tensor, "batch length heads dim_head"]) -> Float[Tensor, "batch length dim"]:
        """The heads' answers side by side, projected back."""
        return self.out(y.flatten(2))

    def flops(self, length: int) -> int:
        """FLOPs of the four projections of one sequence."""
        return 4 * length * self.count * (self.count + self.kv_count) * self.dim_head**2


class _Normed(torch.autograd.Function):
    """x [*tokens, heads, dim_head] over its root mean square by head, times exp(log_sharpness / 2) of its head.

    It keeps its answer, which attention keeps as well, and a number by token and head: torch's own keeps its input and
    what came before the gain too, four times as much.
    """

    @staticmethod
    def forward(ctx, x: Tensor, log_sharpness: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # The small number is named because a default follows the dtype, and bfloat16's would shrink ordinary queries.
        least = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() / x.shape[-1] + 1e-6
        scale = least.rsqrt_() * (log_sharpness / 2).exp()[:, None].to(wide.dtype)
        y = (wide * scale).to(x.dtype)
        ctx.save_for_backward(y, scale, log_sharpness)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        y, scale, log_sharpness = ctx.saved_tensors
        wide, y = dy.to(scale.dtype), y.to(scale.dtype)
        along = (wide * y).sum(-1, keepdim=True)
        square = log_sharpness.exp()[:, None].to(scale.dtype)  # of the gain: the answer's mean square
        dx = (wide * scale).addcmul_(y, along * scale / (-y.shape[-1] * square))
        return dx.to(dy.dtype), along.flatten(0, -3).sum((0, 2)).to(log_sharpness.dtype) / 2
