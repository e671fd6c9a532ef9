"""Triton kernels; the only part of the package that imports triton, and only if a kernel is requested."""

import os
from importlib.util import find_spec

import torch

from genoattn.errors import UserError

WIDEST = {"flash": 128, "linear": 256, "delta": 128, "blocks": 128, "heads": 256}
"""Most channels of a head by kernel."""


MIN_CAPABILITY = (8, 0)
"""Least compute capability for which the kernels are compiled and checked."""


def available(device: torch.device) -> tuple[bool, str]:
    """True if the kernels run on a device, and the reason in one line."""
    if find_spec("triton") is None:
        return False, "triton is not installed"
    if device.type == "cpu" and interpreted():
        return True, "TRITON_INTERPRET=1: the kernels are interpreted, for tests"
    if device.type != "cuda":
        return False, "Triton's kernels need a GPU" + ("" if torch.cuda.is_available() else " and there is none")
    name = torch.cuda.get_device_name(device)
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return (
            False,
            f"the kernels need compute capability {MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]}, which {name} has not",
        )
    return True, f"on {name}"


def refusal(kernel: str, device: torch.device, dtype: torch.dtype, dim_head: int) -> str | None:
    """Reason why the kernels of a family of WIDEST do not run on such heads; None if they do."""
    runs, reason = available(device)
    if not runs:
        return reason
    from genoattn.attention.kernels import (
        configurations,  # imported here, because the rest of the package works without triton
        launch,
    )

    if dtype not in launch.DTYPES or dim_head > WIDEST[kernel]:
        return f"the kernels know no heads of {dim_head} channels in {dtype}"
    if kernel == "heads":  # it has no tiles to fit
        return None
    family, width, size = launch.family(device), configurations.power_of_two(dim_head), dtype.itemsize
    try:
        if kernel in ("linear", "delta"):
            configurations.linear_chunks(family, width, size)
        else:
            tiles = configurations.flash_tiles if kernel == "flash" else configurations.block_tiles
            for name in ("forward", "dq", "dkv"):
                tiles(name, family, width, size)
    except UserError as error:
        return str(error)
    return None


def interpreted() -> bool:
    """True where kernels run as Python on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"
