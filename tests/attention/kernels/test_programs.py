"""Properties of every kernel: no writes beside its outputs, independent programs, offsets beyond 2^31."""

import mmap
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from genoattn.attention.kernels import blocks, delta, features, flash, heads, launch, linear
from tests.attention.kernels.references import DEVICE, relative_error
from tests.attention.kernels.test_blocks import Lists
from tests.attention.kernels.test_delta import Case as Delta
from tests.attention.kernels.test_flash import Softmax
from tests.attention.kernels.test_heads import Case as Heads
from tests.attention.kernels.test_linear import Case

GUARD = 64
CANARY = 12345.0
NORESERVE = 0x4000
"""Linux: memory that is not there until it is touched, however much there is."""


def flash_call(case: Softmax) -> list[Tensor]:
    q, k, v, dout, dlse = case.inputs()
    own, others = case.segment_ids() or (None, None)
    masks = flash._marks(case.padding_mask(), own), flash._marks(case.padding_mask(True), others), case.slopes()
    settings = (case.segments > 0, *flash._sides(case.length, case.causal, case.window), case.before, 0.2)
    out, lse = flash.forward(q, k, v, *masks, *settings)
    return [out, lse, *flash.backward(dout, dlse, q, k, v, *masks, out, lse, *settings)]


def linear_call(case: Case) -> list[Tensor]:
    q, k, v, g, h = case.inputs()
    shared = (case.padding_mask(), case.log_decay(), case.causal, case.lead, case.sums)
    return [*linear.forward(q, k, v, *shared), *linear.backward(g, h, q, k, v, *shared, case.decay < 0)]


def block_call(case: Lists) -> list[Tensor]:
    q, k, v, dout, dlse = case.inputs()
    given = case.settings()
    ends = None if given["ends"] is None else given["ends"].int()
    shared = (case.table().int(), None, None, None, None, given["bias"], ends, given["padding_mask"])
    sizes = (case.query_block, case.key_block, 0.2)
    out, lse = blocks.forward(q, k, v, *shared, *sizes)
    return [out, lse, *blocks.backward(dout, dlse, q, k, v, *shared, out, lse, *sizes)]


def heads_call(case: Heads) -> list[Tensor]:
    x, scale, up = case.inputs()
    cos, sin = case.angles() or (None, None)
    y, gain = heads.forward(x, scale, cos, sin, True, case.factor)
    return [y, gain, *heads.backward(up, y, gain, scale, cos, sin, case.factor)]


def features_call(case: Heads) -> list[Tensor]:
    z, _, up = case.inputs()
    cos, sin = case.angles() or (None, None)
    phi, turned = features.forward(z, cos, sin, "relu")
    return [phi, turned, features.backward(up, up.flip(1), phi, cos, sin, "relu")]


def delta_call(case: Delta) -> list[Tensor]:
    *tensors, g = case.inputs()
    return [delta.forward(*tensors, case.own), *delta.backward(g, *tensors, case.own)]


