"""Compilation of kernels for GPUs that are not present, and their statistics: registers, spills, instructions.

No driver is needed: ptxas comes with triton. The launch of a kernel is recorded (genoattn.attention.kernels.launch)
and compiled for the types, hints and constants that it would have had.
"""

import io
import re
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import triton
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

from genoattn.attention.kernels.launch import Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_86": GPUTarget("cuda", 86, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


SHARED_LIMIT = {"sm_80": 163, "sm_86": 99, "sm_90": 227, "sm_100": 227, "gfx942": 64}


SHARED_LIMIT = {family: limit * 1024 for family, limit in SHARED_LIMIT.items()}
"""Bytes of shared memory that one program may have."""


SHARED_TOTAL = {"sm_80": 164 * 1024, "sm_86": 100 * 1024, "sm_90": 228 * 1024, "sm_100": 228 * 1024}
"""Bytes that the programs resident on one multiprocessor share; each takes another 1024 for the system."""


TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "u8", "int32": "i32", "int64": "i64"}


class Statistics(NamedTuple):
    """Statistics of one compiled kernel; on AMD registers are VGPRs and spills are VGPRs, in registers."""

    registers: int
    spills: int
    """Bytes stored and loaded because registers ran out."""
    shared: int
    """Bytes of shared memory of one program."""
    tensor_cores: int
    """Instructions that multiply matrices (mma, wgmma, tcgen05; mfma on AMD)."""
    asynchronous: int
    """Instructions that copy to shared memory without waiting (cp.async, TMA)."""
    resident: int
    """Programs that fit on one multiprocessor at a time, by registers, shared memory and threads; 0: not known."""
    narrow_offsets: int
    """Pointers moved by an int32, which overflows past 2^31 numbers."""


class Compiled(NamedTuple):
    """A kernel, and the verbose report of ptxas on it; the report is empty on AMD."""

    kernel: Any
    report: str


def compile_launch(recorded: Launch, family: str, hints: bool = True) -> Compiled:
    """Compile the kernel of one launch; without `hints` the compiler does not know which values are divisible by 16."""
    signature, constants, attributes = {}, {}, {}
    options = {name: value for name, value in recorded.constants.items() if name not in recorded.kernel.arg_names}
    named = dict(zip(recorded.kernel.arg_names, recorded.arguments, strict=False))
    plain = set(recorded.kernel.do_not_specialize or ())
    for index, name in enumerate(recorded.kernel.arg_names):
        if name in recorded.constants:
            signature[name], constants[name] = "constexpr", recorded.constants[name]
        else:
            signature[name] = _type(named[name], (index,), name in plain, constants, attributes)
    source = ASTSource(recorded.kernel, signature, constants, attributes if hints else {})
    report = io.StringIO()
    with knobs.nvidia.scope(), knobs.compilation.scope(), redirect_stdout(report):
        knobs.nvidia.dump_ptxas_log = knobs.compilation.always_compile = True  # a cached kernel comes without a report
        return Compiled(triton.compile(source, target=TARGETS[family], options=options), report.getvalue())


def _type(value: Any, path: tuple[int, ...], plain: bool, constants: dict, attributes: dict) -> Any:
    """Type of an argument as in just-in-time compilation; records values that are 1 or divisible by 16."""
    if isinstance(value, tuple):
        return tuple(_type(item, (*path, at), plain, constants, attributes) for at, item in enumerate(value))
    if isinstance(value, TensorDescriptor):
        shape = ", ".join(map(str, value.block_shape))
        return f"tensordesc<{_name(value.base)}[{shape}]>"
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, int) and value == 1 and not plain:
        constants[path] = 1
        return "constexpr"
    if (value.data_ptr() if isinstance(value, Tensor) else value) % 16 == 0 and not plain:
        attributes[path] = [["tt.divisibility", 16]]
    if isinstance(value, Tensor):
        return f"*{_name(value)}"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _name(tensor: Tensor) -> str:
    return TYPES[str(tensor.dtype).removeprefix("torch.")]


def statistics(compiled: Compiled, family: str) -> Statistics:
    """Statistics of a compiled kernel."""
    kernel, report = compiled
    narrow = len(re.findall(r"tt\.addptr .*(?:, i32|xi32>)\s+loc", kernel.asm["ttir"]))
    shared = kernel.metadata.shared
    if family.startswith("gfx"):
        text = kernel.asm["amdgcn"]
        registers, spills = (
            int(re.findall(rf"\.{key}:\s+(\d+)", text)[0]) for key in ("vgpr_count", "vgpr_spill_count")
        )
        products = len(re.findall(r"\bv_mfma", text))
        copies = len(re.findall(r"\b(?:buffer|global)_load_lds", text))
        return Statistics(registers, spills, shared, products, copies, 0, narrow)
    registers = int(re.findall(r"Used (\d+) registers", report)[0])
    spills = sum(int(number) for number in re.findall(r"(\d+) bytes spill", report))
    text = kernel.asm["ptx"]
    products = sum(text.count(name) for name in ("mma.sync", "wgmma.mma_async", "tcgen05.mma"))
    copies = sum(text.count(name) for name in ("cp.async.cg", "cp.async.ca", "cp.async.bulk.tensor"))
    resident = _resident(registers, shared, kernel.metadata.num_warps, family)
    return Statistics(registers, spills, shared, products, copies, resident, narrow)


def _resident(registers: int, shared: int, warps: int, family: str) -> int:
    by_registers = 65536 // (32 * warps * (-(-registers // 8) * 8))
    by_shared = SHARED_TOTAL[family] // (shared + 1024)
    threads = 1536 if family == "sm_86" else 2048
    return min(by_registers, by_shared, threads // (32 * warps))
