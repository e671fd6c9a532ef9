"""Runs of other programs: each in a process and a folder of its own, spread by Hydra's launchers, made once."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from genoattn.comparison.cluster_jobs import Starter, cancel_slurm_jobs
from genoattn.comparison.composition import search_path
from genoattn.comparison.inputs import RunInputs, sentence
from genoattn.comparison.run_folders import CHECKPOINT, Again, prepare, set_aside
from genoattn.config.overrides import quote
from genoattn.models.checkpoint import DIVERGED

LOG = "log.txt"
"""The output of a run, in its folder."""


_PR_SET_PDEATHSIG = 1


QUIET = ("hydra.output_subdir=null", "hydra/hydra_logging=none", "hydra/job_logging=none")


def run_jobs(
    program: str,
    jobs: Mapping[str, Sequence[str]],
    folder: Path,
    result_file: str,
    launcher: bool = True,
    work: Mapping[str, int | float] | None = None,
    again: Again = False,
) -> list[str]:
    """Run a program once for each job and return the places of the jobs that failed.

    A job is complete if its folder holds `result_file`, or the file of a diverged training, and was made from the same
    inputs; it is not run again. A stopped training goes on from its last checkpoint.

    Args:
        program: Name of the program, such as train.
        jobs: Overrides of each job, by its place inside `folder`.
        folder: Folder of the comparison.
        result_file: The file that a successful run leaves.
        launcher: Spread the jobs by Hydra's launcher of this program; False: run one after the other.
        work: Relative duration of each job, for the estimate of the time left; None: all take the same.
        again: Complete jobs that are made again.

    Raises:
        KeyboardInterrupt: The user stopped it; running jobs are killed, complete ones stay.
    """
    todo = prepare(program, jobs, folder, result_file, again)
    words = {place: inputs.overrides for place, inputs in todo.items()}
    try:
        status = spread(program, words, folder, result_file, launcher, work, prepare_start)
    except KeyboardInterrupt:
        without = " without again=…" if again else ""
        print(f"stopped; the same command{without} goes on where it stopped", file=sys.stderr)
        raise
    for line in _edited(program, folder, todo):
        print(line, file=sys.stderr)
    return [place for place in todo if status[place] and not (folder / place / DIVERGED).is_file()]


def spread(
    program: str,
    jobs: Mapping[str, Sequence[str]],
    folder: Path,
    result_file: str,
    launcher: bool = True,
    work: Mapping[str, int | float] | None = None,
    start: Callable[[Path], list[str]] | None = None,
) -> dict[str, int]:
    """Run a program once for each job, and return the exit status by place.

    Args:
        program: Name of the program.
        jobs: Overrides of each job, by its place inside `folder`, which exists.
        folder: The folder of all jobs.
        result_file: The file that a successful job leaves in its place.
        launcher: Spread the jobs by Hydra's launcher of this program; False: run one after the other.
        work: Relative duration of each job, for the estimate of the time left; None: all take the same.
        start: Gives the overrides that the job in a folder starts with; None: those in `jobs`.

    Raises:
        KeyboardInterrupt: The user stopped it; running jobs are killed.
    """
    if not jobs:
        return {}
    chosen = [word for word in HydraConfig.get().overrides.hydra if "launcher" in word] if launcher else []
    loader = GlobalHydra.instance().config_loader()
    home = f"hydra.sweep.dir={quote(folder.absolute())}"
    master = loader.load_configuration(
        program, [*chosen, *search_path(), f"hydra.job.name={program}", home, *QUIET], RunMode.MULTIRUN
    )
    launched = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(loader, Callbacks(master)),
        task_function=partial(run_job, program, Starter.here(), start),
        config=master,
    )
    for name in ("hydra", "hydra_plugins"):  # the launchers' own lines on each job
        logging.getLogger(name).setLevel(logging.WARNING)
    share = {folder / place / result_file: (work or {}).get(place, 1.0) for place in jobs}
    with _progress(program, share):
        places = [[f"hydra.sweep.subdir={quote(place)}", *words] for place, words in jobs.items()]
        cancel_slurm_jobs(folder, "left by a run that was killed")
        try:
            ended = launched.launch(places, 0)
        except BaseException:
            cancel_slurm_jobs(folder, "because this program was stopped")
            raise
    return {place: job.return_value for place, job in zip(jobs, ended, strict=True)}


def _edited(program: str, folder: Path, planned: Mapping[str, RunInputs]) -> list[str]:
    """Lines on the runs before whose start the code was edited."""
    runs = {place: RunInputs.read(folder / place) for place in planned}
    changes = {place: planned[place].differences(run) for place, run in runs.items() if run is not None}
    edited = {place: sentence(clauses) for place, clauses in changes.items() if clauses}
    return [
        f"{program}: while the comparison ran, {reason}: {number} of {len(planned)} runs are of the edited file;"
        " the same command makes the others again"
        for reason, number in Counter(edited.values()).items()
    ]


@contextmanager
def _progress(program: str, work: Mapping[Path, int | float]) -> Iterator[None]:
    """A bar, or lines outside a terminal, that count the result files; with the time left after the first."""
    console, ended, began = Console(), Event(), time.monotonic()
    columns = (TextColumn(f"{program} {{task.fields[last]}}", markup=False), BarColumn(), MofNCompleteColumn())
    bar = Progress(
        *columns, TextColumn("{task.fields[left]}"), console=console, transient=True, disable=not console.is_terminal
    )
    task = bar.add_task("", total=len(work), last="", left="")
    open_files = list(work)

    def look() -> None:
        for file in [file for file in open_files if file.is_file() or file.with_name(DIVERGED).is_file()]:
            open_files.remove(file)
            missing = sum(work[other] for other in open_files)
            seconds = (time.monotonic() - began) * missing / (sum(work.values()) - missing)
            left = f"about {duration(seconds)} left" if open_files else "done"
            complete = len(work) - len(open_files)
            bar.update(task, completed=complete, last="/".join(file.parts[-4:-1]), left=left)
            if bar.disable:
                print(f"{program} {complete}/{len(work)}, {left}: {file.parent}", flush=True)

    def watch() -> None:
        while not ended.wait(1):
            look()

    watcher = Thread(target=watch, daemon=True)
    with bar:
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            look()


def duration(seconds: int | float) -> str:
    """A time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def run_job(program: str, starter: Starter, start: Callable[[Path], list[str]] | None, _: DictConfig) -> int:
    """Run one job in a process of its own, its output in a file of its folder, and return its exit status.

    `start` gives the overrides from the folder of the job; None: those of the job. `starter` is the process that
    launches all jobs. If it ends, a worker of a launcher on its machine kills its job and ends too; otherwise it would
    go on with the jobs in its queue. Slurm's jobs are cancelled by `cancel_slurm_jobs`, and Ray ends those of a driver
    that has ended.
    """
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    words = start(folder) if start else job.overrides.task
    every = 1 if starter.is_near and starter.process != os.getpid() else None
    with (folder / LOG).open("a") as log:
        process = _started(program, words, folder, log, job.runtime.cwd)
        while True:
            try:
                return process.wait(every)
            except subprocess.TimeoutExpired:
                if starter.has_ended:
                    process.kill()
                    os._exit(1)  # no process is left to report to
            except KeyboardInterrupt:  # the next comparison runs the job again
                process.kill()
                process.wait()
                raise


