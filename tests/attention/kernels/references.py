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
    """A case of softmax attention; lengths in tokens, `window` as (left, right), both included.

    `padded` hides tokens inside and at the end, and of several sequences one altogether; with `at_ends` at the ends
    alone. `keys` are as many as queries if they are 0; then their mask is that of the queries.
    """

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
    at_ends: bool = False
    keys: int = 0
    before: int = 0
    dilation: int = 1
    alibi: bool = False
    segments: int = 0

    def __str__(self) -> str:
        """Name for pytest: the values that differ from the defaults."""
        usual = self._field_defaults
        words = [f"{name}={value}" for name, value in self._asdict().items() if name in usual and value != usual[name]]
        return " ".join([f"n={self.length}", *words]).replace("torch.", "")

    def inputs(self, seed: int = 0) -> list[Tensor]:
        """q, k, v and the gradients of the output and of the log-sum-exp."""
        draw = torch.Generator().manual_seed(seed)
        count = self.keys or self.length
        shapes = [(self.length, self.heads), (count, self.kv_heads), (count, self.kv_heads), (self.length, self.heads)]
        shapes = [(self.batch, *rest, self.dim) for rest in shapes] + [(self.batch, self.heads, self.length)]
        drawn = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
        return [tensor.to(self.dtype).to(DEVICE) for tensor in drawn[:-1]] + [drawn[-1].float().to(DEVICE)]

    def padding_mask(self, of_keys: bool = False) -> Tensor | None:
        """True for the real tokens, of the queries or of the keys."""
        if not self.padded:
            return None
        length = (self.keys if of_keys else 0) or self.length
        padding_mask = torch.rand(self.batch, length, generator=torch.Generator().manual_seed(1)) < 0.7
        if self.at_ends:
            index = torch.arange(length)
            padding_mask = (index >= 3 * torch.arange(self.batch)[:, None]) & (index < length - length // 3)
            return padding_mask.to(DEVICE)
        padding_mask[0, 0], padding_mask[0, -(length // 4) :] = True, length < 4
        padding_mask[1:2] = False
        return padding_mask.to(DEVICE)

    def segment_ids(self) -> tuple[Tensor, Tensor] | None:
        """Segments of the queries and of the keys."""
        if not self.segments:
            return None
        draw = torch.Generator().manual_seed(3)
        counts = self.length, self.keys or self.length
        own, others = (torch.randint(self.segments, (self.batch, n), generator=draw).to(DEVICE) for n in counts)
        return (own, others) if self.keys else (own, own)

    def slopes(self) -> Tensor | None:
        """ALiBi's."""
        return torch.linspace(0.5, 0.1, self.heads).to(DEVICE) if self.alibi else None

    def settings(self) -> dict[str, Any]:
        """The arguments of `flash_attention`, without the tensors."""
        words = {name: getattr(self, name) for name in ("causal", "window", "before", "dilation", "scale")}
        words |= {"padding_mask": self.padding_mask(), "segments": self.segment_ids(), "slopes": self.slopes()}
        return words | ({"key_mask": self.padding_mask(True)} if self.keys else {})

    def ahead(self) -> Tensor:
        """Distance of keys [query, key] from the place of the query among them."""
        keys = torch.arange(self.keys or self.length, device=DEVICE)
        return keys - torch.arange(self.length, device=DEVICE)[:, None] - self.before

    def visible(self) -> Tensor:
        """[batch, query, key]."""
        longest, ahead = self.length + self.before + self.keys, self.ahead()
        left, right = ((longest if side is None else side) * self.dilation for side in self.window or (None, None))
        pairs = (ahead >= -left) & (ahead <= (0 if self.causal else right)) & (ahead % self.dilation == 0)
        pairs = pairs.expand(self.batch, -1, -1)
        queries, keys, ids = self.padding_mask(), self.padding_mask(True), self.segment_ids()
        if queries is not None and keys is not None:
            pairs = pairs & keys[:, None, :] & queries[:, :, None]
        if ids is not None:
            pairs = pairs & (ids[0][:, :, None] != ids[1][:, None, :])
        return pairs


def dense(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float | None, bias: Tensor | None = None):
    """Outputs and log-sum-exps of softmax attention over the full score matrix, in the dtype of the inputs."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + (bias if bias.dim() == 4 else bias[:, None, None, :]).to(scores.dtype)
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
    visible = case.visible()
    dlse = dlse.masked_fill(~visible.any(-1)[:, None], 0)
    slopes = case.slopes()
    bias = None if slopes is None else -slopes[None, :, None, None] * case.ahead().abs()
    return outputs_and_gradients(lambda q, k, v: dense(q, k, v, visible, case.scale, bias), [q, k, v], [dout, dlse])


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
