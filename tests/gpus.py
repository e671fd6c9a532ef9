"""The GPUs of this machine, hidden from all tests but those of kernels: the others compare bits, or are of a CPU."""

import os

import torch

SAVED = "GENOATTN_TEST_GPUS"
"""Environment variable with the GPUs that may be used: CUDA_VISIBLE_DEVICES before they were hidden, "all", or ""."""


def hide() -> None:
    """Hide the GPUs from this process and its children; before torch asks for one."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # or the question below would fix the answer for good
    if SAVED not in os.environ:  # a worker of pytest gets it from the process that started it
        os.environ[SAVED] = os.environ.get("CUDA_VISIBLE_DEVICES", "all") if torch.cuda.is_available() else ""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def there() -> bool:
    """True if this machine has a GPU that tests may use."""
    return os.environ.get(SAVED, "") != ""


def seen() -> dict[str, str]:
    """The environment of a process that sees the GPUs."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    saved = environment.pop(SAVED, "")
    return environment if saved == "all" else environment | {"CUDA_VISIBLE_DEVICES": saved}
