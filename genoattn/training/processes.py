"""The processes of a run on several devices: how they begin, find each other, agree and end.

`torch.distributed.run` (torchrun), Slurm's `srun` and this package's own programs start them; one process needs nothing
of all this. The first process alone makes the run folder and all that is written and printed.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from genoattn.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

FOLDER = "GENOATTN_RUN_FOLDER"
"""Variable with the run folder that the program made which started this process."""

WAIT = timedelta(hours=4)
"""Longest time that processes wait for each other: the first one may learn a tokenizer, or draw a test set."""

FAREWELL = timedelta(seconds=10)
"""Longest time that processes which stop wait for each other, so that the first one can say why."""

SHUTDOWN_SECONDS = "300"
"""Time that processes have after a signal to end their step and to save."""

_PR_SET_PDEATHSIG = 1


class Place(NamedTuple):
    """The place of this process among those of the run, and among those on its node."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


_place = Place()


def place() -> Place:
    """The place of this process; alone, if it joined no others."""
    return _place


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of torch.distributed for this process, as torchrun set them or as `srun` has them; else empty.

    The tasks of a step are looked at, and not those of the job: a batch script may start a program without `srun`.
    """
    torchrun = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if all(name in environment for name in torchrun):
        return {name: environment[name] for name in torchrun}
    slurm = ("PROCID", "STEP_NUM_TASKS", "LOCALID", "STEP_NUM_NODES", "STEP_NODELIST", "JOB_ID", "NODEID")
    if not all(f"SLURM_{name}" in environment for name in slurm):
        return {}
    rank, world, local, nodes, names, job, node = (environment[f"SLURM_{name}"] for name in slurm)
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return {
        "RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_RANK": local,
        "LOCAL_WORLD_SIZE": str(int(world) // int(nodes)),
        "GROUP_RANK": node,
        "MASTER_ADDR": environment.get("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(names)),
        "MASTER_PORT": environment.get("MASTER_PORT", str(15_000 + int(job) % 10_000)),
    }


@contextmanager
def joined() -> Iterator[None]:
    """Within it this process knows the others of the run, if there are any; all but the first one are silent.

    Whatever the block ends with: at a mistake of the user, and at a stop, the processes end together.
    """
    found = variables(os.environ)
    if int(found.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    with ExitStack() as stack:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported
        own = _join(found)
        if place().rank:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
        try:
            yield
        finally:
            if own:
                _leave()


def _join(found: Mapping[str, str]) -> bool:
    """Join the process group; False if it was joined before."""
    global _place
    import torch
    import torch.distributed as dist

    os.environ.update(found)
    _place = Place(*(int(found[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
    if FOLDER in os.environ and sys.platform == "linux":  # of a program that ends this process with itself
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if dist.is_initialized():
        return False
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    if cuda:
        torch.cuda.set_device(place().local_rank % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=WAIT)
    return True


def _leave() -> None:
    """Leave the process group."""
    global _place
    import torch.distributed as dist

    _place = Place()
    with suppress(RuntimeError, ValueError):
        dist.destroy_process_group()


def end_together() -> None:
    """Wait a little for the others: whoever ends first has them ended, and the first one may still have to speak."""
    if place().world > 1:
        import torch.distributed as dist

        with suppress(RuntimeError, ValueError):
            dist.barrier(async_op=True).wait(FAREWELL)  # type: ignore[union-attr]


def first_makes(make: Callable[[], T]) -> T:
    """The value that the first process makes; all get it, or raise its UserError."""
    if place().world == 1:
        return make()
    import torch.distributed as dist

    made: list = [None, None]
    if place().rank == 0:
        try:
            made[0] = make()
        except UserError as mistake:
            made[1] = str(mistake)
    dist.broadcast_object_list(made, 0)
    if made[1] is not None:
        raise UserError(made[1])
    return made[0]


def each_makes(make: Callable[[], T]) -> T:
    """The value that each process makes for itself, the first one before the others; all raise a UserError of any."""
    if place().world == 1:
        return make()
    import torch.distributed as dist

    made: list[T] = []

    def attempt() -> str | None:
        try:
            made.append(make())
        except UserError as mistake:
            return str(mistake)
        return None

    told = first_makes(lambda: (attempt(),))[0]
    if told is None and place().rank:
        told = attempt()
    mistakes: list = [None] * place().world
    dist.all_gather_object(mistakes, told)
    for rank, mistake in enumerate(mistakes):
        if mistake is not None:
            raise UserError(mistake if rank == 0 else f"process {rank} of the run: {mistake}")
    return made[0]


def only_first(make: Callable[[], T]) -> T:
    """The value that the first process makes; None for the others, which wait and use none. All raise its UserError."""
    made: list[T] = []
    first_makes(lambda: made.append(make()))
    return made[0] if made else None  # type: ignore[return-value]


def sum_over_processes(numbers: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on each of them; changed in place."""
    if place().world > 1:
        import torch.distributed as dist

        dist.all_reduce(numbers)
    return numbers


def highest(*numbers: int) -> list[int]:
    """The highest of each number over all processes."""
    if place().world == 1:
        return list(numbers)
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(numbers)  # on the CPU, so that no device is waited for
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()


def launch(words: Sequence[str], devices: int, folder: Path) -> int:
    """Run `genoattn` with these words in a process for each device of this machine, by torch's own launcher.

    Args:
        words: The program and its overrides.
        devices: Number of processes.
        folder: The run folder.

    Returns:
        The exit status of the process that ended first with another than 0; 128 and the number of the signal that
        ended the run.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in logging.root.manager.loggerDict:  # every logger of torch's launcher has a level of its own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // devices)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    signals = "SIGTERM,SIGINT,SIGHUP,SIGQUIT" + (",SIGUSR1,SIGUSR2" if "SLURM_JOB_ID" in os.environ else "")
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            logs_specs=DefaultLogsSpecs(logs),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            signals_to_handle=signals,
        )
        try:
            os.environ[FOLDER] = str(folder)
            elastic_launch(config, sys.executable)("-m", "genoattn", *words)
        except SignalException as ended:
            return 128 + ended.sigval
        except ChildFailedError as failed:
            rank, failure = failed.get_first_failure()
            if failure.exitcode >= 0:
                return failure.exitcode
            number = signal.Signals(-failure.exitcode)
            last = folder / "checkpoints" / "last.ckpt"
            resumed = f"; go on with trainer.resume={last}" if last.exists() else ""
            ended_by = f"process {rank} of the run was ended by {number.name}, and the others with it"
            print(f"{ended_by}{resumed}", file=sys.stderr)
            return 128 + number
        finally:
            del os.environ[FOLDER]
    return 0
