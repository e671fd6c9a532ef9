"""Triton kernels, one file a family; the only part of the package that imports triton, and only when asked."""

import os
from importlib.util import find_spec

import torch

from genoattn.errors import UserError

WIDEST = 128
"""Channels of a head."""


OLDEST = (8, 0)
"""The compute capability from which on kernels are compiled and looked at."""


def available(device: torch.device) -> tuple[bool, str]:
    """Whether the kernels run on a device, and a line that says why or why not."""
    if find_spec("triton") is None:
        return False, "triton is not installed"
    if device.type == "cpu" and interpreted():
        return True, "TRITON_INTERPRET=1: the kernels are interpreted, for tests"
    if device.type != "cuda":
        return False, "Triton's kernels need a GPU" + ("" if torch.cuda.is_available() else " and there is none")
    name = torch.cuda.get_device_name(device)
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < OLDEST:
        return False, f"the kernels need compute capability {OLDEST[0]}.{OLDEST[1]}, which {name} has not"
    return True, f"on {name}"


def refusal(kernel: str, device: torch.device, dtype: torch.dtype, dim_head: int) -> str | None:
    """Why the `flash`, `linear` or `blocks` kernels do not run on such heads, backward included; None where they do."""
    there, why = available(device)
    if not there:
        return why
    from genoattn.attention.kernels import (
        configurations,  # late: the rest of the package does without triton
        launch,
    )

    if dtype not in launch.DTYPES or dim_head > WIDEST:
        return f"the kernels know no heads of {dim_head} channels in {dtype}"
    family, width, size = launch.family(device), configurations.power_of_two(dim_head), dtype.itemsize
    try:
        if kernel == "linear":
            configurations.linear_chunks(family, width, size)
        else:
            tiles = configurations.flash_tiles if kernel == "flash" else configurations.block_tiles
            for part in ("forward", "dq", "dkv"):
                tiles(part, family, width, size)
    except UserError as reason:
        return str(reason)
    return None


def interpreted() -> bool:
    """True where kernels run as Python on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"
