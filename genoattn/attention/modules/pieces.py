"""A tensor split into pieces that do not overlap, and put together from them: gradients are written once, into one."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Piece: TypeAlias = tuple[slice, slice]
"""Tokens and heads of a piece."""


def split(x: Float[Tensor, "batch length heads channels"], pieces: Sequence[Piece]) -> tuple[Tensor, ...]:
    """Views of pieces of `x` that do not overlap.

    Torch's own slices make a gradient of the size of `x` each, most of it zeros, and add them.
    """
    return _Split.apply(pieces, x)  # pyright: ignore


def join(
    parts: Sequence[Tensor], pieces: Sequence[Piece], shape: torch.Size
) -> Float[Tensor, "batch length heads channels"]:
    """The tensor of this shape whose pieces are `parts`; 0 elsewhere."""
    return _Join.apply(pieces, shape, *parts)  # pyright: ignore


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pieces: Sequence[Piece], x: Tensor) -> tuple[Tensor, ...]:
        ctx.pieces, ctx.shape = pieces, x.shape
        return tuple(x[:, tokens, heads] for tokens, heads in pieces)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, Tensor]:
        return None, join(upstream, ctx.pieces, ctx.shape)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pieces: Sequence[Piece], shape: torch.Size, *parts: Tensor) -> Tensor:
        ctx.pieces = pieces
        whole = sum(part.numel() for part in parts) == shape.numel()
        y = parts[0].new_empty(shape) if whole else parts[0].new_zeros(shape)
        for part, (tokens, heads) in zip(parts, pieces, strict=True):
            y[:, tokens, heads] = part
        return y

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *split(upstream[0], ctx.pieces)
