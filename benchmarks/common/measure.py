"""Measurement of a case: its own process, a quiet machine, the shortest of several calls, peak memory."""

import contextlib
import datetime
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self

BUSY = 0.25
"""Cores that others may use: beyond that a run counts as disturbed."""


class Timing(NamedTuple):
    """Seconds of a call: the shortest, the median, of how many, and whether the first is the only one."""

    least: float
    median: float
    calls: int
    cold: bool


def timed(act: Callable[[], object], seconds: float, patience: float, most: int = 15) -> Timing:
    """Calls for about `seconds` after a first one, which is the only one where it took longer than `patience`."""
    taken = [_seconds(act)]
    cold = taken[0] > patience
    if not cold:
        taken, until = [], time.perf_counter() + seconds
        while not taken or (len(taken) < most and time.perf_counter() < until):
            taken.append(_seconds(act))
    return Timing(min(taken), statistics.median(taken), len(taken), cold)


def _seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


class Memory:
    """The highest memory of this process inside the block, `peak`, and how far `above` what it held before; MiB."""

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):  # on Linux the high-water mark falls to what is held now
            Path("/proc/self/clear_refs").write_text("5")
        self.before = _memory("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = _memory("VmHWM")
        self.above = self.peak - self.before


def _memory(field: str) -> float:
    """A field of Linux's status of this process; elsewhere the highest memory it ever had."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest / (2**20 if sys.platform == "darwin" else 2**10)
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


def _machine_seconds() -> float | None:
    """Core seconds that all processes (and other virtual machines on these cores) have used; None where none says."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return None
    return (sum(ticks[:3]) + sum(ticks[5:8])) / os.sysconf("SC_CLK_TCK")


class Foreign:
    """The average number of cores that others used during the block (None where the system does not say)."""

    cores: float | None = None

    def __enter__(self) -> Self:
        self._before = _machine_seconds(), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        everybody, own, clock = self._before
        now = _machine_seconds()
        if everybody is not None and now is not None:
            taken = max(time.perf_counter() - clock, 0.05)
            self.cores = round(max(0.0, now - everybody - (time.process_time() - own)) / taken, 2)


def wait_quiet(limit: float = 20.0) -> None:
    """Return once others leave the machine alone, or after `limit` seconds."""
    until = time.perf_counter() + limit
    while time.perf_counter() < until:
        with Foreign() as foreign:
            time.sleep(0.3)
        if foreign.cores is None or foreign.cores < BUSY:
            return


def apart(act: Callable[..., dict[str, Any]], *case: object, seconds: float, gib: float) -> dict[str, Any]:
    """Result of `act(*case)` in its own process, or `{"error": …}` if it raises, dies or takes too long."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, act, case, gib))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(seconds) else {"error": f"longer than {seconds:g} s"}
    except EOFError:
        process.join()
        return {"error": f"its process ended with status {process.exitcode}"}
    finally:
        process.kill()
        process.join()
        here.close()


def _answer(there: Connection, act: Callable[..., dict[str, Any]], case: tuple, gib: float) -> None:
    # what is too large is then refused with an exception, and the system need not kill
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)
    try:
        there.send(act(*case))
    except BaseException as error:  # whatever another package raises is its answer
        lines = str(error).strip().splitlines() or [""]
        there.send({"error": f"{type(error).__name__}: {lines[0][:160]}"})


def preload(modules: Sequence[str]) -> None:
    """Have these imported once, for all processes to come, as far as they are installed."""
    there = [name for name in modules if importlib.util.find_spec(name.split(".")[0])]
    multiprocessing.get_context("forkserver").set_forkserver_preload(there)


def machine() -> dict[str, Any]:
    """Description of the machine."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = (line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        name = next(models, name)
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": name, "cores": os.cpu_count(), "gib": round(gib), "system": platform.system()}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The version of Python and of each package that is installed."""
    installed = {"python": platform.python_version()}
    for name in packages:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def today() -> str:
    """The date, as 2026-11-25."""
    return datetime.date.today().isoformat()
