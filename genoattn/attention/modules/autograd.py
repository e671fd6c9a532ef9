"""A guard for hand-written backward passes: their own derivative must fail and never be silently incomplete."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]


def first_order_only(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Mark the backward of an autograd function that cannot be differentiated itself.

    Torch's `once_differentiable` cuts the graph: `torch.autograd.grad(..., inputs)` then leaves the missing terms of
    a second derivative out and returns a wrong number. Here the gradients stay connected to all that they were computed
    from, through a node whose own backward raises NotImplementedError.
    """

    @wraps(backward)
    def guarded(ctx: Any, *upstream: Tensor | None) -> Gradients:
        with torch.no_grad():
            gradients = backward(ctx, *upstream)
        if not torch.is_grad_enabled():  # no `create_graph`: nobody asks for a second derivative
            return gradients
        sources = [t for t in (*upstream, *ctx.saved_tensors) if t is not None and t.requires_grad]
        present = [t for t in gradients if t is not None]
        if not sources or not present:
            return gradients
        marked = iter(_NoSecondDerivative.apply(ctx.name(), len(present), *present, *sources))
        return tuple(None if t is None else next(marked) for t in gradients)

    return guarded


class _NoSecondDerivative(torch.autograd.Function):
    """The first `count` tensors as they are; its backward raises."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.function = name
        return tensors[:count]

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise NotImplementedError(f"{ctx.function} has no second derivative: its gradient can be taken once only")