CALLS: dict[str, Callable[[], list[Tensor]]] = {
    "flash": lambda: flash_call(Softmax(40, 24, True, heads=2, kv_heads=1, batch=2)),
    "flash with padding": lambda: flash_call(Softmax(40, 16, window=(9, 5), padded=True, batch=2, alibi=True)),
    "flash of segments": lambda: flash_call(Softmax(40, 16, segments=2, keys=50, before=7)),
    "linear": lambda: linear_call(Case(70, 20, 72, heads=2, batch=2)),
    "delta": lambda: delta_call(Delta(70, 20, 24, False, heads=2)),
    "blocks": lambda: block_call(Lists(33, 40, key_block=8, slots=3, dim=20, heads=2, batch=2, padded=True)),
    "blocks with bias": lambda: block_call(Lists(40, 40, 32, 32, slots=2, bias=True, causal=True, apart=True)),
    "features": lambda: features_call(Heads(70, 18, heads=3, batch=2, sequences=2)),
    "heads": lambda: heads_call(Heads(70, 18, heads=3, batch=2, sequences=2)),
    "causal linear": lambda: linear_call(Case(130, 16, 16, True, -0.1, padded=True)),
}


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Every torch.empty lies between guard bands and holds canaries; the function says what became of them."""
    made: list[tuple[Tensor, Tensor]] = []
    plain = torch.empty

    def empty(*shape, dtype=torch.float32, device=None) -> Tensor:
        size = torch.Size(shape[0] if isinstance(shape[0], (tuple, list)) else shape)
        whole = torch.full((GUARD + size.numel() + GUARD,), CANARY, dtype=dtype, device=device)
        inner = whole[GUARD : GUARD + size.numel()].view(size)
        made.append((whole, inner))
        return inner

    def harmed() -> list[str]:
        assert made, "no output was made by torch.empty, so none was guarded"
        canary = [torch.tensor(CANARY, dtype=whole.dtype, device=whole.device) for whole, _ in made]
        said = [
            f"{tuple(i.shape)} was not filled"
            for (_, i), tensor in zip(made, canary, strict=True)
            if (i == tensor).any()
        ]
        bands = [torch.cat([whole[:GUARD], whole[-GUARD:]]) for whole, _ in made]
        beside = [bool((band != tensor).any()) for band, tensor in zip(bands, canary, strict=True)]
        return said + [f"beside {tuple(i.shape)}" for (_, i), bad in zip(made, beside, strict=True) if bad]

    monkeypatch.setattr(torch, "empty", empty)
    yield harmed
    monkeypatch.setattr(torch, "empty", plain)


@pytest.mark.parametrize("name", CALLS)
def test_outputs_are_filled_in_any_order_of_programs_and_nothing_beside_them(
    name: str, guarded: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that read what another had written, or two that wrote one place, would show."""
    usual = CALLS[name]()
    assert not guarded()
    if launch.INTERPRETED:
        from triton.runtime.interpreter import InterpreterBuilder

        place = InterpreterBuilder.set_grid_idx

        def shuffled(self, x: int, y: int, z: int) -> None:
            order = torch.randperm(self.grid_dim[0], generator=torch.Generator().manual_seed(self.grid_dim[0]))
            place(self, int(order[x]), y, z)

        monkeypatch.setattr(InterpreterBuilder, "set_grid_idx", shuffled)
    again = CALLS[name]()
    assert all(torch.equal(tensor, other) for tensor, other in zip(usual, again, strict=True))


