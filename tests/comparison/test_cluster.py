"""Comparisons on clusters: their jobs end with them, and every launcher gives the same comparison."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from genoattn.cli.main import main
from genoattn.comparison import launcher
from genoattn.comparison.cluster_jobs import CANCELLED, Starter, cancel_slurm_jobs, open_slurm_jobs
from genoattn.comparison.record import Comparison, Environment, TrainingRun
from genoattn.config.overrides import quote
from tests.toy_genomes import write_genome

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


WORDS = (
    *("experiment=smoke", "data.length=32", "layers=[conv]", "learning_rates=[0.01]", "seeds=[0]", "extrapolate=[]"),
    *("budget.seconds=null", "budget.steps=2", "sweep.seconds=null", "sweep.steps=1", "test.resamples=4"),
    *("trainer.threads=1", "cost_lengths=[]"),
)
LAUNCHERS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.launcher.timeout_min=10"],
    "ray": ["hydra.launcher.ray.init.num_cpus=2", "hydra.launcher.ray.remote.num_cpus=1"],
}


@pytest.fixture(scope="module")
def by_joblib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a genome, and its comparison by processes of this machine."""
    folder = tmp_path_factory.mktemp("clusters")
    write_genome(folder, "small", 0, lengths=(8_000,))
    assert compare(folder, "joblib") == 0
    return folder


def compare(folder: Path, chosen: str) -> int:
    words = [f"data.fasta={quote(folder / 'small.fa')}", f"hydra/launcher={chosen}", *LAUNCHERS[chosen], *WORDS]
    return main(["compare", f"hydra.run.dir={quote(folder / chosen)}", *words])


def without_times(folder: Path) -> Comparison:
    """The comparison of a folder without what no two runs share: seconds, memory, dates and the command."""

    def timeless(run: TrainingRun) -> TrainingRun:
        curve = tuple((0.0, value) for _, value in run.curve)
        return replace(run, train_seconds=None, curve=curve)

    found = Comparison.read(folder)
    results = tuple(replace(result, pareto_front=(), recommendation=None) for result in found.results)
    runs = tuple(map(timeless, found.runs))
    nowhere = Environment("", "", "", "", 1, found.environment.versions)
    return replace(found, environment=nowhere, results=results, costs=(), crossovers=(), runs=runs)


@pytest.mark.parametrize(
    ("chosen", "module"), [("submitit_local", "hydra_plugins.hydra_submitit_launcher"), ("ray", "ray")]
)
def test_the_same_comparison_by_another_launcher(
    chosen: str, module: str, by_joblib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is not among the packages of `make test`: its wheel of 79 MB takes longer to start than all else here."""
    pytest.importorskip(module)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert compare(by_joblib, chosen) == 0
    assert without_times(by_joblib / chosen) == without_times(by_joblib / "joblib")
    assert len(without_times(by_joblib / chosen).runs) == 2
