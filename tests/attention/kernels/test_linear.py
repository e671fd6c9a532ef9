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
    """A case of linear attention; `features` and `dim` are channels of the keys and of the values.

    `decay` is the mean of the logarithms of what tokens keep; with a `lead` all tokens of a head keep the same. Keys
    and queries that are `shared` are those of all heads. Without `sums` there are no denominators, and features have
    signs.
    """

    length: int
    features: int = 16
    dim: int = 16
    causal: bool = False
    decay: float = 0.0
    padded: bool = False
    heads: int = 1
    batch: int = 1
    dtype: torch.dtype = torch.float32
    lead: float = 0.0
    sums: bool = True
    shared: bool = False

    def __str__(self) -> str:
        usual = self._field_defaults
        words = [f"{name}={value}" for name, value in self._asdict().items() if name in usual and value != usual[name]]
        return " ".join([f"n={self.length}", *words]).replace("torch.", "")

    def inputs(self) -> list[Tensor]:
        """q and k, v, and the gradients of numerators and denominators."""
        draw = torch.Generator().manual_seed(0)
        widths = (self.features, self.features, self.dim, self.dim)
        drawn = [torch.randn(self.batch, self.length, self.heads, width, generator=draw) for width in widths]
        if self.sums:
            drawn = [drawn[0].abs(), drawn[1].abs(), *drawn[2:]]
        if self.shared:
            drawn[:2] = [tensor[:, :, :1] for tensor in drawn[:2]]
        given = [tensor.to(self.dtype).to(DEVICE) for tensor in drawn[:3]]
        shape = (self.batch, self.length, self.heads) if self.sums else (0,)
        return [*given, drawn[3].to(DEVICE), torch.randn(shape, generator=draw).to(DEVICE)]

    def padding_mask(self) -> Tensor | None:
        if not self.padded:
            return None
        padding_mask = torch.rand(self.batch, self.length, generator=torch.Generator().manual_seed(1)) < 0.7
        padding_mask[1:2] = False
        return padding_mask.to(DEVICE)

    def log_decay(self) -> Tensor | None:
        if not self.decay:
            return None
        shape = (self.batch, self.length, self.heads)
        if self.lead:
            return (self.decay / torch.arange(1, self.heads + 1)).expand(shape).to(DEVICE)
        return (2 * self.decay * torch.rand(shape, generator=torch.Generator().manual_seed(2))).to(DEVICE)

    def settings(self) -> dict[str, Any]:
        """The arguments of `linear_sums`, without the tensors that have gradients."""
        mask = self.padding_mask()
        return {"causal": self.causal, "padding_mask": mask, "lead": self.lead, "denominators": self.sums}