def far_apart(shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    """A float16 tensor with such strides in the middle of memory that is not there until it is touched.

    Offsets that wrap at 2^31 numbers, to either side, stay inside it: a wrong kernel reads 0 and does not crash.
    """
    size = 2**33 + 2**20
    memory = mmap.mmap(-1, 2 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    return torch.frombuffer(memory, dtype=torch.float16).as_strided(shape, strides, size // 2)


STRIDES = {"sequences": (2**31 + 16, 16, 16, 1), "tokens": (16, 2**30 + 16, 16, 1), "heads": (64, 16, 2**31 + 16, 1)}
SHAPES = {"sequences": (2, 3, 1, 16), "tokens": (1, 4, 1, 16), "heads": (1, 3, 2, 16)}


def check_far(axis: str, attend: Callable[..., Tensor] = flash.flash_attention, pad: bool = False) -> None:
    """Fails unless answers and gradients are the same as from close memory, where `axis` passes 2^31 numbers."""
    q, k, v = (torch.randn(SHAPES[axis], generator=torch.Generator().manual_seed(at)).half() for at in range(3))
    far = [far_apart(SHAPES[axis], STRIDES[axis]).copy_(tensor) for tensor in (q, k, v)]
    padding_mask = torch.ones(q.shape[:2], dtype=torch.bool) if pad else None
    actual = []
    for tensors in ((q, k, v), far):
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        out = attend(*leaves, padding_mask=padding_mask)
        out = out[0] if isinstance(out, tuple) else out
        actual.append([out.detach(), *torch.autograd.grad(out, leaves, v.to(out.dtype))])
    assert max(map(relative_error, *actual)) < 2**-9  # of other tiles, other bits


@pytest.mark.skipif(DEVICE.type == "cuda", reason="memory that is not there is the CPU's")
@pytest.mark.parametrize("axis", STRIDES)
@pytest.mark.parametrize("pad", [False, True], ids=["descriptors", "pointers"])
def test_tensors_of_more_than_2_to_the_31_numbers(axis: str, pad: bool) -> None:
    check_far(axis, pad=pad)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="memory that is not there is the CPU's")
@pytest.mark.parametrize("axis", STRIDES)
def test_linear_of_more_than_2_to_the_31_numbers(axis: str) -> None:
    check_far(
        axis, lambda q, k, v, padding_mask: linear.linear_sums(q, k, v, causal=True, padding_mask=padding_mask)[0]
    )


@pytest.mark.skipif(DEVICE.type == "cuda", reason="memory that is not there is the CPU's")
@pytest.mark.parametrize("axis", STRIDES)
def test_blocks_of_more_than_2_to_the_31_numbers(axis: str) -> None:
    table = torch.zeros(1, 1, 1, 1, dtype=torch.int32)
    check_far(
        axis,
        lambda *given, padding_mask: blocks.block_attention(
            *given, table, query_block=16, key_block=16, padding_mask=padding_mask
        ),
    )


@pytest.fixture(scope="module")
def operators() -> dict[str, tuple[Callable, tuple]]:
    """Operators of torch, with arguments."""
    q, k, v, dout, dlse = Softmax(9, 16, heads=2, kv_heads=1).inputs()
    padding_mask = torch.ones(1, 9, dtype=torch.bool, device=DEVICE)
    marks = padding_mask.view(torch.uint8)
    masks, settings = (marks, marks.clone(), torch.ones(2, device=DEVICE)), (False, 4, 9, 0, 0.25)
    out, lse = flash.forward(q, k, v, *masks, *settings)
    p, f, w, g, h = Case(9, 16, 24, heads=2).inputs()
    rate = torch.full((1, 9, 2), -0.1, device=DEVICE)
    learned = rate.clone().requires_grad_()
    table, bias = torch.zeros(1, 1, 1, 1, dtype=torch.int32, device=DEVICE), torch.zeros(1, 9, device=DEVICE)
    lists = (table, None, None, None, None, bias, torch.arange(9, dtype=torch.int32, device=DEVICE), padding_mask)
    block_out, block_lse = blocks.forward(q, k, v, *lists, 16, 16, 0.25)
    *pieces, up = Delta(9).inputs()
    updates = [tensor.clone().requires_grad_() for tensor in pieces]
    leaves = [tensor.requires_grad_() for tensor in (q, k, v, p, f, w)]
    return {
        "flash_forward": (flash.flash_forward, (*leaves[:3], *masks, *settings)),
        "flash_backward": (flash.flash_backward, (dout, dlse, *leaves[:3], *masks, out, lse, *settings)),
        "block_forward": (blocks.block_forward, (*leaves[:3], *lists, 16, 16, 0.25)),
        "block_backward": (
            blocks.block_backward,
            (dout, dlse, *leaves[:3], *lists, block_out, block_lse, 16, 16, 0.25),
        ),
        "delta_forward": (delta.delta_forward, (*updates, False)),
        "delta_backward": (delta.delta_backward, (up, *pieces, False)),
        "linear_forward": (
            linear.linear_forward,
            (*leaves[3:], padding_mask, learned, True, 0.0, True),
        ),
        "linear_backward": (linear.linear_backward, (g, h, *leaves[3:], padding_mask, rate, True, 0.0, True, True)),
    }


@pytest.mark.parametrize("turned", [True, False])
def test_operators_of_heads_are_what_torch_asks_of_one(turned: bool) -> None:
    case = Heads(5, turned=turned)
    x, scale, up = case.inputs()
    cos, sin = case.angles() or (None, None)
    y, gain = heads.forward(x, scale, cos, sin, True, 1.0)
    torch.library.opcheck(heads.heads_forward, (x.requires_grad_(), scale.requires_grad_(), cos, sin, True, 1.0))
    torch.library.opcheck(heads.heads_backward, (up, y, gain, scale.detach(), cos, sin, 1.0))
    torch.library.opcheck(features.features_forward, (x, cos, sin, "elu"))
    torch.library.opcheck(features.features_backward, (up, up if turned else None, y, cos, sin, "elu"))


@pytest.mark.parametrize(
    "name", [f"{name}_{way}" for name in ("flash", "linear", "delta", "block") for way in ("forward", "backward")]
)
def test_operators_are_what_torch_asks_of_one(name: str, operators: dict[str, tuple[Callable, tuple]]) -> None:
    operator, arguments = operators[name]
    if name.endswith("backward"):  # it has no gradient of its own
        arguments = tuple(tensor.detach() if isinstance(tensor, Tensor) else tensor for tensor in arguments)
    torch.library.opcheck(operator, arguments)
