"""Reference of the kernel tests: dense attention in float64, written without the package, and relative errors."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from genoattn.attention.kernels import refusal

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
"""The interpreter reads the memory of the CPU alone."""
CLOSE = 1e-5 if DEVICE.type == "cuda" else 2e-6
"""Largest error of a float32 kernel, relative to the largest value of the reference: a GPU adds up three TF32 products
and approximates powers of two."""


class Softmax(NamedTuple):
    """A case of softmax attention; lengths in tokens, `window` as (left, right), both included."""

    length: int
    dim: int = 16
    causal: bool = False
    window: tuple[int | None, int | None] | None = None
    heads: int = 1
    kv_heads: int = 1
    batch: int = 1
    padded: bool = False
    dtype: torch.dtype = torch.float32
    scale: float | None = None

    def __str__(self) -> str:
        """Name for pytest: the values that differ from the defaults."""
        usual = self._field_defaults
        words = [f"{name}={value}" for name, value in self._asdict().items() if name in usual and value != usual[name]]
        return " ".join([f"n={self.length}", *words]).replace("torch.", "")

    def inputs(self, seed: int = 0) -> list[Tensor]:
        """q, k, v and the gradients of the output and of the log-sum-exp."""
        draw = torch.Generator().manual_seed(seed)
        shapes = [(self.heads, self.dim), (self.kv_heads, self.dim), (self.kv_heads, self.dim), (self.heads, self.dim)]
        shapes = [(self.batch, self.length, *rest) for rest in shapes] + [(self.batch, self.heads, self.length)]
        drawn = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
        return [tensor.to(self.dtype).to(DEVICE) for tensor in drawn[:-1]] + [drawn[-1].float().to(DEVICE)]

    def padding_mask(self) -> Tensor | None:
        """Padding inside and at the end; in a batch of several, one sequence of padding only."""
        if not self.padded:
            return None
        padding_mask = torch.rand(self.batch, self.length, generator=torch.Generator().manual_seed(1)) < 0.7
        padding_mask[0, 0], padding_mask[0, -(self.length // 4) :] = True, self.length < 4
        padding_mask[1:2] = False
        return padding_mask.to(DEVICE)

    def visible(self) -> Tensor:
        """[batch, query, key]."""
        index = torch.arange(self.length, device=DEVICE)
        left, right = (self.length if side is None else side for side in self.window or (None, None))
        ahead = index[None, :] - index[:, None]
        pairs = (ahead >= -left) & (ahead <= (0 if self.causal else right))
        padding_mask = self.padding_mask()
        return pairs[None] if padding_mask is None else pairs & padding_mask[:, None, :] & padding_mask[:, :, None]


def dense(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float | None, bias: Tensor | None = None):
    """Outputs and log-sum-exps of softmax attention over the full score matrix, in the dtype of the inputs."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if bias is None else scores + bias[:, None, None, :].to(scores.dtype)
    seen = (visible if visible.dim() == 4 else visible[:, None]).expand_as(scores)
    blind = ~seen.any(-1)
    scores = scores.masked_fill(~seen, float("-inf")).masked_fill(blind[..., None], 0)
    weights = scores.softmax(-1).masked_fill(blind[..., None], 0)
    lse = scores.logsumexp(-1).masked_fill(blind, float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", weights, v), lse


def outputs_and_gradients(function: Callable[..., Any], tensors: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
    """Outputs of `function` and the gradients of its inputs, from the gradients of the outputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return [*(tensor.detach() for tensor in out), *torch.autograd.grad(out, leaves, upstream)]


def reference(case: Softmax, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Outputs and gradients of the dense reference in a case, computed in `dtype`."""
    q, k, v, dout, dlse = (tensor.to(dtype) for tensor in case.inputs())
    padding_mask = case.padding_mask()
    if padding_mask is not None:
        dlse = dlse.masked_fill(~padding_mask[:, None], 0)
    return outputs_and_gradients(lambda q, k, v: dense(q, k, v, case.visible(), case.scale), [q, k, v], [dout, dlse])


def skip_without_tiles(kernel: str, dtype: torch.dtype, dim: int) -> None:
    """Skip a test of heads for which a GPU has no tiles that keep within its registers."""
    reason = refusal(kernel, DEVICE, dtype, dim) if DEVICE.type == "cuda" else None
    if reason:
        pytest.skip(reason)


def poison(tensor: Tensor, padding_mask: Tensor | None, value: float) -> Tensor:
    """The tensor with `value` at padding."""
    return tensor if padding_mask is None else tensor.masked_fill(~padding_mask[:, :, None, None], value)


def relative_error(actual: Tensor, right: Tensor) -> float:
    """Largest difference relative to the largest value of the reference; non-finite values must be equal."""
    actual, right = actual.double(), right.double()
    finite = right.isfinite()
    if not torch.equal(actual.isfinite(), finite) or not torch.equal(actual[~finite], right[~finite]):
        return float("inf")
    if not finite.any():
        return 0.0
    return ((actual - right)[finite].abs().max() / right[finite].abs().max().clamp_min(1e-30)).item()


def failures(actual: list[Tensor], right: list[Tensor], within: float = CLOSE) -> list[str]:
    """One sentence for each output and gradient with too large an error."""
    names = ["out", "lse", "dq", "dk", "dv"] if len(actual) == 5 else [str(at) for at in range(len(actual))]
    distances = [relative_error(tensor, other) for tensor, other in zip(actual, right, strict=True)]
    return [f"{name} is off by {far:.1e}" for name, far in zip(names, distances, strict=True) if not far <= within]
