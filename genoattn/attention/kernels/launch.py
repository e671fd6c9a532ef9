"""Where kernels run and how they are started: the device or the interpreter, strides, descriptors, precision."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor
from triton import knobs
from triton.tools.tensor_descriptor import TensorDescriptor

from genoattn.errors import UserError

INTERPRETED: bool = knobs.runtime.interpret
"""True where TRITON_INTERPRET=1 was set when this was imported: kernels run as Python on the CPU, for tests."""


DTYPES = (torch.float32, torch.float16, torch.bfloat16)


ROWS_OF_DELTA = 64


LONGEST = 2**30
"""Tokens of one sequence: positions are int32 and so is the sum of two of them. Offsets are int64."""


class Launch(NamedTuple):
    """A kernel, and all that it was started with."""

    kernel: Any
    programs: int
    arguments: Sequence[Any]
    constants: Mapping[str, Any]


class _Recorder(NamedTuple):
    family: str
    descriptors: bool
    starts: list[Launch]


_recorder: _Recorder | None = None


@contextmanager
def record_launches(family: str, descriptors: bool = True) -> Iterator[list[Launch]]:
    """Kernels started inside are listed and not run, as for a device of this family; tensors may be on `meta`.

    What is compiled ahead of time is thus what would have been started, tile for tile and hint for hint; but without
    `descriptors` by pointers where the device has better, to see what that would cost.
    """
    global _recorder
    _recorder = _Recorder(family, descriptors, [])
    try:
        yield _recorder.starts
    finally:
        _recorder = None


def launch(kernel: Any, programs: int, arguments: Sequence[Any], constants: Mapping[str, Any]) -> None:
    """Run so many programs of a kernel; none at all where there is nothing to do, which a GPU would refuse."""
    if _recorder:
        _recorder.starts.append(Launch(kernel, programs, arguments, constants))
    elif programs:
        tensor = next(argument for argument in arguments if isinstance(argument, Tensor))
        with torch.cuda.device_of(tensor):  # Triton launches on the current device, wherever the tensors are
            kernel[(programs,)](*arguments, **constants)


def refusal(device: torch.device) -> str | None:
    """Why the kernels cannot run on this device, or None where they can."""
    if _recorder:
        return None
    if INTERPRETED:
        return None if device.type == "cpu" else f"the interpreter reads the memory of the CPU, not of {device}"
    if device.type != "cuda":
        return f"Triton's kernels need a GPU and the tensors are on {device.type}"
    return None


def check_device(tensor: Tensor) -> None:
    """Raises UserError where the kernels cannot run on the tensor's device."""
    reason = refusal(tensor.device)
    if reason:
        raise UserError(f"{reason}; TRITON_INTERPRET=1, set before the start, interprets the kernels on a CPU")


def check_dtypes(tensors: dict[str, Tensor]) -> None:
    """Raises UserError unless all tensors are of one dtype that the kernels know."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1 or not dtypes <= set(DTYPES):
        got = ", ".join(f"{name} {tensor.dtype}" for name, tensor in tensors.items())
        raise UserError(f"{', '.join(tensors)} must all be float32, float16 or bfloat16, got {got}")


def family(device: torch.device) -> str:
    """Whose tiles a device is given: sm_80, sm_90 and sm_100 their own, AMD gfx942's, all others sm_86's."""
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
    """True where tiles are fetched by the tensor memory accelerator, which needs descriptors in place of pointers."""
    if _recorder and not _recorder.descriptors:
        return False
    return family in ("sm_90", "sm_100") or INTERPRETED


def precision(dtype: torch.dtype, family: str, halves: str = "ieee") -> str:
    """How float32 products are taken: three TF32 products that add up to float32, or one where torch is told to.

    `halves` is the answer for float16 and bfloat16, which only a kernel that makes float32 of them asks for.
    """
    if family.startswith("gfx"):
        return "ieee"
    if dtype != torch.float32:
        return halves
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def readable(tensor: Tensor) -> Tensor:
    """The tensor, or its copy where its channels do not lie side by side; float32 where the interpreter gets bfloat16.

    The interpreter computes on the bits of bfloat16 as if they were integers, and says nothing.
    """
    if INTERPRETED and tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def strides_of(tensor: Tensor) -> tuple[int, ...]:
    """Every stride but the channels', which is 1."""
    return tuple(tensor.stride()[:-1])


def flags(keep: Bool[Tensor, "batch length"] | None, stand_in: Tensor) -> tuple[Tensor, int]:
    """`keep` as bytes and its stride; any tensor where there is none, which no kernel then reads."""
    if keep is None:
        return stand_in, 0
    return keep.contiguous().view(torch.uint8), keep.shape[1]


def can_describe(tensors: Sequence[Tensor]) -> bool:
    """True where a tensor descriptor can stand for each: its base and its strides are multiples of 16 bytes, none 0."""
    return all(
        tensor.data_ptr() % 16 == 0
        and all(stride > 0 and stride * tensor.element_size() % 16 == 0 for stride in tensor.stride()[:-1])
        for tensor in tensors
    )


def described(tensor: Tensor, rows: int, dim: int) -> TensorDescriptor:
    """A descriptor of [batch, length, heads, channels] that reads `rows` rows of one head, `dim` channels wide."""
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [1, rows, 1, dim])
