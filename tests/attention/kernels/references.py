"""What kernels are held to: dense attention in float64, written apart from the package, and how far off they are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLOSE = 2e-6
"""How far a float32 kernel may be off, as a share of the largest number of the reference."""


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
        """A name for pytest: what is not as usual."""
        usual = self._field_defaults
        words = [f"{name}={value}" for name, value in self._asdict().items() if name in usual and value != usual[name]]
        return " ".join([f"n={self.length}", *words]).replace("torch.", "")

    def inputs(self, seed: int = 0) -> list[Tensor]:
        """q, k, v and the gradients of the answer and of the log-sum-exp."""
        draw = torch.Generator().manual_seed(seed)
        shapes = [(self.heads, self.dim), (self.kv_heads, self.dim), (self.kv_heads, self.dim), (self.heads, self.dim)]
        shapes = [(self.batch, self.length, *rest) for rest in shapes] + [(self.batch, self.heads, self.length)]
        drawn = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
        return [one.to(self.dtype).to(DEVICE) for one in drawn[:-1]] + [drawn[-1].float().to(DEVICE)]

    def keep(self) -> Tensor | None:
        """Padding inside and at the end, and in a batch of several one sequence of nothing else."""
        if not self.padded:
            return None
        keep = torch.rand(self.batch, self.length, generator=torch.Generator().manual_seed(1)) < 0.7
        keep[0, 0], keep[0, -(self.length // 4) :] = True, self.length < 4
        keep[1:2] = False
        return keep.to(DEVICE)

    def visible(self) -> Tensor:
        """[batch, query, key]."""
        index = torch.arange(self.length, device=DEVICE)
        left, right = (self.length if side is None else side for side in self.window or (None, None))
        ahead = index[None, :] - index[:, None]
        pairs = (ahead >= -left) & (ahead <= (0 if self.causal else right))
        keep = self.keep()
        return pairs[None] if keep is None else pairs & keep[:, None, :] & keep[:, :, None]


def dense(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float | None, bias: Tensor | None = None):
    """Answers and log-sum-exps of softmax attention from the whole square, in the dtype of what is given."""
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


def answers(function: Callable[..., Any], tensors: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
    """What `function` answers, and the gradients of all it was given, from those of its answers."""
    leaves = [one.detach().requires_grad_() for one in tensors]
    out = function(*leaves)
    return [*(one.detach() for one in out), *torch.autograd.grad(out, leaves, upstream)]


def wide(case: Softmax, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """What the dense reference answers in a case, all computed in `dtype`."""
    q, k, v, dout, dlse = (one.to(dtype) for one in case.inputs())
    keep = case.keep()
    if keep is not None:
        dlse = dlse.masked_fill(~keep[:, None], 0)
    return answers(lambda q, k, v: dense(q, k, v, case.visible(), case.scale), [q, k, v], [dout, dlse])


def poison(tensor: Tensor, keep: Tensor | None, value: float) -> Tensor:
    """The tensor with `value` at padding."""
    return tensor if keep is None else tensor.masked_fill(~keep[:, :, None, None], value)


def off(found: Tensor, right: Tensor) -> float:
    """The largest difference as a share of the largest right number; what is not finite must be the same."""
    found, right = found.double(), right.double()
    finite = right.isfinite()
    if not torch.equal(found.isfinite(), finite) or not torch.equal(found[~finite], right[~finite]):
        return float("inf")
    if not finite.any():
        return 0.0
    return ((found - right)[finite].abs().max() / right[finite].abs().max().clamp_min(1e-30)).item()


def failures(found: list[Tensor], right: list[Tensor], within: float = CLOSE) -> list[str]:
    """A sentence on every answer and gradient that is too far off."""
    names = ["out", "lse", "dq", "dk", "dv"] if len(found) == 5 else [str(at) for at in range(len(found))]
    distances = [off(one, other) for one, other in zip(found, right, strict=True)]
    return [f"{name} is off by {far:.1e}" for name, far in zip(names, distances, strict=True) if not far <= within]