def square(case: Case, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Numerators and denominators from every pair; each decay is the sum over the tokens between the two."""
    index = torch.arange(case.length, device=DEVICE)
    ahead = index[:, None] - index[None, :]
    products = torch.einsum("bqhm,bkhm->bhqk", *(t.expand(-1, -1, case.heads, -1) for t in (q, k)))
    if log_decay is not None:
        each = log_decay.transpose(1, 2)
        total = each.cumsum(2)
        later = torch.where(ahead == 0, case.lead >= 0, ahead > 0)
        apart = total[:, :, :, None] - total[:, :, None, :] + case.lead * each[..., None]
        products = products * torch.where(later, apart, -apart).exp()
    seen = (ahead >= 0) if case.causal else torch.ones_like(ahead, dtype=torch.bool)
    padding_mask = case.padding_mask()
    seen = seen[None] if padding_mask is None else seen & padding_mask[:, None, :] & padding_mask[:, :, None]
    products = products.masked_fill(~seen[:, None], 0)
    sums = products.sum(-1).transpose(1, 2) if case.sums else products.flatten()[:0]
    return torch.einsum("bhqk,bkhd->bqhd", products, v), sums


NAMES = ("numerators", "denominators", "dq", "dk", "dv", "dlog_decay")


def check(case: Case, function: Callable[..., Any] = linear.linear_sums, within: float = CLOSE) -> None:
    """Fails unless sums and gradients are those of the square, whatever padding holds."""
    *tensors, g, h = case.inputs()
    padding_mask, log_decay = case.padding_mask(), case.log_decay()
    given = [
        poison(tensor, padding_mask, value) for tensor, value in zip(tensors, (float("nan"), 1e6, -1e6), strict=True)
    ]
    g = poison(g, padding_mask, float("nan"))
    h = h if padding_mask is None or not case.sums else h.masked_fill(~padding_mask[..., None], float("nan"))
    more = [] if log_decay is None else [log_decay]

    def act(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, k = (tensor.expand(-1, -1, case.heads, -1) for tensor in (q, k))
        return function(q, k, v, log_decay=log_decay, **case.settings())

    actual = outputs_and_gradients(act, [*given, *more], [g, h])
    zeros = [tensor.double().nan_to_num() for tensor in (g, h)]
    right = outputs_and_gradients(
        lambda *tensors: square(case, *tensors), [tensor.double() for tensor in [*tensors, *more]], zeros
    )
    far = [relative_error(tensor, other) for tensor, other in zip(actual, right, strict=True) if other.numel()]
    names = [name for name in NAMES[: len(right)] if case.sums or name != "denominators"]
    distances = dict(zip(names, far, strict=True))
    assert all(far <= within for far in distances.values()), distances


CASES = [
    *(Case(length, causal=causal) for length in (1, 2, 63, 64, 65, 129) for causal in (False, True)),
    *(Case(length, causal=causal, decay=-0.3) for length in (1, 33, 64, 130) for causal in (False, True)),
    *(Case(70, features, dim, True) for features, dim in ((20, 32), (64, 24), (96, 16), (16, 128))),
    Case(193, 32, 32, True, heads=2),
    Case(70, 24, 16, decay=-0.3, padded=True, heads=2, batch=2),
    Case(70, 16, 24, True, -0.1, True, heads=2, batch=2),
    Case(130, 72, 80, decay=-0.1, sums=False),
    Case(130, 72, 80, True, -0.1),
    Case(97, causal=True, decay=-0.05, padded=True, heads=3, batch=2, sums=False, shared=True),
    Case(130, decay=-0.2, heads=2, lead=0.5),
    Case(130, decay=-0.2, heads=2, lead=-0.5, sums=False),
    Case(97, causal=True, decay=-0.2, heads=2, lead=0.5),
    Case(97, padded=True, batch=2),
    Case(97, causal=True, padded=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums_and_gradients(case: Case) -> None:
    skip_without_tiles("linear", case.dtype, max(case.features, case.dim))
    check(case)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("decay", [-20.0, -1e4])
def test_strong_decays_do_not_overflow(causal: bool, decay: float) -> None:
    """Differences of the sums of logarithms over a chunk are rounded to 1e-7 of the sums."""
    check(Case(70, causal=causal, decay=decay, lead=0.5), within=2e-4)
    check(Case(70, causal=causal, decay=decay), within=0.1 if decay < -1e3 else 2e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_a_decay_is_that_of_a_token_by_token_scan(causal: bool) -> None:
    """S_t = a_t S_{t-1} + k_t v_tᵀ from the left; from the right the decay is that of the token that is left."""
    case = Case(97, 8, 8, causal, decay=-0.1, heads=2, sums=False)
    q, k, v, _, _ = case.inputs()
    log_decay = case.log_decay()
    assert log_decay is not None
    y, _ = linear.linear_sums(q, k, v, log_decay=log_decay, **case.settings())
    q, k, v, kept = (t.double() for t in (q, k, v, log_decay.exp()))
    state, right = torch.zeros(1, 2, 8, 8, dtype=q.dtype, device=DEVICE), torch.zeros_like(v)
    for at in range(case.length):
        state = kept[:, at, :, None, None] * state + k[:, at, :, :, None] * v[:, at, :, None, :]
        right[:, at] += (q[:, at, :, None] @ state)[:, :, 0]
    state.zero_()
    for at in range(case.length - 1, 0, -1) if not causal else ():
        state = kept[:, at, :, None, None] * (state + k[:, at, :, :, None] * v[:, at, :, None, :])
        right[:, at - 1] += (q[:, at - 1, :, None] @ state)[:, :, 0]
    assert relative_error(y, right) <= CLOSE


@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_keeps_sums_in_float32(causal: bool) -> None:
    """The sums themselves are those of the rounded inputs; only the gradients are rounded once, at their end."""
    case = Case(130, causal=causal, decay=-0.1, dtype=torch.float16)
    *tensors, g, h = case.inputs()
    tensors.append(-0.1 * torch.rand(case.batch, case.length, case.heads, device=DEVICE))
    actual = outputs_and_gradients(
        lambda q, k, v, log_decay: linear.linear_sums(q, k, v, causal=causal, log_decay=log_decay), tensors, [g, h]
    )
    right = outputs_and_gradients(
        lambda *tensors: square(case, *tensors), [tensor.double() for tensor in tensors], [g.double(), h.double()]
    )
    exact = 2 ** -(10 if DEVICE.type == "cuda" else 18)  # TF32 products on a GPU
    within = [exact, exact, *[2**-10] * 3, exact]
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
        ({"v": torch.zeros(1, 4, 2, 257)}, "none wider than 256"),
        ({"k": torch.zeros(1, 4, 2, 16).half()}, "must all be float32"),
        (dict.fromkeys("qkv", torch.zeros(1, 0, 2, 16)), "length must be from 1"),
        ({"log_decay": torch.zeros(1, 4, 2).double()}, "a number for each token and head"),
        ({"lead": 1.5}, "lead must be from -1 to 1"),
    ],
)
def test_mistakes(change: dict[str, Any], sentence: str) -> None:
    given = dict.fromkeys("qkv", torch.zeros(1, 4, 2, 16)) | change
    moved: dict[str, Any] = {
        name: value.to(DEVICE) if isinstance(value, Tensor) else value for name, value in given.items()
    }
    with pytest.raises(UserError, match=sentence):
        linear.linear_sums(moved.pop("q"), moved.pop("k"), moved.pop("v"), causal=False, **moved)
