"""Runs of other programs: each in a process and a folder of its own, spread by Hydra's launchers, made once."""

import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from genoattn.config.compose import check, compose
from genoattn.files import write_json

LOG = "log.txt"
"""The output of a run, in its folder."""


OVERRIDES = "overrides.json"
"""The overrides that a run was started with, in its folder."""


_PR_SET_PDEATHSIG = 1


QUIET = ("hydra.output_subdir=null", "hydra/hydra_logging=none", "hydra/job_logging=none")


def compose_run(program: str, overrides: Sequence[str]) -> DictConfig:
    """The checked config of another program, composed inside a running one.

    Raises:
        UserError: Every mistake in the overrides.
    """
    config = compose(program, [*overrides, *search_path()])
    check(config, program)
    return config


def search_path() -> list[str]:
    """The override that names further folders of configs; the runs of this program search them too."""
    return [word for word in HydraConfig.get().overrides.hydra if word.startswith("hydra.searchpath=")]


def run_jobs(
    program: str,
    jobs: Mapping[str, Sequence[str]],
    folder: Path,
    result_file: str,
    launcher: bool = True,
    work: Mapping[str, int | float] | None = None,
) -> list[str]:
    """Run a program once for each job and return the places of the jobs that failed.

    A job is complete if its folder holds `result_file` and the same overrides; it is not run again.

    Args:
        program: Name of the program, such as train.
        jobs: Overrides of each job, by its place inside `folder`.
        folder: Folder of the comparison.
        result_file: The file that a successful run leaves.
        launcher: Spread the jobs by Hydra's launcher of this program; False: run one after the other.
        work: Relative duration of each job, for the estimate of the time left; None: all take the same.

    Raises:
        KeyboardInterrupt: The user stopped it; running jobs are killed, complete ones stay.
    """
    todo = {place: list(words) for place, words in jobs.items() if not _is_complete(folder / place, words, result_file)}
    for place, words in todo.items():
        shutil.rmtree(folder / place, ignore_errors=True)
        (folder / place).mkdir(parents=True)
        write_json(folder / place / OVERRIDES, words)
    if not todo:
        return []
    if len(jobs) > len(todo):
        print(f"{program}: {len(jobs) - len(todo)} of {len(jobs)} runs are complete already")
    chosen = [word for word in HydraConfig.get().overrides.hydra if "launcher" in word] if launcher else []
    home = str(folder.absolute()).replace("'", "\\'")
    loader = GlobalHydra.instance().config_loader()
    sweep = [*chosen, *search_path(), f"hydra.job.name={program}", f"hydra.sweep.dir='{home}'", *QUIET]
    master = loader.load_configuration(program, sweep, RunMode.MULTIRUN)
    spread = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(loader, Callbacks(master)),
        task_function=partial(run_job, program, os.getpid()),
        config=master,
    )
    for name in ("hydra", "hydra_plugins"):  # the launchers' own lines on each job
        logging.getLogger(name).setLevel(logging.WARNING)
    share = {folder / place / result_file: (work or {}).get(place, 1.0) for place in todo}
    try:
        with _progress(program, share):
            ended = spread.launch([[f"hydra.sweep.subdir='{place}'", *words] for place, words in todo.items()], 0)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        raise
    return [place for place, job in zip(todo, ended, strict=True) if job.return_value]


@contextmanager
def _progress(program: str, work: Mapping[Path, int | float]) -> Iterator[None]:
    """A bar, or lines outside a terminal, that count the result files; with the time left after the first."""
    console, ended, began = Console(), Event(), time.monotonic()
    columns = (TextColumn(f"{program} {{task.fields[last]}}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(
        *columns, TextColumn("{task.fields[left]}"), console=console, transient=True, disable=not console.is_terminal
    )
    task = bar.add_task("", total=len(work), last="", left="")
    open_files = list(work)

    def look() -> None:
        for file in [file for file in open_files if file.is_file()]:
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


def _is_complete(place: Path, words: Sequence[str], result_file: str) -> bool:
    with suppress(OSError, ValueError):
        return (place / result_file).is_file() and json.loads((place / OVERRIDES).read_text("utf-8")) == list(words)
    return False


def run_job(program: str, starter: int, _: DictConfig) -> int:
    """Run one job in a process of its own, its output in a file of its folder, and return its exit status.

    `starter` is the process that launches all jobs. If it ends, a worker of a launcher kills its job and ends too;
    otherwise it would go on with the jobs in its queue.
    """
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    quoted = str(folder).replace("'", "\\'")
    overrides = json.loads((folder / OVERRIDES).read_text("utf-8"))
    command = [sys.executable, "-m", "genoattn", program, *overrides, *search_path(), f"hydra.run.dir='{quoted}'"]
    every = 1 if os.getppid() == starter else None
    with (folder / LOG).open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=job.runtime.cwd, preexec_fn=_end_with_parent
        )
        while True:
            try:
                return process.wait(every)
            except subprocess.TimeoutExpired:
                if os.getppid() != starter:
                    process.kill()
                    os._exit(1)  # no process is left to report to
            except KeyboardInterrupt:  # the next comparison runs the job again
                process.kill()
                process.wait()
                raise


def _end_with_parent() -> None:
    """Have Linux kill this process when its parent ends: a killed comparison leaves nothing running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
