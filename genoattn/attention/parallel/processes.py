"""Processes of this machine that compute together, for checks and tests: started once, given one call at a time."""

import contextlib
import multiprocessing
import pickle
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed

PATIENCE = timedelta(minutes=5)
"""Time after which a process that waits for the others gives up."""


class ProcessesError(RuntimeError):
    """A call failed in one of the processes."""


class Processes:
    """`world` processes on the CPU that exchange tensors by gloo, each with one thread."""

    def __init__(self, world: int, patience: timedelta = PATIENCE):
        self._patience = patience.total_seconds() + 30
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["genoattn.attention.conformance", "torch._dynamo"]
        )  # an exchange imports the latter
        self._folder = tempfile.TemporaryDirectory(prefix="genoattn-processes-")
        self._pipes, self._processes = [], []
        for rank in range(world):
            here, there = context.Pipe()
            meeting = Path(self._folder.name) / "meeting"
            process = context.Process(target=_serve, args=(there, rank, world, str(meeting), patience), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The results by rank of `function(*arguments)`, which every process calls.

        Functions and arguments are pickled, and read there with the import path of this process. The group of all
        processes is torch's default group.

        Raises:
            ProcessesError: The function failed in a process; the processes are gone then.
            pickle.UnpicklingError: A process cannot read the function or its arguments.
        """
        call = pickle.dumps((sys.path, pickle.dumps((function, arguments))))
        for pipe in self._pipes:
            pipe.send_bytes(call)
        results: dict[Connection, Any] = {}
        while len(results) < len(self._pipes):
            ready = wait([pipe for pipe in self._pipes if pipe not in results], self._patience)
            if not ready:
                self.close()
                raise ProcessesError("a process does not answer")
            for pipe in ready:
                assert isinstance(pipe, Connection)
                try:
                    results[pipe] = pickle.loads(pipe.recv_bytes())
                except EOFError:
                    results[pipe] = ProcessesError("the process ended")
                if isinstance(results[pipe], ProcessesError):  # the others may wait for it for ever
                    self.close()
                    raise results[pipe]
        for result in results.values():
            if isinstance(result, pickle.UnpicklingError):
                raise result
        return [results[pipe] for pipe in self._pipes]

    def close(self) -> None:
        """End the processes."""
        processes.cache_clear()
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.kill()
            process.join()
        self._folder.cleanup()


@cache
def processes(world: int) -> Processes:
    """The processes of this program; they end with it."""
    return Processes(world)


def _serve(pipe: Connection, rank: int, world: int, meeting: str, patience: timedelta) -> None:
    """Answer calls until the pipe is closed."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=patience
    )
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            path, call = pickle.loads(pipe.recv_bytes())
            pipe.send_bytes(_answer(path, call))


def _answer(path: list[str], call: bytes) -> bytes:
    """The result of a call, or an error for the caller."""
    sys.path[:] = path
    try:
        function, arguments = pickle.loads(call)
    except Exception as error:
        return pickle.dumps(pickle.UnpicklingError(f"{type(error).__name__}: {error}"))
    try:
        return pickle.dumps(function(*arguments))
    except Exception as error:
        return pickle.dumps(ProcessesError(f"{type(error).__name__}: {error}"))
