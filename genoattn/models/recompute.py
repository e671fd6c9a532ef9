"""An MLP that recomputes its activations in the backward pass, in chunks that fit the cache of one core."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genoattn.attention.modules.autograd import first_order_only

CHUNK = 2048
"""Tokens that are computed together."""


def checkpointed_mlp(
    inner: Callable[[Tensor], Tensor], last: nn.Linear, x: Tensor, parameters: Sequence[Tensor]
) -> Tensor:
    """`last(inner(x))` for the tokens of x [batch, length, dim]; the backward pass needs no activation but x.

    `inner` takes rows [tokens, dim], treats each row by itself and draws no random numbers; `parameters` are its own.
    Only `inner` is recomputed in backward: `last` is linear, so its gradient needs its input and weight alone.
    """
    y = _CheckpointedMLP.apply(inner, x.flatten(0, 1), last.weight, last.bias, *parameters)
    assert isinstance(y, Tensor)
    return y.unflatten(0, x.shape[:2])


class _CheckpointedMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inner: Callable[[Tensor], Tensor], rows: Tensor, weight: Tensor, bias: Tensor | None, *own: Tensor
    ) -> Tensor:
        y = None
        for chunk in _chunks(rows):
            output = F.linear(inner(rows[chunk]), weight, bias)
            y = output.new_empty(len(rows), output.shape[1]) if y is None else y
            y[chunk] = output
        assert y is not None
        ctx.save_for_backward(rows, weight, *own)
        kind = rows.device.type
        ctx.inner, ctx.precision = inner, (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        return y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, *own = ctx.saved_tensors
        (enabled, dtype), (dy,) = ctx.precision, upstream
        trainable = [parameter for parameter in own if parameter.requires_grad]
        totals = [torch.zeros_like(parameter) for parameter in trainable]
        d_rows, d_weight = torch.empty_like(rows), torch.zeros_like(weight)
        for chunk in _chunks(rows):
            with torch.enable_grad(), torch.autocast(rows.device.type, dtype, enabled=enabled):
                x = rows[chunk].detach().requires_grad_()
                hidden = ctx.inner(x)
            d_output = dy[chunk].to(hidden.dtype)
            d_weight += d_output.t() @ hidden.detach()
            gradients = torch.autograd.grad(hidden, [x, *trainable], d_output @ weight.to(hidden.dtype))
            d_rows[chunk] = gradients[0]
            for total, gradient in zip(totals, gradients[1:], strict=True):
                total += gradient
        in_order = iter(totals)
        d_bias = dy.sum(0).to(weight.dtype) if ctx.needs_input_grad[3] else None
        d_own = (next(in_order) if parameter.requires_grad else None for parameter in own)
        return None, d_rows, d_weight, d_bias, *d_own


def _chunks(rows: Tensor) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, len(rows), CHUNK)]
