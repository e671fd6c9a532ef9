"""Full attention by torch's `varlen_attn`, which needs a GPU: here a stand-in takes its arguments and its liberties."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
import torch.nn.attention.varlen as torchs
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from genoattn.attention.base import TokenLayout
from genoattn.attention.full import FullAttention
from genoattn.attention.modules import dispatch
from genoattn.attention.modules.head_options import HeadOptions
from genoattn.attention.ops import varlen
from genoattn.attention.ops.softmax import full_attention
from genoattn.attention.window import WindowAttention
from genoattn.errors import UserError

CUDA, LENGTH = torch.device("cuda"), 13
INNER = torch.ones(3, LENGTH, dtype=torch.bool)
INNER[0, 9:] = INNER[1, :4] = INNER[2, 5] = False
NONE_REAL = INNER.clone()
NONE_REAL[1] = False
TWO = HeadOptions(count=2)
SIGNATURE = inspect.signature(torchs.varlen_attn)


class Unwritten(torch.autograd.Function):
    """Rows after the last token are as the memory was, in the answer and in the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, last: int) -> Tensor:
        ctx.last = last
        return x.index_fill(0, torch.arange(last, len(x)), float("nan"))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0].index_fill(0, torch.arange(ctx.last, len(upstream[0])), float("nan")), None


def stand_in(*given: Any, **words: Any) -> Tensor:
    """Attention within each sequence, by the signature of torch's."""
    bound = SIGNATURE.bind(*given, **words)
    bound.apply_defaults()
    query, key, value, ends, of_keys, most, most_k = bound.args[:7]
    assert ends.dtype == of_keys.dtype == torch.int32 and ends[0] == 0 and max(ends.diff()) <= min(most, most_k)
    assert all(t.is_contiguous() for t in (query, key, value)) and bound.kwargs["scale"] is None
    assert bound.kwargs["enable_gqa"] or query.shape[1] == key.shape[1]
    query, key, value = (Unwritten.apply(t, int(ends[-1])).nan_to_num(7.0) for t in (query, key, value))
    outputs = [query[:0]]
    for start, stop, k_start, k_stop in zip(ends, ends[1:], of_keys, of_keys[1:], strict=False):
        if start < stop:
            part = query[start:stop], key[k_start:k_stop], value[k_start:k_stop]
            causal = {(-1, -1): False, (-1, 0): True}[bound.kwargs["window_size"]]
            outputs.append(full_attention(*(t[None] for t in part), causal=causal)[0])
    y = torch.cat([*outputs, query[int(ends[-1]) :]])
    return Unwritten.apply(y, int(ends[-1]))  # pyright: ignore[reportReturnType]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The stand-in in place of torch's function, and its calls."""
    return counted(stand_in, monkeypatch)


def counted(function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a function in place of torch's; the list of its calls."""
    made: list[int] = []

    @wraps(torchs.varlen_attn)
    def call(*given: Any, **words: Any) -> Any:
        made.append(1)
        return function(*given, **words)

    monkeypatch.setattr(torchs, "varlen_attn", call)
    return made


@pytest.mark.parametrize("mask", [None, INNER, NONE_REAL], ids=["no padding", "padding", "a sequence of padding"])
@pytest.mark.parametrize("kv_heads", [2, 1])
@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences_answer_alike(calls: list[int], causal: bool, kv_heads: int, mask: Tensor | None) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v, up = (torch.randn(3, LENGTH, heads, 8, generator=draw) for heads in (2, kv_heads, kv_heads, 2))
    found = []
    for attend in (full_attention, varlen.full_attention):
        leaves = [t.clone().requires_grad_() for t in (q, k, v)]
        y = attend(*leaves, causal=causal, padding_mask=mask)
        found.append([y.detach(), *torch.autograd.grad(y, leaves, up)])
    assert calls == [1]
    for right, packed in zip(*found, strict=True):
        assert (right - packed).abs().max() < 2e-6


def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU for all that asks whether there is one; the tensors of a CPU are as good as its own."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dispatch.Backend, "uses_varlen", lambda self, q: self.requested == "varlen")


@pytest.mark.parametrize("heads", [TWO, HeadOptions(count=2, cross_segment=0.5)], ids=["own", "across"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_layer_is_the_same(
    calls: list[int], causal: bool, heads: HeadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads that see other segments take torch's usual operator."""
    gpu(monkeypatch)
    x = torch.randn(3, LENGTH, 16, generator=torch.Generator().manual_seed(1))
    for ids in (torch.arange(LENGTH) % 2, torch.arange(LENGTH) // 6):
        layout, found = TokenLayout(INNER, segment_ids=ids.expand(3, -1)), []
        for backend in ("torch", "varlen"):
            torch.manual_seed(0)
            found.append(FullAttention(16, causal, heads, backend=backend)(x, layout).detach())
        assert (found[0] - found[1]).abs().max() < 2e-6
    assert calls == [1, 1]


def test_the_choice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="backend=varlen: varlen_attn needs a GPU and there is none; auto takes"):
        FullAttention(32, False, backend="varlen")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for build in (
        lambda: WindowAttention(32, False, backend="varlen"),
        lambda: FullAttention(32, False, sink=True, backend="varlen"),
    ):
        with pytest.raises(UserError, match="backend=varlen: attention=full without a sink and registers has it alone"):
            build()
    layer = FullAttention(32, False, TWO, backend="varlen")
    assert layer.describe_backend(CUDA, torch.bfloat16) == "varlen, as requested"
    assert layer.describe_backend(CUDA).startswith("torch, which computes the same: varlen_attn knows float16")
    assert layer.describe_backend(CUDA).endswith("not 16 in float32")
    assert not layer.engine.uses_varlen(torch.zeros(1, 3, 2, 16))  # as in the memory estimate of a run
    assert layer(torch.zeros(1, 3, 32)).shape == (1, 3, 32)
    monkeypatch.setattr(torchs, "varlen_attn", lambda query, key, value, is_causal=False: query)
    with pytest.raises(UserError, match=r"backend=varlen: it needs torch 2\.12 or newer"):
        FullAttention(32, False, backend="varlen")
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"backend=varlen: torch .* has no varlen_attn"):
        FullAttention(32, False, backend="varlen")


@pytest.mark.parametrize(("width", "dtype"), [(16, torch.float32), (16, torch.bfloat16), (20, torch.bfloat16)])
def test_announced_is_what_runs(width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    layer = FullAttention(2 * width, False, TWO, backend="varlen")
    with FakeTensorMode():
        q = torch.empty(2, 9, 2, width, dtype=dtype, device=CUDA)
    runs = width == 16 and dtype == torch.bfloat16
    assert layer.engine.uses_varlen(q) == runs and not layer.engine.uses_triton(q)
    assert layer.describe_backend(CUDA, dtype).startswith("varlen, as" if runs else "torch, which computes the same: ")


def test_torchs_own_function_takes_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without numbers, forward and backward."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    words: dict[str, Any] = {"dtype": torch.bfloat16, "device": "meta"}
    q, k, v = (torch.empty(2, 9, heads, 16, requires_grad=True, **words) for heads in (4, 2, 2))
    made = counted(torchs.varlen_attn, monkeypatch)
    y = varlen.full_attention(q, k, v, causal=True, padding_mask=torch.ones(2, 9, dtype=torch.bool, device="meta"))
    gradients = torch.autograd.grad(y, [q, k, v], torch.empty_like(y))
    assert made == [1] and [t.shape for t in (y, *gradients)] == [q.shape, q.shape, k.shape, v.shape]
    assert {t.dtype for t in (y, *gradients)} == {torch.bfloat16}
