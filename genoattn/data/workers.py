"""Processes that prepare batches beside the training: how many, and how their batches come to the device."""

import os
import signal
from typing import Any, Literal

import torch

MOST = 4
"""Workers at most that `auto` starts for a device; each makes some two million bases a second."""

PREFETCH = 4
"""Batches that a worker holds ready."""


def worker_count(workers: int | Literal["auto"]) -> int:
    """The number of workers of each process of a training.

    `auto` is none on the CPU, where a worker takes from the model what it gives, and with GPUs the processors of this
    machine, divided by its GPUs, without the one of the training itself; at most `MOST`.
    """
    if workers != "auto":
        return workers
    if not torch.cuda.is_available():
        return 0
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MOST, processors // max(1, torch.cuda.device_count()) - 1))


def loader_options(workers: int, device: torch.device) -> dict[str, Any]:
    """The arguments of a `DataLoader` with so many workers for a device; on a GPU its batches lie in pinned memory."""
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": device.type == "cuda"}
    if workers:
        options |= {"prefetch_factor": PREFETCH, "persistent_workers": True, "worker_init_fn": _ignore_termination}
    return options


def _ignore_termination(_: int) -> None:
    """In a worker: a scheduler signals all processes of a run, and the run needs its workers to end its step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
