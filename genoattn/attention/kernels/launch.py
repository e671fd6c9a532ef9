"""Launch of kernels on the device or by the interpreter: strides, descriptors, precision."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from triton import knobs
from triton.tools.tensor_descriptor import TensorDescriptor

from genoattn.errors import UserError

INTERPRETED: bool = knobs.runtime.interpret
"""True if TRITON_INTERPRET=1 was set at import: kernels run as Python on the CPU, for tests."""


DTYPES = (torch.float32, torch.float16, torch.bfloat16)


ROWS_OF_DELTA = 64


ROWS_OF_SPAN = 8192


LONGEST = 2**30
"""Tokens of one sequence: positions are int32 and so is the sum of two of them. Offsets are int64."""


class Launch(NamedTuple):
    """A kernel and the arguments of its launch."""

    kernel: Any
    programs: int
    arguments: Sequence[Any]
    constants: Mapping[str, Any]


class _Recorder(NamedTuple):
    family: str
    descriptors: bool
    launches: list[Launch]


_recorder: _Recorder | None = None


@contextmanager
def record_launches(family: str, descriptors: bool = True) -> Iterator[list[Launch]]:
    """Record the launches inside instead of running them, as for a device of this family; tensors may be on `meta`.

    The kernels that are compiled ahead of time are therefore exactly those of a run. Without `descriptors` tiles are
    read by pointers even if the device supports descriptors, to measure their effect.
    """
    global _recorder
    _recorder = _Recorder(family, descriptors, [])
    try:
        yield _recorder.launches
    finally:
        _recorder = None


def launch(kernel: Any, programs: int, arguments: Sequence[Any], constants: Mapping[str, Any]) -> None:
    """Run `programs` programs of a kernel; 0 programs, which a GPU refuses, are not launched."""
    if _recorder:
        _recorder.launches.append(Launch(kernel, programs, arguments, constants))
    elif programs:
        tensor = next(argument for argument in arguments if isinstance(argument, Tensor))
        with torch.cuda.device_of(tensor):  # Triton launches on the current device, wherever the tensors are
            kernel[(programs,)](*arguments, **constants)


def refusal(device: torch.device) -> str | None:
    """Reason why the kernels cannot run on this device; None if they can."""
    if _recorder:
        return None
    if INTERPRETED:
        return None if device.type == "cpu" else f"the interpreter reads the memory of the CPU, not of {device}"
    if device.type != "cuda":
        return f"Triton's kernels need a GPU and the tensors are on {device.type}"
    return None


def check_device(tensor: Tensor) -> None:
    """Raise a UserError if the kernels cannot run on the tensor's device."""
    reason = refusal(tensor.device)
    if reason:
        raise UserError(f"{reason}; TRITON_INTERPRET=1, set before the start, interprets the kernels on a CPU")


def check_dtypes(tensors: dict[str, Tensor]) -> None:
    """Raise a UserError unless all tensors have one dtype that the kernels support."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1 or not dtypes <= set(DTYPES):
        got = ", ".join(f"{name} {tensor.dtype}" for name, tensor in tensors.items())
        raise UserError(f"{', '.join(tensors)} must all be float32, float16 or bfloat16, got {got}")


def check_tokens(q: Tensor, k: Tensor, v: Tensor, widest: int) -> None:
    """Raises UserError unless these are queries, keys and values of the same tokens that a kernel can read.

    Args:
        q: Queries [batch, length, heads, channels].
        k: Keys, as many and as wide.
        v: Values of the same tokens and heads, of any width.
        widest: Most channels of a head.
    """
    check_dtypes({"q": q, "k": k, "v": v})
    check_device(q)
    if q.shape != k.shape or v.shape[:3] != q.shape[:3] or max(q.shape[3], v.shape[3]) > widest:
        raise UserError(
            f"q and k must have one shape and v their batch, length and heads, none wider than {widest} channels, got "
            f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        )
    if not 1 <= q.shape[1] <= LONGEST:
        raise UserError(f"length must be from 1 to {LONGEST}, got {q.shape[1]}")


def family(device: torch.device) -> str:
    """Family of a device, which selects its tiles: sm_80, sm_90, sm_100, gfx942 for AMD, sm_86 for all others."""
    if _recorder:
        return _recorder.family
    if device.type != "cuda":
        return "sm_80"
    if torch.version.hip:
        return "gfx942"
    capability = torch.cuda.get_device_capability(device)
    if capability == (8, 0):
        return "sm_80"
    return {9: "sm_90", 10: "sm_100"}.get(capability[0], "sm_86")  # with less shared memory than sm_80


def has_descriptors(family: str) -> bool:
    """True if tiles are read by the tensor memory accelerator, which needs descriptors instead of pointers."""
    if _recorder and not _recorder.descriptors:
        return False
    return family in ("sm_90", "sm_100") or INTERPRETED


def precision(dtype: torch.dtype, family: str, halves: str = "ieee") -> str:
    """Precision of float32 products: three TF32 products that add up to float32, or one if torch allows TF32.

    `halves` is the precision for float16 and bfloat16, needed by kernels that convert them to float32.
    """
    if family.startswith("gfx"):
        return "ieee"
    if dtype != torch.float32:
        return halves
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def readable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if its channels are not contiguous; float32 if the interpreter gets bfloat16.

    The interpreter silently computes on the bits of bfloat16 as if they were integers.
    """
    if INTERPRETED and tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def strides_of(tensor: Tensor) -> tuple[int, ...]:
    """All strides but that of the channels, which is 1."""
    return tuple(tensor.stride()[:-1])


def flags(
    padding_mask: Bool[Tensor, "batch length"] | UInt8[Tensor, "batch length"] | None, stand_in: Tensor
) -> tuple[Tensor, int]:
    """`padding_mask` as bytes and its stride, or without a mask `stand_in`, which no kernel reads."""
    if padding_mask is None:
        return stand_in, 0
    return padding_mask.contiguous().view(torch.uint8), padding_mask.shape[1]


def can_describe(tensors: Sequence[Tensor]) -> bool:
    """True if each tensor can have a descriptor: base and strides are multiples of 16 bytes, and no stride is 0."""
    return all(
        tensor.data_ptr() % 16 == 0
        and all(stride > 0 and stride * tensor.element_size() % 16 == 0 for stride in tensor.stride()[:-1])
        for tensor in tensors
    )


def described(tensor: Tensor, rows: int, dim: int) -> TensorDescriptor:
    """A descriptor of [batch, length, heads, channels] that reads `rows` rows of one head, `dim` channels wide."""
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [1, rows, 1, dim])
