"""Comparisons on clusters: their jobs end with them, and every launcher gives the same comparison."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import DictConfig

from genoattn.cli.main import main
from genoattn.comparison import launcher
from genoattn.comparison.cluster_jobs import CANCELLED, Starter, cancel_slurm_jobs, open_slurm_jobs
from genoattn.comparison.record import Comparison, Environment, TrainingRun
from genoattn.config.overrides import quote
from tests.comparison.conftest import SHORT, small

pytestmark = [pytest.mark.usefixtures("alone"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def submitted(tmp_path: Path) -> Path:
    """What submitit leaves of an array of three jobs, of which one has ended, of a job alone, and of a local one."""
    for name in ("70_0", "70_1", "70_2", "81", "999"):
        place = tmp_path / ".submitit" / name
        place.mkdir(parents=True)
        (place / f"{name}_submitted.pkl").touch()
    (tmp_path / ".submitit" / "70").mkdir()
    (tmp_path / ".submitit" / "70" / "70_submission.sh").touch()
    (tmp_path / ".submitit" / "81" / "81_submission.sh").touch()
    (tmp_path / ".submitit" / "70_1" / "70_1_0_result.pkl").touch()
    return tmp_path


def fake_scancel(folder: Path, monkeypatch: pytest.MonkeyPatch, status: int = 0) -> Path:
    """A program `scancel` that notes the jobs that it is told."""
    program, noted = folder / "bin" / "scancel", folder / "cancelled.txt"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\necho "$@" >> "{noted}"\necho "no such job" >&2\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return noted


def test_what_is_not_over_is_cancelled_once(
    submitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = fake_scancel(submitted, monkeypatch)
    cancel_slurm_jobs(submitted, "because of this test")
    assert noted.read_text().split() == ["70_0", "70_2", "81"]
    assert capsys.readouterr().err == "3 jobs of Slurm cancelled, because of this test\n"
    cancel_slurm_jobs(submitted, "again")
    assert len(noted.read_text().split()) == 3 and (submitted / ".submitit" / "81" / CANCELLED).is_file()


def test_what_submitit_leaves_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executor for Slurm, with stand-ins for Slurm's programs."""
    submitit = pytest.importorskip("submitit")
    noted = fake_scancel(tmp_path, monkeypatch)
    for name, line in (("sbatch", 'echo "Submitted batch job 4711"'), ("srun", "exit 0")):
        (noted.parent / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (noted.parent / "bin" / name).chmod(0o755)
    executor = submitit.AutoExecutor(cluster="slurm", folder=tmp_path / ".submitit" / "%j")
    executor.update_parameters(timeout_min=5, slurm_array_parallelism=2)
    jobs = executor.map_array(abs, [1, 2, 3])
    assert list(open_slurm_jobs(tmp_path)) == [job.job_id for job in jobs] == ["4711_0", "4711_1", "4711_2"]
    jobs[1].paths.result_pickle.touch()
    cancel_slurm_jobs(tmp_path, "because of this test")
    assert noted.read_text().split() == ["4711_0", "4711_2"] and not open_slurm_jobs(tmp_path)


def test_jobs_that_cannot_be_cancelled_are_named(
    submitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_scancel(submitted, monkeypatch, status=1)
    cancel_slurm_jobs(submitted, "")
    assert capsys.readouterr().err == "3 jobs may still run: scancel 70_0 70_2 81 (no such job)\n"
    monkeypatch.setenv("PATH", str(submitted / "nowhere"))
    cancel_slurm_jobs(submitted, "")
    assert "3 jobs may still run: scancel 70_0 70_2 81 ([Errno 2]" in capsys.readouterr().err
    assert list(open_slurm_jobs(submitted)) == ["70_0", "70_2", "81"]


def test_a_program_that_is_stopped_cancels_its_jobs_and_a_killed_one_at_the_next_start(
    submitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`score` with a launcher that submits one job more, and is stopped by Ctrl-C."""
    noted = fake_scancel(submitted, monkeypatch)
    parts = submitted

    class Launcher:
        def launch(self, *_: object) -> None:
            assert noted.read_text().split() == ["70_0", "70_2", "81"]  # those that a kill left
            place = parts / ".submitit" / "90"
            place.mkdir()
            (place / "90_submitted.pkl").touch()
            (place / "90_submission.sh").touch()
            raise KeyboardInterrupt

    class Plugins:
        @staticmethod
        def instance() -> "type[Plugins]":
            return Plugins

        @staticmethod
        def instantiate_launcher(**_: object) -> Launcher:
            return Launcher()

    def started(*_: object) -> None:
        with pytest.raises(KeyboardInterrupt):
            launcher.spread("score", {"1-of-2": [], "2-of-2": []}, parts, "shard.json")

    monkeypatch.setattr(launcher, "Plugins", Plugins)
    monkeypatch.setattr("genoattn.cli.models.main", started)
    assert main(["models", f"hydra.run.dir={quote(submitted / 'run')}"]) == 0
    assert noted.read_text().split() == ["70_0", "70_2", "81", "90"]
    assert "1 jobs of Slurm cancelled, because this program was stopped" in capsys.readouterr().err


def test_a_starter_that_has_ended_is_noticed() -> None:
    assert not Starter.here().has_ended and Starter.here().is_near
    assert not Starter("elsewhere", 1).is_near
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        starter = Starter(Starter.here().host, process.pid)
        deadline = time.monotonic() + 60
        while not starter.has_ended:  # before it was waited for
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert starter.has_ended


def test_a_job_ends_with_its_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is no child of the program that launched it: as under submitit and Ray."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        pass
    started: list[subprocess.Popen[bytes]] = []

    def start(*_: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return started[0]

    class Exit(Exception):
        """In place of the end of the worker."""

    def leave(status: int) -> None:
        raise Exit(status)

    job = SimpleNamespace(
        runtime=SimpleNamespace(output_dir=str(tmp_path), cwd="."), overrides=SimpleNamespace(task=["seed=1"])
    )
    monkeypatch.setattr(launcher, "_started", start)
    monkeypatch.setattr(launcher.HydraConfig, "get", lambda: job)
    monkeypatch.setattr(launcher.os, "_exit", leave)
    with pytest.raises(Exit):
        launcher.run_job("train", Starter(Starter.here().host, ended.pid), None, DictConfig({}))
    assert started[0].wait(60) == -signal.SIGKILL


LAUNCHERS = {
    "submitit_local": ["hydra.launcher.timeout_min=10"],
    "ray": ["+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=1"],
}


def without_times(folder: Path) -> Comparison:
    """The comparison of a folder without what no two runs share: seconds, memory, dates and the command."""

    def timeless(run: TrainingRun) -> TrainingRun:
        curve = tuple((0.0, value) for _, value in run.curve)
        return replace(run, train_seconds=None, curve=curve)

    found = Comparison.read(folder)
    results = tuple(replace(result, pareto_front=(), recommendation=None) for result in found.results)
    runs = tuple(map(timeless, found.runs))
    nowhere = Environment("", "", "", "", 1, found.environment.versions)
    assert found.ladder is not None
    rows = tuple(replace(row, seconds=0.0, seconds_to_learn=()) for row in found.ladder.rows)
    ladder = replace(found.ladder, rows=rows)
    return replace(found, environment=nowhere, results=results, costs=(), crossovers=(), runs=runs, ladder=ladder)


@pytest.mark.parametrize(
    ("chosen", "module"), [("submitit_local", "hydra_plugins.hydra_submitit_launcher"), ("ray", "ray")]
)
def test_the_same_comparison_by_another_launcher(
    chosen: str, module: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Ray starts a local cluster of two workers. Probes of models that are equal to the last bit are not repeated."""
    installed = pytest.importorskip(module)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    for measured in ("costs", "context"):
        shutil.copytree(home / "out" / measured, tmp_path / "out" / measured)
    words = small(home, tmp_path / "out", *SHORT, f"hydra/launcher={chosen}", *LAUNCHERS[chosen])
    assert main(words) == 0
    if chosen == "ray":
        installed.shutdown()
    assert "context: all 2 runs are complete already" in capsys.readouterr().out
    assert without_times(tmp_path / "out") == without_times(home / "out")
    assert len(without_times(tmp_path / "out").runs) == 2
