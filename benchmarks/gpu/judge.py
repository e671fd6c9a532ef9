"""Who is right: slow torch code in float64, written without the package; and how far answers are from it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.record import DEVICE

WITHIN = {torch.float32: 3e-5, torch.bfloat16: 1.2e-2, torch.float16: 2e-3}
"""Largest distance of answers in these numbers, relative to the norm of the right ones."""


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers on the device."""
    return torch.randn(shape, generator=torch.Generator(DEVICE).manual_seed(seed), device=DEVICE).to(dtype)


def band(length: int, left: int | None, right: int | None, first: int = 0, count: int | None = None) -> Tensor:
    """Pairs [query, key] of a window; of `count` queries from `first` on."""
    queries = torch.arange(first, first + (length - first if count is None else count), device=DEVICE)
    ahead = torch.arange(length, device=DEVICE)[None, :] - queries[:, None]
    return (ahead >= -(length if left is None else left)) & (ahead <= (length if right is None else right))


def softmax(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Answers and log-sum-exps of dense softmax attention; `seen` is [batch or 1, heads or 1, query, key]."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    blind = ~seen.any(-1, keepdim=True)
    scores = scores.masked_fill(~seen, -math.inf).masked_fill(blind, 0)
    weights = scores.softmax(-1).masked_fill(blind, 0)
    lse = scores.logsumexp(-1).masked_fill(blind.expand(*scores.shape[:3], 1)[..., 0], -math.inf)
    return torch.einsum("bhij,bjhd->bihd", weights, v), lse


def sums(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Numerators and denominators of linear attention."""
    weights = torch.einsum("bihd,bjhd->bhij", q, k).masked_fill(~seen, 0)
    return torch.einsum("bhij,bjhd->bihd", weights, v), weights.sum(-1).transpose(1, 2)


def answered(act: Callable[..., Any], tensors: Sequence[Tensor], upstream: Sequence[Tensor]) -> list[Tensor]:
    """Answers of `act`, and the gradients of its inputs for the gradients `upstream` of the answers."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = act(*leaves)
    out = out if isinstance(out, tuple) else (out,)
    gradients = torch.autograd.grad(
        out, leaves, [given.to(one.dtype) for given, one in zip(upstream, out, strict=True)]
    )
    return [*(one.detach() for one in out), *gradients]


def distances(found: Sequence[Tensor], right: Sequence[Tensor]) -> list[float]:
    """‖found − right‖ / ‖right‖ of each; infinite where other numbers are finite."""
    far = []
    for one, other in zip(found, right, strict=True):
        finite = other.isfinite()
        if not torch.equal(one.isfinite(), finite):
            far.append(math.inf)
            continue
        norm = other[finite].double().norm().clamp_min(1e-30)
        far.append(((one.double() - other.double())[finite].norm() / norm).item())
    return far


def verdict(found: Sequence[Tensor], right: Sequence[Tensor], within: float) -> dict[str, Any]:
    """Fields of a row: how far off each tensor is, and whether all are within the bound."""
    off = distances(found, right)
    return {"off": [float(f"{far:.3g}") for far in off], "good": max(off) <= within}
