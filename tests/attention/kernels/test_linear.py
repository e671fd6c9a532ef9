"""Linear attention's sums and their gradients against the square in float64, run by the interpreter or on a GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from genoattn.attention.kernels import linear
from genoattn.errors import UserError
from tests.attention.kernels.references import CLOSE, DEVICE, answers, off, poison


class Case(NamedTuple):
    """A case of linear attention; `features` and `dim` are channels of the keys and of the values."""

    length: int
    features: int = 16
    dim: int = 16
    causal: bool = False
    decay: bool = False
    padded: bool = False
    heads: int = 1
    batch: int = 1
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        usual = self._field_defaults
        words = [f"{name}={value}" for name, value in self._asdict().items() if name in usual and value != usual[name]]
        return " ".join([f"n={self.length}", *words]).replace("torch.", "")

    def inputs(self) -> list[Tensor]:
        """Positive q and k, v, and the gradients of numerators and denominators."""
        draw = torch.Generator().manual_seed(0)
        widths = (self.features, self.features, self.dim, self.dim)
        drawn = [torch.randn(self.batch, self.length, self.heads, width, generator=draw) for width in widths]
        drawn = [drawn[0].abs(), drawn[1].abs(), *drawn[2:]]
        given = [one.to(self.dtype).to(DEVICE) for one in drawn[:3]]
        return [*given, drawn[3].to(DEVICE), torch.randn(drawn[0].shape[:3], generator=draw).to(DEVICE)]

    def keep(self) -> Tensor | None:
        if not self.padded:
            return None
        keep = torch.rand(self.batch, self.length, generator=torch.Generator().manual_seed(1)) < 0.7
        keep[1:2] = False
        return keep.to(DEVICE)

    def log_decay(self) -> Tensor | None:
        return -0.3 / torch.arange(1, self.heads + 1, device=DEVICE) if self.decay else None


def square(case: Case, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Numerators and denominators from every pair."""
    index = torch.arange(case.length, device=DEVICE)
    ahead = index[:, None] - index[None, :]
    weights = torch.ones(1, case.length, case.length, dtype=q.dtype, device=DEVICE)
    rate = case.log_decay()
    if rate is not None:
        weights = (rate.to(q.dtype)[:, None, None] * ahead.abs()).exp()
    seen = (ahead >= 0) if case.causal else torch.ones_like(ahead, dtype=torch.bool)
    keep = case.keep()
    seen = seen[None] if keep is None else seen & keep[:, None, :] & keep[:, :, None]
    products = torch.einsum("bqhm,bkhm->bhqk", q, k) * weights * seen[:, None]
    return torch.einsum("bhqk,bkhd->bqhd", products, v), products.sum(-1).transpose(1, 2)


def check(case: Case, function: Callable[..., Any] = linear.linear_sums, within: float = CLOSE) -> None:
    """Fails unless sums and gradients are those of the square, whatever padding holds."""
    *tensors, g, h = case.inputs()
    keep = case.keep()
    given = [poison(one, keep, value) for one, value in zip(tensors, (float("nan"), 1e6, -1e6), strict=True)]
    g = poison(g, keep, float("nan"))
    h = h if keep is None else h.masked_fill(~keep[..., None], float("nan"))
    settings = {"causal": case.causal, "keep": keep, "log_decay": case.log_decay()}
    found = answers(lambda *one: function(*one, **settings), given, [g, h])
    zeros = [one.double().nan_to_num() for one in (g, h)]
    right = answers(lambda *one: square(case, *one), [one.double() for one in tensors], zeros)
    names = ("numerators", "denominators", "dq", "dk", "dv")
    distances = {name: off(one, other) for name, one, other in zip(names, found, right, strict=True)}
    assert all(far <= within for far in distances.values()), distances


CASES = [
    *(Case(length, causal=causal) for length in (1, 2, 63, 64, 65, 129) for causal in (False, True)),
    *(Case(length, causal=causal, decay=True) for length in (1, 33, 64, 130) for causal in (False, True)),
    *(Case(70, features, dim, True) for features, dim in ((20, 32), (64, 24), (96, 16), (16, 128))),
    Case(257, 32, 32, True, heads=2),
    Case(97, 24, 16, decay=True, padded=True, heads=2, batch=2),
    Case(97, 16, 24, True, True, True, heads=2, batch=2),
    Case(97, padded=True, batch=2),
    Case(97, causal=True, padded=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums_and_gradients(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_keeps_sums_in_float32(causal: bool) -> None:
    """The sums themselves are those of the rounded inputs; only the gradients are rounded once, at their end."""
    case = Case(130, causal=causal, dtype=torch.float16)
    *tensors, g, h = case.inputs()
    found = answers(lambda *one: linear.linear_sums(*one, causal=causal), tensors, [g, h])
    right = answers(lambda *one: square(case, *one), [one.double() for one in tensors], [g.double(), h.double()])
    within = [2 ** -(10 if DEVICE.type == "cuda" else 18)] * 2 + [2**-10] * 3  # TF32 products on a GPU
    assert all(off(one, other) <= far for one, other, far in zip(found, right, within, strict=True))


def test_inputs_that_are_not_contiguous() -> None:
    case = Case(70, causal=True, heads=2, batch=2)
    q, k, v, g, h = case.inputs()
    packed = torch.stack([q, k, v], dim=2).unbind(2)
    settings = {"causal": True}
    given = [one.transpose(1, 2).contiguous().transpose(1, 2) for one in (g, h)]
    found = answers(lambda *one: linear.linear_sums(*one, **settings), list(packed), given)
    right = answers(lambda *one: square(case, *one), [one.double() for one in (q, k, v)], [g.double(), h.double()])
    assert max(map(off, found, right)) <= CLOSE


def test_what_is_divided_averages_the_values() -> None:
    case = Case(70, causal=True, padded=True, heads=2)
    q, k, v, _, _ = case.inputs()
    keep = case.keep()
    assert keep is not None
    y = linear.linear_attention(q, k, torch.ones_like(v), causal=True, keep=keep)
    assert off(y, keep[..., None, None].expand_as(y)) <= CLOSE


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"v": torch.zeros(1, 4, 2, 129)}, "none wider than 128"),
        ({"k": torch.zeros(1, 4, 2, 16).half()}, "must all be float32"),
        (dict.fromkeys("qkv", torch.zeros(1, 0, 2, 16)), "length must be from 1"),
        ({"log_decay": torch.zeros(2, requires_grad=True)}, "ask for no gradient"),
    ],
)
def test_mistakes(change: dict[str, Any], sentence: str) -> None:
    given = dict.fromkeys("qkv", torch.zeros(1, 4, 2, 16)) | change
    moved = {name: one.to(DEVICE) for name, one in given.items()}
    with pytest.raises(UserError, match=sentence):
        linear.linear_sums(moved.pop("q"), moved.pop("k"), moved.pop("v"), causal=False, **moved)
