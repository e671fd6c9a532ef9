"""The gated delta rule and its gradients against the rule token by token in float64, by the interpreter or on a GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genoattn.attention.kernels import delta
from genoattn.errors import UserError
from tests.attention.kernels.references import CLOSE, DEVICE, outputs_and_gradients, relative_error


class Case(NamedTuple):
    """A case of the delta rule; `alike` keys are nearly one, and `decay` is the mean logarithm of what tokens keep."""

    length: int
    dim: int = 16
    dim_value: int = 16
    own: bool = True
    heads: int = 1
    batch: int = 1
    decay: float = -0.1
    alike: bool = False
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        usual = self._field_defaults
        words = [f"{name}={value}" for name, value in self._asdict().items() if name in usual and value != usual[name]]
        return " ".join([f"n={self.length}", *words]).replace("torch.", "")

    def inputs(self) -> list[Tensor]:
        """q, k, v, write, log_kept and the gradient of the output."""
        draw = torch.Generator().manual_seed(0)
        widths = (self.dim, self.dim, self.dim_value, self.dim_value)
        q, k, v, g = (torch.randn(self.batch, self.length, self.heads, width, generator=draw) for width in widths)
        if self.alike:
            k = k[:, :1] + 0.01 * k
        write, log_kept = torch.rand(2, self.batch, self.length, self.heads, generator=draw)
        given = [t.to(self.dtype).to(DEVICE) for t in (F.normalize(q, dim=-1), F.normalize(k, dim=-1), v)]
        write = 1 - 0.1 * write if self.alike else write
        return [*given, *(t.to(DEVICE) for t in (write, 2 * self.decay * log_kept, g))]


def rule(q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor, own: bool) -> Tensor:
    """The rule token by token."""
    state, outputs = q.new_zeros(*q.shape[:1], *q.shape[2:], v.shape[3]), []
    for at in range(q.shape[1]):
        before = state
        kept = state * log_kept[:, at, :, None, None].exp()
        stored = (kept * k[:, at, ..., None]).sum(-2)
        state = kept + k[:, at, ..., None] * ((v[:, at] - stored) * write[:, at, :, None])[..., None, :]
        outputs.append(((state if own else before) * q[:, at, ..., None]).sum(-2))
    return torch.stack(outputs, 1)


NAMES = ("y", "dq", "dk", "dv", "dwrite", "dlog_kept")


def check(case: Case, function: Callable[..., Any] = delta.delta_rule, within: float = 2 * CLOSE) -> None:
    """Fails unless outputs and gradients are those of the rule."""
    *tensors, g = case.inputs()
    actual = outputs_and_gradients(lambda *tensors: (function(*tensors, own=case.own),), tensors, [g])
    right = outputs_and_gradients(
        lambda *tensors: (rule(*tensors, own=case.own),), [t.double() for t in tensors], [g.double()]
    )
    far = {name: relative_error(*pair) for name, *pair in zip(NAMES, actual, right, strict=True)}
    assert all(distance <= within for distance in far.values()), f"off by {far}"


@pytest.mark.parametrize(
    "case",
    [
        *(Case(length, own=own) for length, own in ((1, True), (15, False), (64, True), (64, False))),
        Case(130, 24, 16, heads=2, batch=2),
        Case(130, 16, 24, own=False),
        Case(70, 72, 80),
        Case(70, decay=-20.0),
    ],
    ids=str,
)
def test_outputs_and_gradients(case: Case) -> None:
    check(case, within=1e-4 if case.decay < -1 else 2 * CLOSE)


def test_keys_that_are_nearly_one() -> None:
    """Powers of the system of a chunk would be as large as 1e17."""
    check(Case(64, alike=True, decay=-1e-3), within=1e-4)


def test_half_precision_keeps_states_in_float32() -> None:
    case = Case(97, dtype=torch.float16)
    *tensors, g = case.inputs()
    y = delta.delta_rule(*tensors, own=True)
    assert relative_error(y, rule(*(t.double() for t in tensors), own=True)) <= (
        2**-8 if DEVICE.type == "cuda" else 1e-5
    )
    assert g.dtype == y.dtype == torch.float32


def test_a_key_gives_the_value_that_was_written_last() -> None:
    k = torch.eye(16, device=DEVICE)[torch.arange(40, device=DEVICE) % 10][None, :, None]
    v = torch.randn(k.shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    ones = torch.ones(k.shape[:3], device=DEVICE)
    assert relative_error(delta.delta_rule(k, k, v, ones, 0 * ones), v) <= CLOSE
    before = delta.delta_rule(k, k, v, ones, 0 * ones, own=False)
    assert relative_error(before[:, 10:], v[:, :-10]) <= CLOSE and not before[:, :10].any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"v": torch.zeros(1, 4, 2, 129)}, "none wider than 128"),
        ({"k": torch.zeros(1, 4, 2, 16).half()}, "must all be float32"),
        ({"write": torch.zeros(1, 4, 2).double()}, "write must be float32"),
        (dict.fromkeys("qkv", torch.zeros(1, 0, 2, 16)), "length must be from 1"),
    ],
)
def test_mistakes(change: dict[str, Tensor], sentence: str) -> None:
    given = dict.fromkeys("qkv", torch.zeros(1, 4, 2, 16)) | change
    numbers = torch.zeros(given["q"].shape[:3])
    given = {"write": numbers, "log_kept": numbers} | given
    moved: dict[str, Any] = {name: t.to(DEVICE) for name, t in given.items()}
    with pytest.raises(UserError, match=sentence):
        delta.delta_rule(**moved)
