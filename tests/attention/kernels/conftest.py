"""Tests of kernels, in processes of their own: triton decides once a process whether kernels are interpreted.

tests/attention/test_kernels.py starts them. By hand:
TRITON_INTERPRET=1 pytest --confcutdir=tests/attention/kernels tests/attention/kernels/test_flash.py
"""

import inspect
import os
from functools import cache

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.language.core import is_builtin
from triton.runtime import interpreter

from tests.shapes import check_shapes

# Modules without a kernel: the hook would wrap kernels too, which triton then could not read.
check_shapes(*(f"genoattn.attention.kernels.{name}" for name in ("flash", "linear", "blocks", "delta")))
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
AHEAD, ON_DEVICE = "test_compiled.py", "test_device.py"


@cache
def builtin_names(package: object) -> list[str]:
    """Names of the functions of a package that the interpreter replaces."""
    return [name for name, member in inspect.getmembers(package) if is_builtin(member)]


def patch_builtin(package: object, builder: object, scope: object) -> None:
    """Replace the functions of a package, as `interpreter._patch_builtin` does, which lists all members each time."""
    for name in builtin_names(package):
        if is_builtin(member := getattr(package, name)):
            interpreter._patch_attr(package, name, member, builder, scope)


@cache
def numpy_dtype_of_scalar(dtype: tl.dtype) -> np.dtype:
    """The dtype of NumPy for a number of Triton."""
    return original_numpy_dtype(dtype)


def numpy_dtype(dtype: tl.dtype) -> np.dtype:
    """The dtype of NumPy for a dtype of Triton, as `interpreter._get_np_dtype`, which fills its table each time."""
    scalar = dtype.scalar
    return np.dtype(np.uint64) if isinstance(scalar, tl.pointer_type) else numpy_dtype_of_scalar(scalar)


if INTERPRETED:  # on a GPU Triton may be older and lack them
    # Both run many times in each kernel: together they took 40% of the time of the tests.
    original_numpy_dtype = interpreter._get_np_dtype
    interpreter._patch_builtin = patch_builtin
    interpreter._get_np_dtype = numpy_dtype


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Compiling needs a process that does not interpret, and running one that does, or a GPU."""
    for item in items:
        if item.path.name == AHEAD and INTERPRETED:
            item.add_marker(pytest.mark.skip(reason="kernels are interpreted here, so they cannot be compiled"))
        if item.path.name == ON_DEVICE and INTERPRETED:
            item.add_marker(pytest.mark.skip(reason="kernels are interpreted here, so half precision is not"))
        if item.path.name != AHEAD and not INTERPRETED and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="neither a GPU nor TRITON_INTERPRET=1"))
