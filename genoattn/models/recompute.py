"""Functions of single tokens, in segments that stay in cache, and once more for the backward pass: less memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genoattn.attention.modules.autograd import first_order_only

SEGMENT = 2048
"""Tokens that are worked on together: what they make fits the cache of one core."""


def checkpointed_mlp(
    inner: Callable[[Tensor], Tensor], last: nn.Linear, x: Tensor, learned: Sequence[Tensor]
) -> Tensor:
    """`last(inner(x))` of the tokens of x [batch, length, dim], keeping nothing but x.

    `inner` takes rows [tokens, dim], mixes none with another and draws no random numbers; `learned` are its parameters.
    Answers and gradients are what plain calls and their backward pass would give. For the backward pass `inner` is
    called again and `last` is not: the gradient of a product needs its factors alone.
    """
    y = _Tokenwise.apply(inner, x.flatten(0, 1), last.weight, last.bias, *learned)
    assert isinstance(y, Tensor)
    return y.unflatten(0, x.shape[:2])


class _Tokenwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inner: Callable[[Tensor], Tensor], rows: Tensor, weight: Tensor, bias: Tensor | None, *learned: Tensor
    ) -> Tensor:
        y = None
        for part in _parts(rows):
            piece = F.linear(inner(rows[part]), weight, bias)
            y = piece.new_empty(len(rows), piece.shape[1]) if y is None else y
            y[part] = piece
        assert y is not None
        ctx.save_for_backward(rows, weight, *learned)
        kind = rows.device.type
        ctx.inner, ctx.precision = inner, (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        return y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, *learned = ctx.saved_tensors
        (enabled, dtype), (dy,) = ctx.precision, upstream
        wanted = [one for one in learned if one.requires_grad]
        totals = [torch.zeros_like(one) for one in wanted]
        d_rows, d_weight = torch.empty_like(rows), torch.zeros_like(weight)
        for part in _parts(rows):
            with torch.enable_grad(), torch.autocast(rows.device.type, dtype, enabled=enabled):
                piece = rows[part].detach().requires_grad_()
                made = ctx.inner(piece)
            up = dy[part].to(made.dtype)
            d_weight += up.t() @ made.detach()
            pulled = torch.autograd.grad(made, [piece, *wanted], up @ weight.to(made.dtype))
            d_rows[part] = pulled[0]
            for total, one in zip(totals, pulled[1:], strict=True):
                total += one
        given = iter(totals)
        d_bias = dy.sum(0).to(weight.dtype) if ctx.needs_input_grad[3] else None
        return None, d_rows, d_weight, d_bias, *(next(given) if one.requires_grad else None for one in learned)


def _parts(rows: Tensor) -> list[slice]:
    return [slice(start, start + SEGMENT) for start in range(0, len(rows), SEGMENT)]