def run_on_devices(
    program: str, jobs: Mapping[str, Sequence[str]], folder: Path, result_file: str, devices: Sequence[str]
) -> None:
    """Run a program once for each job, one at a time on each device of this machine; the arguments are as in `spread`.

    Args:
        program: Name of the program.
        jobs: Overrides of each job, by its place inside `folder`.
        folder: The folder of all jobs.
        result_file: The file that a successful job leaves in its place.
        devices: Names of the devices in torch; a process sees no other GPU than its own. Processes on the CPU share the
            processors, unless $OMP_NUM_THREADS is set.
    """
    waiting, running = list(jobs), dict.fromkeys(enumerate(devices))
    share = str(max(1, (os.cpu_count() or 1) // len(devices)))
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    with ExitStack() as stack:
        stack.enter_context(_progress(program, {folder / place / result_file: 1.0 for place in jobs}))
        while waiting or any(running.values()):
            for device, process in running.items():
                if process is not None and process.poll() is not None:
                    running[device] = None
                if running[device] is None and waiting:
                    place, environment = folder / waiting[0], dict(os.environ)
                    if device[1] == "cpu":
                        environment.setdefault("OMP_NUM_THREADS", share)
                    else:
                        number = int(device[1].partition(":")[2])
                        environment["CUDA_VISIBLE_DEVICES"] = seen[number] if seen else str(number)
                    log = stack.enter_context((place / LOG).open("a"))
                    started = _started(program, jobs[waiting.pop(0)], place, log, os.getcwd(), environment)
                    stack.callback(started.kill)  # of no effect on a process that has ended
                    running[device] = started
            time.sleep(0.05)


def _started(
    program: str, words: Sequence[str], folder: Path, log: TextIO, cwd: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "genoattn", program, *words, *search_path(), f"hydra.run.dir={quote(folder)}"]
    return subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, cwd=cwd, preexec_fn=_end_with_parent, env=environment
    )


def prepare_start(folder: Path) -> list[str]:
    """The overrides that a job starts with now: of a stopped training, with the checkpoint that it goes on from.

    The code may have been edited since the job was planned: inputs.json gets what the job will execute.
    """
    planned = RunInputs.read(folder)
    assert planned is not None  # written by `prepare`
    inputs = planned.as_of_now()
    if inputs.digest != planned.digest:
        if (folder / CHECKPOINT).is_file():
            set_aside(folder)
            folder.mkdir()
        inputs.write(folder)
    resume = [f"trainer.resume={quote(folder / CHECKPOINT)}"] if (folder / CHECKPOINT).is_file() else []
    return [*inputs.overrides, *resume]


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Within it SIGTERM, by which schedulers stop a program, does what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_with_parent() -> None:
    """Have Linux kill this process when its parent ends: a killed comparison leaves nothing running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
