"""Functions of single tokens, in segments that stay in cache, and once more for the backward pass: less memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

SEGMENT = 2048
"""Tokens that are worked on together: what they make fits the cache of one core."""


def tokenwise(
    function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """`function` of the tokens of x [batch, length, dim], each answer [batch, length, …], keeping nothing but x.

    `function` takes rows [tokens, dim], mixes none with another and draws no random numbers; `parameters` are all that
    it learns. Answers and gradients are what `function(x)` and its backward pass would give.
    """
    answers = _Tokenwise.apply(function, x.flatten(0, 1), *parameters)
    assert isinstance(answers, tuple)
    return tuple(answer.unflatten(0, x.shape[:2]) for answer in answers)


class _Tokenwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        answers: tuple[Tensor, ...] = ()
        for start in range(0, len(rows), SEGMENT):
            pieces = function(rows[start : start + SEGMENT])
            answers = answers or tuple(piece.new_empty(len(rows), *piece.shape[1:]) for piece in pieces)
            for answer, piece in zip(answers, pieces, strict=True):
                answer[start : start + SEGMENT] = piece
        ctx.save_for_backward(rows, *parameters)
        kind = rows.device.type
        ctx.function, ctx.precision = function, (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        return answers

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, *parameters = ctx.saved_tensors
        enabled, dtype = ctx.precision
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        by_rows, by_learned = torch.empty_like(rows), [torch.zeros_like(parameter) for parameter in learned]
        for start in range(0, len(rows), SEGMENT):
            part = slice(start, start + SEGMENT)
            with torch.enable_grad(), torch.autocast(rows.device.type, dtype, enabled=enabled):
                piece = rows[part].detach().requires_grad_()
                answers = ctx.function(piece)
            pulled = torch.autograd.grad(answers, [piece, *learned], [one[part] for one in upstream])
            by_rows[part] = pulled[0]
            for total, one in zip(by_learned, pulled[1:], strict=True):
                total += one
        given = iter(by_learned)
        return None, by_rows, *(next(given) if parameter.requires_grad else None for parameter in parameters)
