"""Processes that share a process group and run cases together; torch and the package are imported once for all."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.quick import leave_out_evaluation

PRELOAD = ("tests.parallel.ranks", "genoattn.cli.train", "genoattn.cli.finetune", "genoattn.training.run")
PRELOAD += ("genoattn.cli.main", "genoattn.config.compose", "genoattn.models.checkpoint", "genoattn.evaluation.run")

SECONDS = 120
"""Longest time of a case."""


class Ranks:
    """Processes of one world; `run` gives all of them the same call and returns what each of them returned."""

    def __init__(self, world: int, cache: Path):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOAD])
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.world, self.pipes, self.processes = world, list[Connection](), list[Any]()
        for rank in range(world):
            own, other = context.Pipe()
            process = context.Process(target=_work, args=(rank, world, port, cache, other), daemon=True)
            process.start()
            other.close()
            self.pipes.append(own)
            self.processes.append(process)

    def run(self, call: Callable[..., Any], *args: object) -> list[Any]:
        """Call a function of a module in all processes; raises what one of them raised, as a text."""
        for pipe in self.pipes:
            pipe.send((call, args))
        late = [rank for rank, pipe in enumerate(self.pipes) if not pipe.poll(SECONDS)]
        if late:  # no later case can use them
            self.end()
        assert not late, f"processes {late} did not answer"
        answers = [pipe.recv() for pipe in self.pipes]
        failed = [f"process {rank}: {answer}" for rank, (done, answer) in enumerate(answers) if not done]
        assert not failed, "\n".join(failed)
        return [answer for _, answer in answers]

    def end(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.join()


def _work(rank: int, world: int, port: int, cache: Path, calls: Connection) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    values = (rank, rank, world, world, port)
    os.environ |= {name: str(value) for name, value in zip(names, values, strict=True)} | {"MASTER_ADDR": "localhost"}
    os.environ["GENOATTN_CACHE"] = str(cache)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    leave_out_evaluation(pytest.MonkeyPatch())
    while True:
        with suppress(EOFError):
            call, args = calls.recv()
            try:
                calls.send((True, call(*args)))
            except BaseException:  # a test tells of it
                calls.send((False, traceback.format_exc()))
            continue
        return


def call_main(words: Sequence[str]) -> tuple[int, str, str]:
    """The exit status of a program in this process, and what it printed on stdout and stderr."""
    import io
    from contextlib import redirect_stderr, redirect_stdout

    from genoattn.cli.main import main

    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main(list(words))
    return status, out.getvalue(), err.getvalue()
