"""Norm, rotation and features by head, and their gradients, against float64, run by the interpreter or on a GPU."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.attention.full import FullAttention
from genoattn.attention.kernels import features, heads
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules import fused
from genoattn.attention.modules.feature_maps import feature_map
from genoattn.attention.modules.head_options import HeadOptions
from genoattn.attention.window import WindowAttention
from genoattn.errors import UserError
from tests.attention.kernels.references import CLOSE, DEVICE, outputs_and_gradients, relative_error


class Case(NamedTuple):
    """A case of `turned_heads`; `sequences` are those with angles of their own."""

    length: int
    dim: int = 16
    heads: int = 2
    batch: int = 1
    sequences: int = 1
    norm: bool = True
    scaled: bool = True
    turned: bool = True
    factor: float = 1.0
    dtype: torch.dtype = torch.float32
    strided: bool = False

    def __str__(self) -> str:
        usual = self._field_defaults
        words = [f"{name}={value}" for name, value in self._asdict().items() if name in usual and value != usual[name]]
        return " ".join([f"n={self.length}", *words]).replace("torch.", "")

    def inputs(self) -> list[Tensor]:
        """Tokens, the logarithms of the scales, and the gradient of the outputs."""
        draw = torch.Generator().manual_seed(0)
        shape = self.batch, self.length, self.heads, self.dim
        x, up = (torch.randn(shape, generator=draw) * spread for spread in (3.0, 1.0))
        x[0, 0, 0] = 0
        scale = torch.randn(self.heads, generator=draw)
        return [t.to(DEVICE, self.dtype) for t in (x, scale, up)]

    def angles(self) -> tuple[Tensor, Tensor] | None:
        angle = torch.rand(self.sequences, self.length, 1, self.dim // 2, generator=torch.Generator().manual_seed(1))
        return ((6.2 * angle).cos().to(DEVICE), (6.2 * angle).sin().to(DEVICE)) if self.turned else None


def plainly(case: Case, x: Tensor, log_scale: Tensor | None = None) -> Tensor:
    """The reference."""
    y = x * case.factor
    if case.norm:
        y = y * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    if log_scale is not None:
        y = y * (log_scale / 2).exp()[:, None]
    if case.turned:
        cos, sin = (t.to(y.dtype) for t in case.angles() or ())
        one, other = y.chunk(2, dim=-1)
        y = torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)
    return y


def check(case: Case, function: Callable[..., Any] = heads.turned_heads, within: float = CLOSE) -> None:
    """Fails unless outputs and gradients are those of the reference."""
    x, scale, up = case.inputs()
    angles, words = case.angles(), {"norm": case.norm, "factor": case.factor}

    def run(x: Tensor, scale: Tensor | None = None) -> list[Tensor]:
        if case.strided:  # channels of a wider projection
            x = torch.cat([x, x], dim=-1)[..., : case.dim]
        return [function(x, scale, angles, **words)]

    up = up.transpose(1, 2).contiguous().transpose(1, 2) if case.strided else up
    given = [x, scale] if case.scaled else [x]
    actual = outputs_and_gradients(run, given, [up])
    right = outputs_and_gradients(lambda *t: [plainly(case, *t)], [t.double() for t in given], [up.double()])
    for name, some, exact in zip(("y", "dx", "dscale"), actual, right, strict=False):
        assert relative_error(some, exact) <= within, f"{name} is off by {relative_error(some, exact):.1e}"


@pytest.mark.parametrize(
    "case",
    [
        *(Case(length) for length in (1, 63, 64, 130)),
        *(Case(40, dim) for dim in (2, 18, 64, 130)),
        Case(70, batch=3, sequences=3, heads=3),
        Case(70, batch=3, factor=1.3, strided=True),
        Case(70, turned=False),
        Case(9, 7, turned=False, scaled=False, factor=0.5),
        Case(70, norm=False, scaled=False, batch=2, strided=True),
        Case(70, 36, norm=False, scaled=False, batch=2, sequences=2, factor=1.2),
        Case(65, 32, scaled=False),
    ],
    ids=str,
)
def test_heads(case: Case) -> None:
    check(case)


def plain_features(name: str, case: Case, z: Tensor) -> list[Tensor]:
    """The reference."""
    phi = feature_map(z, name)
    return [phi, plainly(case._replace(norm=False), phi)]


def check_features(name: str, case: Case, function: Callable[..., Any] = features.features) -> None:
    """Fails unless both outputs and the gradient are those of the reference."""
    z, _, up = case.inputs()
    z, both = z / 2, [up, up.flip(1)]
    actual = outputs_and_gradients(lambda z: function(z, name, case.angles()), [z], both)
    right = outputs_and_gradients(partial(plain_features, name, case), [z.double()], [t.double() for t in both])
    for what, some, exact in zip(("phi", "turned", "dz"), actual, right, strict=True):
        assert relative_error(some, exact) <= CLOSE, f"{what} is off by {relative_error(some, exact):.1e}"


@pytest.mark.parametrize("name", features.NAMES)
@pytest.mark.parametrize("case", [Case(70, 18, batch=2, sequences=2), Case(9, 7, turned=False)], ids=str)
def test_features(name: str, case: Case) -> None:
    check_features(name, case)


def test_one_of_both_outputs_has_a_gradient() -> None:
    case = Case(40)
    z = case.inputs()[0].requires_grad_()
    some, other = (torch.autograd.grad(features.features(z, "elu", case.angles())[at].sum(), z)[0] for at in (0, 1))
    phi, turned = features.features(z, "elu", case.angles())
    assert torch.allclose(some + other, torch.autograd.grad((phi + turned).sum(), z)[0], atol=1e-5)
    with pytest.raises(UserError, match="features must be one of elu, relu, exp, got taylor"):
        features.features(z, "taylor")


def test_many_blocks_have_one_program_for_all_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    for programs in (1, 10**6):
        monkeypatch.setattr(heads, "PROGRAMS", programs)
        check(Case(70, heads=3, batch=2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    check(Case(70, 32, dtype=dtype, batch=2), within=2e-2 if dtype == torch.bfloat16 else 3e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(1, 4, 2, 300)}, "from 1 to 256 channels"),
        ({"log_scale": torch.zeros(3)}, r"log_scale must be \[2\]"),
        ({"norm": False, "log_scale": torch.zeros(2)}, "with norm=True"),
        ({"turned": (torch.zeros(1, 4, 1, 3),) * 2}, "must be float32"),
        ({"x": torch.zeros(1, 4, 2, 8, dtype=torch.float64)}, "float32, float16 or bfloat16"),
    ],
)
def test_refusals(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"x": torch.zeros(1, 4, 2, 8), "log_scale": None, "turned": None} | change
    given = {name: value.to(DEVICE) if isinstance(value, Tensor) else value for name, value in given.items()}
    with pytest.raises(UserError, match=words):
        heads.turned_heads(given.pop("x"), given.pop("log_scale"), given.pop("turned"), **given)


@pytest.mark.parametrize(
    "factory",
    [
        partial(FullAttention, kv_heads=1, heads=HeadOptions(count=2, logit_scale=4.0, rotate_values=True)),
        partial(WindowAttention, left=9, right=4, heads=HeadOptions(count=2, qk_norm=False)),
        partial(LinearAttention, heads=HeadOptions(count=2, rope_scaling="yarn", rope_factor=2, rope_trained_length=9)),
        partial(LinearAttention, features="elu", heads=HeadOptions(count=2, positions="none"), decay=False),
    ],
)
def test_a_layer_is_the_same_by_the_kernel(factory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = factory(32, False).to(DEVICE), torch.randn(2, 20, 32, device=DEVICE)
    mask, forward = torch.rand(2, 20, device=DEVICE) > 0.2, heads.heads_forward
    found: list[list[Tensor]] = []
    for by_kernel in (False, True):
        calls: list[Tensor] = []
        monkeypatch.setattr(heads, "heads_forward", lambda x, *rest, calls=calls: calls.append(x) or forward(x, *rest))
        monkeypatch.setattr(fused, "fuses", lambda x, by_kernel=by_kernel: by_kernel)
        leaf = x.clone().requires_grad_()
        y = layer(leaf, TokenLayout(mask))
        found.append([y.detach(), *torch.autograd.grad(y, [leaf, *layer.parameters()], torch.ones_like(y))])
        signed = isinstance(layer, LinearAttention) and layer.features == "signed"  # outputs have a norm too
        assert len(calls) == by_kernel * (2 + signed + 2 * layer.heads.rotate_values)
    for plain, quick in zip(*found, strict=True):
        assert (plain - quick).abs().max() <= 1e-5 * max(1.0, float(plain.abs().max()))
