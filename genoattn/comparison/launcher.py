"""Runs of other programs: each in a process and a folder of its own, spread by Hydra's launchers, done once."""

import ctypes
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from genoattn.config.compose import check, compose
from genoattn.files import write_json

SAID = "log.txt"
"""What a run printed, in its folder."""


ASKED = "overrides.json"
"""The words that a run was started with, in its folder."""


_PR_SET_PDEATHSIG = 1


QUIET = ("hydra.output_subdir=null", "hydra/hydra_logging=none", "hydra/job_logging=none")


def composed(program: str, words: Sequence[str]) -> DictConfig:
    """The config of another program under these words, checked; from inside a running one."""
    config = compose(program, [*words, *search_path()])
    check(config, program)
    return config


def search_path() -> list[str]:
    """The word that names the folders of more configs, which the runs of this program search as well."""
    return [word for word in HydraConfig.get().overrides.hydra if word.startswith("hydra.searchpath=")]


def run_jobs(
    program: str, jobs: Mapping[str, Sequence[str]], folder: Path, done: str, launcher: bool = True
) -> list[str]:
    """Run `program` with the words of each of `jobs` in its place in `folder`; returns the places that failed.

    A job is done when its folder holds the file `done` and was asked for with the same words; such are left alone.
    `launcher` spreads them by the launcher that this program was given (hydra/launcher=…), else one follows another.
    """
    todo = {place: list(words) for place, words in jobs.items() if not _is_done(folder / place, words, done)}
    for place, words in todo.items():
        shutil.rmtree(folder / place, ignore_errors=True)
        (folder / place).mkdir(parents=True)
        write_json(folder / place / ASKED, words)
    if not todo:
        return []
    if len(jobs) > len(todo):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} are done already")
    chosen = [word for word in HydraConfig.get().overrides.hydra if "launcher" in word] if launcher else []
    home = str(folder.absolute()).replace("'", "\\'")
    loader = GlobalHydra.instance().config_loader()
    master = loader.load_configuration(
        program,
        [*chosen, *search_path(), f"hydra.job.name={program}", f"hydra.sweep.dir='{home}'", *QUIET],
        RunMode.MULTIRUN,
    )
    spread = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(loader, Callbacks(master)),
        task_function=partial(run_job, program, os.getpid()),
        config=master,
    )
    for name in ("hydra", "hydra_plugins"):  # the launchers' own news of each job
        logging.getLogger(name).setLevel(logging.WARNING)
    with _watched(program, [folder / place / done for place in todo]):
        ended = spread.launch([[f"hydra.sweep.subdir='{place}'", *words] for place, words in todo.items()], 0)
    return [place for place, one in zip(todo, ended, strict=True) if one.return_value]


@contextmanager
def _watched(program: str, files: Sequence[Path]) -> Iterator[None]:
    """A bar, or lines where there is no terminal, as the file of each job comes to be there."""
    console, ended = Console(), Event()
    columns = (TextColumn(f"{program} {{task.fields[last]}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=len(files), last="")
    left = list(files)

    def look() -> None:
        for file in [one for one in left if one.is_file()]:
            left.remove(file)
            bar.update(task, completed=len(files) - len(left), last="/".join(file.parts[-4:-1]))
            if bar.disable:
                print(f"{program} {len(files) - len(left)}/{len(files)}: {file.parent}", flush=True)

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


def _is_done(place: Path, words: Sequence[str], done: str) -> bool:
    with suppress(OSError, ValueError):
        return (place / done).is_file() and json.loads((place / ASKED).read_text("utf-8")) == list(words)
    return False


def run_job(program: str, starter: int, _: DictConfig) -> int:
    """One run, in a process of its own: what it prints goes to a file in its folder; returns its exit status.

    `starter` is the process that launches all of them. A launcher's worker that it began here ends with it, run and
    all, where it would else go on with what stands in its queue.
    """
    about = HydraConfig.get()
    folder = Path(about.runtime.output_dir)
    quoted = str(folder).replace("'", "\\'")
    words = [sys.executable, "-m", "genoattn", program, *about.overrides.task, *search_path()]
    words.append(f"hydra.run.dir='{quoted}'")
    every = 1 if os.getppid() == starter else None
    with (folder / SAID).open("w") as said:
        process = subprocess.Popen(
            words, stdout=said, stderr=subprocess.STDOUT, cwd=about.runtime.cwd, preexec_fn=_end_with_parent
        )
        while True:
            try:
                return process.wait(every)
            except subprocess.TimeoutExpired:
                if os.getppid() != starter:
                    process.terminate()
                    os._exit(1)  # nobody is left to tell
            except KeyboardInterrupt:  # the terminal has told the run too, which needs a moment to end well
                process.wait(timeout=60)
                raise


def _end_with_parent() -> None:
    """Has Linux end this process when its parent is killed: a comparison that was killed leaves nothing running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
