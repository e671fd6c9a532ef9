"""Flash attention and all its gradients against a dense reference in float64, run by the interpreter or on a GPU."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from genoattn.attention.kernels import configurations, flash, flash_launch
from genoattn.attention.kernels.ahead_of_time import tune
from genoattn.attention.kernels.configurations import Tiles, forced_tiles
from genoattn.errors import UserError
from tests.attention.kernels.references import (
    CLOSE,
    DEVICE,
    Softmax,
    failures,
    outputs_and_gradients,
    poison,
    reference,
    relative_error,
    skip_without_tiles,
)

CASES = [
    *(Softmax(length, 16, causal) for length in (1, 2, 31, 32, 33, 64, 97) for causal in (False, True)),
    *(Softmax(33, dim, causal=dim % 32 == 0) for dim in (1, 20, 24, 32, 40, 64, 72, 128)),
    *(Softmax(70, 16, window=window) for window in ((0, 0), (5, 0), (0, 40), (None, 7))),
    *(Softmax(97, 16, window=window) for window in ((31, 32), (33, 31), (64, 64))),
    *(Softmax(70, 16, True, (left, 9)) for left in (0, 31, 32, 33, 69, 70)),
    Softmax(128, 16, True),
    Softmax(128, 32, window=(40, 24)),
    Softmax(161, 16),
    Softmax(161, 16, True, (70, None)),
    Softmax(40, 16, heads=4, kv_heads=2, batch=2),
    Softmax(40, 24, True, heads=3, kv_heads=1, batch=2, padded=True),
    Softmax(65, 16, padded=True, batch=3),
    Softmax(33, 16, True, padded=True),
    Softmax(70, 20, window=(20, 33), padded=True, heads=2, kv_heads=2),
    Softmax(2, 16, padded=True, batch=2),
    Softmax(40, 16, scale=3.0),
    Softmax(97, 16, padded=True, at_ends=True, batch=2),
    Softmax(130, 16, True, (70, None), padded=True, at_ends=True),
    Softmax(20, 16, keys=97, before=50, window=(40, 9), heads=2, kv_heads=1),
    Softmax(70, 16, keys=20),
    Softmax(33, 16, True, keys=90, before=57, padded=True, batch=2),
    Softmax(96, 16, window=(7, 5), dilation=3, heads=2, kv_heads=1),
    Softmax(71, 16, True, (9, 0), dilation=2, padded=True, at_ends=True, batch=2),
    Softmax(10, 16, keys=45, before=31, window=(4, 2), dilation=4),
    Softmax(70, 16, window=(40, 24), alibi=True, heads=2, kv_heads=1),
    Softmax(30, 16, True, (9, 0), keys=51, before=21, dilation=2, alibi=True, heads=2),
    Softmax(45, 16, segments=3, batch=2, padded=True),
    Softmax(33, 16, True, segments=2, heads=2, keys=50, before=17),
]


def kernel(case: Softmax, inputs: list[Tensor], function: Callable[..., Any] = flash.flash_attention) -> list[Tensor]:
    """Answers and gradients of the kernel in a case."""
    *tensors, dout, dlse = inputs
    settings = case.settings()
    return outputs_and_gradients(lambda *given: function(*given, **settings, return_lse=True), tensors, [dout, dlse])


def check(case: Softmax, function: Callable[..., Any] = flash.flash_attention) -> None:
    """Fails unless the kernel answers what the reference does, whatever padding holds."""
    *tensors, dlse = case.inputs()
    masks = [case.padding_mask(of_keys) for of_keys in (False, True, True, False)]
    given = [
        poison(tensor, mask, value)
        for tensor, mask, value in zip(tensors, masks, (float("nan"), 1e6, -1e6, 1e6), strict=True)
    ]
    dlse = dlse if masks[0] is None else dlse.masked_fill(~masks[0][:, None], float("nan"))
    # The gradient of a log-sum-exp of -inf has no meaning.
    dlse = dlse.where(case.visible().any(-1)[:, None] | dlse.isnan(), 0.0)
    exact = reference(case)
    # The backward pass makes weights again from the log-sum-exp, whose rounding in float32 grows with its size.
    lse = exact[1][exact[1].isfinite()].abs()
    failed = failures(kernel(case, [*given, dlse], function), exact, CLOSE * max(1.0, lse.max().item() / 8))
    assert not failed, "; ".join(failed)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answers_and_gradients(case: Softmax) -> None:
    skip_without_tiles("flash", case.dtype, case.dim)
    check(case)


@pytest.mark.parametrize("tiles", [Tiles(16, 64, 4, 1), Tiles(64, 16, 4, 1)], ids=str)
def test_tiles_that_are_not_square(tiles: Tiles) -> None:
    """As those are that ship for half precision; the usual ones here are square."""
    with forced_tiles("forward", tiles), forced_tiles("dq", tiles), forced_tiles("dkv", tiles):
        check(Softmax(150, 16, window=(70, 20), padded=True, at_ends=True))


def test_a_narrow_window_with_a_mask_in_every_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_launch, "NARROW", 16)
    check(Softmax(97, 16, window=(7, 5), padded=True))
    check(Softmax(40, 16, window=(4, 0), keys=50, before=9))


def test_the_fastest_tiles_that_answer_right() -> None:
    """With a clock of its own: one candidate does not compile, another answers wrong, the last is the fastest."""
    case, said = tune.Case("dq", 64, "plain"), []
    first, second, *_, last = tune.CANDIDATES["dq"]

    def measure(case: tune.Case, tiles: Tiles) -> float:
        if tiles == first:
            raise RuntimeError("out of resources: shared memory\nmore")
        if tiles == second:
            raise ValueError("dk is off by 1.0e+00")
        return 1.0 if tiles == last else 2.0

    table = tune.tune([case], measure, said.append)
    assert table == {"dq 16 bit, heads of 64, plain": {"tiles": list(last), "ms": 1.0}}
    assert "is left out: out of resources: shared memory" in said[0] and "left out: dk is off" in said[1]
    assert not tune.tune([case], lambda *_: 1 / 0, said.append)


def test_timed_tiles_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"dkv 16 bit, heads of 128, narrow": {"tiles": [64, 32, 4, 2], "ms": 1.0}}
    monkeypatch.setattr(configurations, "timed_tiles", lambda: {"sm_90": {"tiles": row}})
    assert configurations.flash_tiles("dkv", "sm_90", 128, 2, "narrow") == Tiles(64, 32, 4, 2)
    assert configurations.flash_tiles("dkv", "sm_90", 128, 2) == Tiles(32, 128, 8, 2)
    assert configurations.flash_tiles("dkv", "sm_80", 64, 2, "marked") == Tiles(32, 128, 8, 2)


@pytest.mark.parametrize("mode", tune.WINDOWS)
def test_a_candidate_is_compared_with_float64(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = tune.Case("dkv", 16, mode)
    with forced_tiles("dkv", Tiles(16, 32, 4, 1)):
        tune.check(case, DEVICE, torch.float32, 66)
        monkeypatch.setattr(tune, "TOLERANCE", 1e-9)
        with pytest.raises(ValueError, match="is off by"):
            tune.check(case, DEVICE, torch.float32, 66)


@pytest.mark.parametrize("causal", [False, True])
def test_float16_is_at_most_twice_as_far_off_as_plain_float16(causal: bool) -> None:
    case = Softmax(97, 32, causal, dtype=torch.float16)
    right, plain = reference(case), reference(case, torch.float16)
    for name, actual, other, exact in zip(
        ["o", "l", "q", "k", "v"], kernel(case, case.inputs()), plain, right, strict=True
    ):
        assert relative_error(actual, exact) <= 2 * relative_error(other, exact) + 1e-5, name


def test_bfloat16() -> None:
    """Its storage and casts alone: the interpreter knows no bfloat16, so that the kernels compute in float32 there."""
    case = Softmax(40, 16, True, dtype=torch.bfloat16)
    actual = kernel(case, case.inputs())
    assert [tensor.dtype for tensor in actual] == [torch.bfloat16, torch.float32, *[torch.bfloat16] * 3]
    assert not failures(actual, reference(case), 2**-7)


def _strided(case: Softmax, kind: str) -> list[Tensor]:
    """Inputs of the same numbers that lie otherwise in memory."""
    q, k, v, dout, dlse = case.inputs()
    if kind == "heads before tokens":
        return [*(tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (q, k, v, dout)), dlse]
    if kind == "one packed tensor":
        return [*torch.stack([q, k, v, dout], dim=2).unbind(2), dlse]
    if kind == "channels apart":
        return [
            *(tensor.transpose(1, 3).contiguous().transpose(1, 3) for tensor in (q, k, v, dout)),
            dlse.mT.contiguous().mT,
        ]
    odd = [torch.nn.functional.pad(tensor, (1, 2))[..., 1:-2] for tensor in (q, k, v, dout)]  # no multiple of 16 bytes
    return [*odd, dlse]


@pytest.mark.parametrize("kind", ["heads before tokens", "one packed tensor", "channels apart", "odd strides"])
def test_inputs_that_are_not_contiguous(kind: str) -> None:
    case = Softmax(40, 16, True, heads=2, kv_heads=2, batch=2)
    inputs = _strided(case, kind)
    assert not all(tensor.is_contiguous() for tensor in inputs)
    assert not failures(kernel(case, inputs), reference(case))


def test_one_key_for_all_heads_by_a_stride_of_zero() -> None:
    case = Softmax(40, 16, heads=2, kv_heads=1)
    q, k, v, dout, _ = case.inputs()
    expanded = [tensor.expand(-1, -1, 2, -1) for tensor in (k, v)]
    assert relative_error(flash.flash_attention(q, *expanded), reference(case)[0]) < CLOSE
    leaves = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
    out = flash.flash_attention(leaves[0], *(tensor.expand(-1, -1, 2, -1) for tensor in leaves[1:]))
    (out * dout).sum().backward()
    assert all(tensor.grad is not None and tensor.grad.shape == tensor.shape for tensor in leaves)


def test_disjoint_keys_merge_by_their_log_sum_exps_with_gradients() -> None:
    """Left of a token, and itself with what lies right of it: together the whole."""
    case = Softmax(70, 16)
    *tensors, dout, _ = case.inputs()

    def merged(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        past, past_lse = flash.flash_attention(q, k, v, window=(None, 0), return_lse=True)
        # The token itself would be in both: its key is taken out of the second.
        future, future_lse = flash.flash_attention(q, k, v, window=(0, None), return_lse=True)
        own = (q * k).sum(-1).transpose(1, 2) * q.shape[-1] ** -0.5
        rest = future_lse + torch.log1p(-(own - future_lse).exp().clamp(max=1 - 1e-6))
        share = (own - future_lse).exp().transpose(1, 2)[..., None].clamp(max=1 - 1e-6)
        future = (future - share * v) / (1 - share)
        total = torch.logaddexp(past_lse, rest)
        parts = [(lse - total).exp().transpose(1, 2)[..., None] for lse in (past_lse, rest)]
        return (parts[0] * past + parts[1] * future,)

    whole = outputs_and_gradients(lambda *given: (flash.flash_attention(*given),), tensors, [dout])
    assert max(map(relative_error, outputs_and_gradients(merged, tensors, [dout]), whole)) < 1e-4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"q": torch.zeros(1, 4, 3, 16)}, "number of heads that divides"),
        ({"k": torch.zeros(1, 5, 2, 16)}, "k and v must have one shape"),
        ({"q": torch.zeros(1, 4, 2, 16, dtype=torch.float64)}, "must all be float32, float16 or bfloat16"),
        (dict.fromkeys("qkv", torch.zeros(1, 4, 2, 129)), "dim_head must be from 1 to 128"),
        (dict.fromkeys("qkv", torch.zeros(1, 0, 2, 16)), "length and keys must be from 1"),
        ({"padding_mask": torch.ones(1, 5, dtype=torch.bool)}, "padding_mask must be"),
        ({"window": (-1, 3)}, "window must be a pair"),
        ({"scale": 0.0}, "scale must be above 0"),
    ],
)
def test_mistakes(change: dict[str, Any], sentence: str) -> None:
    given = dict.fromkeys("qkv", torch.zeros(1, 4, 2, 16)) | change
    moved = {name: tensor.to(DEVICE) if isinstance(tensor, Tensor) else tensor for name, tensor in given.items()}
    bare = inspect.unwrap(flash.flash_attention)  # as users have it, without a check of shapes before
    with pytest.raises(UserError, match=sentence):
        bare(moved.pop("q"), moved.pop("k"), moved.pop("v"), **moved)
