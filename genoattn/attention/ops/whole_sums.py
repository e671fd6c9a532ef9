"""Linear attention to all tokens without a decay: one state for the whole sequence, which is written and then read."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.ops.chunked_scan import chunk_bounds


class Plan(NamedTuple):
    """Settings of the sums, besides queries, keys and values."""

    features_of: Callable[[Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor]]
    """Features of tokens with this mask and these positions, and the same rotated."""
    of_queries: tuple[Tensor | None, Tensor | None]
    """Mask and positions."""
    of_keys: tuple[Tensor | None, Tensor | None]
    divides: bool
    """True: the sums are divided by those of their weights."""
    least: Float[Tensor, "batch"]
    """Least sum of weights."""
    segment: int
    """Tokens that are computed together."""


def whole_sums(
    q: Float[Tensor, "batch queries heads channels"],
    k: Float[Tensor, "batch keys heads channels"],
    v: Float[Tensor, "batch keys heads values"],
    plan: Plan,
) -> Float[Tensor, "batch queries heads values"]:
    """Outputs of all queries over all keys; only the arguments are saved for the backward pass, and the state."""
    with torch.autocast(q.device.type, enabled=False):
        return _WholeSums.apply(plan, q, k, v)  # pyright: ignore


class _WholeSums(torch.autograd.Function):
    """Its backward pass computes features again, but no sum over keys: that is the state."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        memory = v.new_zeros(1)
        for piece, x, mask, positions in _segments(k, plan.of_keys, plan.segment):
            phi, rotated = plan.features_of(x, mask, positions)
            written = _heads(rotated).mT @ _heads(v[:, piece].to(phi.dtype))
            memory = torch.cat([written, phi.sum(1)[..., None]], dim=-1).add_(memory)
        y = v.new_empty(*q.shape[:3], v.shape[3])
        for piece, x, _, positions in _segments(q, plan.of_queries, plan.segment):
            sums, share, _ = _read(*plan.features_of(x, None, positions), memory, plan)
            torch.mul(sums, share if plan.divides else 1, out=y[:, piece])
        ctx.plan = plan
        ctx.save_for_backward(q, k, v, memory)
        return zero_padding(y, plan.of_queries[0])

    @staticmethod
    @first_order_only
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (q, k, v, memory), plan = ctx.saved_tensors, ctx.plan
        dq, dk, dv, dmemory = (torch.empty_like(t) for t in (q, k, v, memory))
        dmemory.zero_()
        for piece, x, mask, positions in _segments(q, plan.of_queries, plan.segment):
            with torch.enable_grad():
                phi, rotated = plan.features_of(x := x.detach().requires_grad_(), None, positions)
            d = zero_padding(dy[:, piece].to(memory.dtype), mask)
            dtotal = None
            if plan.divides:
                sums, share, low = _read(phi.detach(), rotated.detach(), memory, plan)
                dtotal = sums.mul_(d).sum(-1, keepdim=True).mul_(share.square()).neg_().masked_fill_(low, 0)
                d = d * share
            dmemory[..., :-1] += _heads(rotated.detach()).mT @ _heads(d)
            if dtotal is not None:
                dmemory[..., -1] += (phi.detach() * dtotal).sum(1)
            upstream = _heads(d) @ memory[..., :-1].mT
            dq[:, piece] = _to_tokens(x, phi, rotated, upstream, dtotal, memory[..., -1])
        for piece, x, mask, positions in _segments(k, plan.of_keys, plan.segment):
            with torch.enable_grad():
                phi, rotated = plan.features_of(x := x.detach().requires_grad_(), mask, positions)
            upstream = _heads(v[:, piece].to(memory.dtype)) @ dmemory[..., :-1].mT
            dv[:, piece] = (_heads(rotated.detach()) @ dmemory[..., :-1]).transpose(1, 2)
            dk[:, piece] = _to_tokens(x, phi, rotated, upstream, phi.new_ones(()), dmemory[..., -1])
        return None, dq, dk, dv


def _segments(
    x: Tensor, of_x: tuple[Tensor | None, Tensor | None], segment: int
) -> Iterator[tuple[slice, Tensor, Tensor | None, Tensor | None]]:
    """Tokens of each segment with their mask and positions."""
    for start, stop in chunk_bounds(x.shape[1], segment):
        piece = slice(start, stop)
        mask, positions = (None if t is None else t[:, piece] for t in of_x)
        yield piece, x[:, piece], mask, positions


def _heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


def _read(phi: Tensor, rotated: Tensor, memory: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of values, one over the sum of their weights, and whether that was the least."""
    sums = _heads(_heads(rotated) @ memory[..., :-1])
    total = torch.linalg.vecdot(phi, memory[:, None, ..., -1])[..., None]
    least = plan.least.to(total.dtype)[:, None, None, None]
    return sums, torch.maximum(total, least).reciprocal(), total < least


def _to_tokens(
    x: Tensor, phi: Tensor, rotated: Tensor, upstream: Tensor, dtotal: Tensor | None, counts: Tensor
) -> Tensor:
    """Gradient of the tokens `x` from those of their rotated features, and of the sums of weights."""
    upstream = _heads(upstream)
    if dtotal is None:
        return torch.autograd.grad(rotated, x, upstream)[0]
    if rotated is phi:
        return torch.autograd.grad(phi, x, upstream.addcmul_(dtotal, counts[:, None]))[0]
    return torch.autograd.grad([phi, rotated], x, [dtotal * counts[:, None].expand_as(phi), upstream])[0]
