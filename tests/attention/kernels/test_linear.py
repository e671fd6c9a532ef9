"""Linear attention's sums and their gradients against the square in float64, run by the interpreter or on a GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from genoattn.attention.kernels import linear
from genoattn.errors import UserError
from tests.attention.kernels.references import (
    CLOSE,
    DEVICE,
    outputs_and_gradients,
    poison,
    relative_error,
    skip_without_tiles,
)


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
        given = [tensor.to(self.dtype).to(DEVICE) for tensor in drawn[:3]]
        return [*given, drawn[3].to(DEVICE), torch.randn(drawn[0].shape[:3], generator=draw).to(DEVICE)]

    def padding_mask(self) -> Tensor | None:
        if not self.padded:
            return None
        padding_mask = torch.rand(self.batch, self.length, generator=torch.Generator().manual_seed(1)) < 0.7
        padding_mask[1:2] = False
        return padding_mask.to(DEVICE)

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
    padding_mask = case.padding_mask()
    seen = seen[None] if padding_mask is None else seen & padding_mask[:, None, :] & padding_mask[:, :, None]
    products = torch.einsum("bqhm,bkhm->bhqk", q, k) * weights * seen[:, None]
    return torch.einsum("bhqk,bkhd->bqhd", products, v), products.sum(-1).transpose(1, 2)


def check(case: Case, function: Callable[..., Any] = linear.linear_sums, within: float = CLOSE) -> None:
    """Fails unless sums and gradients are those of the square, whatever padding holds."""
    *tensors, g, h = case.inputs()
    padding_mask = case.padding_mask()
    given = [
        poison(tensor, padding_mask, value) for tensor, value in zip(tensors, (float("nan"), 1e6, -1e6), strict=True)
    ]
    g = poison(g, padding_mask, float("nan"))
    h = h if padding_mask is None else h.masked_fill(~padding_mask[..., None], float("nan"))
    settings = {"causal": case.causal, "padding_mask": padding_mask, "log_decay": case.log_decay()}
    actual = outputs_and_gradients(lambda *tensors: function(*tensors, **settings), given, [g, h])
    zeros = [tensor.double().nan_to_num() for tensor in (g, h)]
    right = outputs_and_gradients(
        lambda *tensors: square(case, *tensors), [tensor.double() for tensor in tensors], zeros
    )
    names = ("numerators", "denominators", "dq", "dk", "dv")
    distances = {name: relative_error(tensor, other) for name, tensor, other in zip(names, actual, right, strict=True)}
    assert all(far <= within for far in distances.values()), distances


CASES = [
    *(Case(length, causal=causal) for length in (1, 2, 63, 64, 65, 129) for causal in (False, True)),
    *(Case(length, causal=causal, decay=True) for length in (1, 33, 64, 130) for causal in (False, True)),
    *(Case(70, features, dim, True) for features, dim in ((20, 32), (64, 24), (96, 16), (16, 128))),
    Case(193, 32, 32, True, heads=2),
    Case(70, 24, 16, decay=True, padded=True, heads=2, batch=2),
    Case(70, 16, 24, True, True, True, heads=2, batch=2),
    Case(97, padded=True, batch=2),
    Case(97, causal=True, padded=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums_and_gradients(case: Case) -> None:
    skip_without_tiles("linear", case.dtype, max(case.features, case.dim))
    check(case)


@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_keeps_sums_in_float32(causal: bool) -> None:
    """The sums themselves are those of the rounded inputs; only the gradients are rounded once, at their end."""
    case = Case(130, causal=causal, dtype=torch.float16)
    *tensors, g, h = case.inputs()
    actual = outputs_and_gradients(lambda *tensors: linear.linear_sums(*tensors, causal=causal), tensors, [g, h])
    right = outputs_and_gradients(
        lambda *tensors: square(case, *tensors), [tensor.double() for tensor in tensors], [g.double(), h.double()]
    )
    within = [2 ** -(10 if DEVICE.type == "cuda" else 18)] * 2 + [2**-10] * 3  # TF32 products on a GPU
    assert all(relative_error(tensor, other) <= far for tensor, other, far in zip(actual, right, within, strict=True))


def test_inputs_that_are_not_contiguous() -> None:
    case = Case(70, causal=True, heads=2, batch=2)
    q, k, v, g, h = case.inputs()
    packed = torch.stack([q, k, v], dim=2).unbind(2)
    settings = {"causal": True}
    given = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (g, h)]
    actual = outputs_and_gradients(lambda *tensors: linear.linear_sums(*tensors, **settings), list(packed), given)
    right = outputs_and_gradients(
        lambda *tensors: square(case, *tensors), [tensor.double() for tensor in (q, k, v)], [g.double(), h.double()]
    )
    assert max(map(relative_error, actual, right)) <= CLOSE


def test_what_is_divided_averages_the_values() -> None:
    case = Case(70, causal=True, padded=True, heads=2)
    q, k, v, _, _ = case.inputs()
    padding_mask = case.padding_mask()
    assert padding_mask is not None
    y = linear.linear_attention(q, k, torch.ones_like(v), causal=True, padding_mask=padding_mask)
    assert relative_error(y, padding_mask[..., None, None].expand_as(y)) <= CLOSE


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
    moved = {name: tensor.to(DEVICE) for name, tensor in given.items()}
    with pytest.raises(UserError, match=sentence):
        linear.linear_sums(moved.pop("q"), moved.pop("k"), moved.pop("v"), causal=False, **moved)
