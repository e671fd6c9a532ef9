"""Time and memory of calls on the device: warm, many calls between two events, no CUDA graph."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.record import DRY

ROUNDS = 7
SPAN = 0.02
"""Seconds between two events, at least: gaps between launches and the events themselves then hardly count."""


def timed(act: Callable[[], object], seconds: float = 0.25) -> dict[str, float]:
    """Milliseconds of a call: the median and the least of several rounds, and of the host alone; peak GiB above before.

    Args:
        act: The call.
        seconds: Time for all rounds, about.
    """
    before = _begin()
    act()  # compiles
    once = min(_seconds(act) for _ in range(2))
    calls = 1 if DRY else max(1, min(2000, round(SPAN / max(once, 1e-6))))
    rounds = 1 if DRY else max(2, min(ROUNDS, round(seconds / max(once * calls, 1e-6))))
    spans, hosts = zip(*(_round(act, calls) for _ in range(rounds)), strict=True)
    return {
        "ms": statistics.median(spans),
        "least_ms": min(spans),
        "host_ms": statistics.median(hosts),
        "calls": calls * rounds,
        "peak_gib": 0.0 if DRY else (torch.cuda.max_memory_allocated() - before) / 2**30,
    }


def named(prefix: str, times: dict[str, Any]) -> dict[str, Any]:
    """The times of `timed` with a prefix before their names."""
    return {f"{prefix}_{name}": value for name, value in times.items()}


def _begin() -> int:
    """Memory in use, from which the peak counts."""
    if DRY:
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    if not DRY:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _round(act: Callable[[], object], calls: int) -> tuple[float, float]:
    """Milliseconds of a call on the device, and of the host until it has handed the call over."""
    if DRY:
        spent = _seconds(act) * 1e3
        return spent, spent
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    start = time.perf_counter()
    for _ in range(calls):
        act()
    host = time.perf_counter() - start
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / calls, host * 1e3 / calls
