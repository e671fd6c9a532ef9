"""The backend that a layer announces for a device and a dtype is the one that computes it."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from genoattn.attention.full import FullAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.pyramid import PyramidAttention
from genoattn.attention.window import WindowAttention

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
HALF_ACROSS = HeadOptions(count=2, cross_segment=0.5)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H200 for all that is asked of the device."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


def queries(width: int, dtype: torch.dtype, device: torch.device = CUDA) -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(1, 9, 2, width, dtype=dtype, device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dim_head", [32, 64, 128, 256])
@pytest.mark.parametrize("heads", [HeadOptions(count=2), HALF_ACROSS])
def test_announced_is_what_runs(gpu: None, heads: HeadOptions, dim_head: int, dtype: torch.dtype) -> None:
    layer = FullAttention(2 * dim_head, False, heads, backend="auto")
    runs = layer.engine.uses_triton(queries(dim_head, dtype))
    announced = layer.describe_backend(CUDA, dtype)
    assert announced.startswith("triton: on a GPU" if runs else "torch, which computes the same: ")
    assert layer.describe_backend(CPU, dtype).startswith("torch, which computes the same: Triton's kernels need a GPU")


def test_layers_that_no_kernel_computes(gpu: None) -> None:
    assert LinearAttention(32, False).describe_backend(CUDA) == "triton: on a GPU"
    assert "no heads of 561" in LinearAttention(32, False, features="taylor", key_dim=32).describe_backend(CUDA)
    assert PyramidAttention(32, False).describe_backend(CUDA) == "triton: on a GPU; torch at the coarsest level"
    assert FullAttention(32, False).describe_backend(CUDA) == "torch"


def test_every_window_has_a_kernel(gpu: None) -> None:
    alibi = HeadOptions(count=2, positions="alibi")
    for layer in (WindowAttention(32, False, dilation=2, global_tokens=3), WindowAttention(32, False, alibi)):
        assert layer.describe_backend(CUDA) == "triton: on a GPU"
        assert layer.engine.uses_triton(queries(16, torch.float32))


def test_the_dtype_of_autocast_counts(gpu: None) -> None:
    """Queries may be float32 under autocast, and are cast before the kernel."""
    layer = WindowAttention(256, False, HeadOptions(count=2))
    assert not layer.engine.uses_triton(queries(128, torch.float32))
    with torch.autocast("cuda", torch.bfloat16):
        assert layer.engine.uses_triton(queries(128, torch.float32))
    assert layer.describe_backend(CUDA, torch.bfloat16) == "triton: on a GPU"


def test_a_layer_of_triton_takes_torch_in_the_memory_estimate(gpu: None) -> None:
    layer = WindowAttention(32, False, backend="triton")
    assert not layer.engine.uses_triton(queries(8, torch.float32, CPU))
    assert layer.engine.uses_triton(queries(8, torch.float32))
    assert layer(torch.zeros(1, 5, 32)).shape == (1, 5, 32)
    assert layer.describe_backend(CUDA) == "triton, as requested"


def test_kernels_start_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    from genoattn.attention.kernels import launch

    events = []

    class Device:
        def __init__(self, tensor: torch.Tensor):
            self.tensor = tensor

        def __enter__(self) -> None:
            events.append(("enter", self.tensor))

        def __exit__(self, *_: object) -> None:
            events.append(("exit", self.tensor))

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]):
            return lambda *arguments, **constants: events.append(("run", grid))

    monkeypatch.setattr(torch.cuda, "device_of", Device)
    tensor = torch.zeros(3)
    launch.launch(Kernel(), 4, ["a descriptor", tensor], {})
    assert [name for name, _ in events] == ["enter", "run", "exit"]
    assert events[0][1] is tensor
