"""Tests of kernels, in processes of their own: triton decides once a process whether kernels are interpreted.

tests/attention/test_kernels.py starts them. By hand:
TRITON_INTERPRET=1 pytest --confcutdir=tests/attention/kernels tests/attention/kernels/test_flash.py
"""

import os

import pytest
import torch
from jaxtyping import install_import_hook

# Modules without a kernel: the hook would wrap kernels too, which triton then could not read.
install_import_hook(
    [f"genoattn.attention.kernels.{name}" for name in ("flash", "linear", "blocks")], "beartype.beartype"
)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
AHEAD = "test_compiled.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Compiling needs a process that does not interpret, and running one that does, or a GPU."""
    for item in items:
        if item.path.name == AHEAD and INTERPRETED:
            item.add_marker(pytest.mark.skip(reason="kernels are interpreted here, so they cannot be compiled"))
        if item.path.name != AHEAD and not INTERPRETED and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="neither a GPU nor TRITON_INTERPRET=1"))
