"""Training on several processes stops whole, and goes on exactly on any number of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from genoattn.training.run import requeue
from tests.parallel.conftest import WORDS, largest_difference, last
from tests.parallel.ranks import Ranks, call_main
from tests.training.quick import at_batch, rows

pytestmark = pytest.mark.usefixtures("alone", "evaluation_left_out")

STEPS = ("trainer.max_steps=6", "trainer.validate_every=2", *WORDS)


def call_stopped(rank: int, number: signal.Signals, batch: int, words: list[str]) -> tuple[int, str, str]:
    """`call_main` in a process that gets a signal within a batch, if it is the one of that rank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", "7")
        if int(os.environ["RANK"]) == rank:
            at_batch(patch, batch, lambda: signal.raise_signal(number))
        return call_main(words)


def test_a_run_goes_on_on_any_number_of_processes(two: Ranks, four: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *STEPS, f"data.fasta={fasta}"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    together = [*words, "trainer.devices=2", f"hydra.run.dir={whole}"]
    assert [status for status, _, _ in two.run(call_main, together)] == [0, 0]
    here, checkpoint = [*words, f"hydra.run.dir={run}"], run / "checkpoints" / "last.ckpt"

    answers = two.run(call_stopped, 1, signal.SIGTERM, 3, [*here, "trainer.devices=2"])
    assert [status for status, _, _ in answers] == [143, 143]
    assert f"stopped by SIGTERM after step 3; go on with trainer.resume={checkpoint}\n" in answers[0][1]
    assert last(run)["global_step"] == 3
    again = [*words, "trainer.devices=2", f"trainer.resume={checkpoint}", f"hydra.run.dir={tmp_path / 'again'}"]
    assert [status for status, _, _ in two.run(call_main, again)] == [0, 0]
    assert largest_difference(whole, tmp_path / "again") == 0
    assert rows(tmp_path / "again") == rows(whole)[4:]

    here.append(f"trainer.resume={checkpoint}")
    answers = four.run(call_stopped, 2, signal.SIGUSR1, 2, [*here, "trainer.devices=4"])
    assert [status for status, _, _ in answers] == [138] * 4 and last(run)["global_step"] == 5
    assert call_main(here)[0] == 0
    assert largest_difference(whole, run) < 1e-6
    assert [row["step"] for row in rows(run) if row["loss"]] == ["0", "1", "2", "3", "4", "5"]
    assert [row["step"] for row in rows(run) if row["validation/loss"]] == ["1", "3", "5"]


@pytest.fixture
def started(fasta: Path, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """The console command on two devices, within its training."""
    words = [*WORDS, "trainer.max_steps=100000", f"data.fasta={fasta}", "trainer.devices=2"]
    command = [sys.executable, "-u", "-m", "genoattn", "train", *words, f"hydra.run.dir={tmp_path / 'run'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert next((line for line in program.stdout if line.startswith("step")), None)
        yield program
        program.kill()


def test_a_process_that_is_killed_ends_the_run(started: subprocess.Popen, tmp_path: Path) -> None:
    second = next(child for child in psutil.Process(started.pid).children() if child.environ().get("RANK") == "1")
    second.send_signal(signal.SIGKILL)
    _, said = started.communicate(timeout=120)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    sentence = "process 1 of the run was ended by SIGKILL, and the others with it; go on with trainer.resume="
    assert started.returncode == 137 and said.splitlines()[-1] == f"{sentence}{checkpoint}"
    assert last(tmp_path / "run")["global_step"] % 2 == 0


def test_a_signal_reaches_all_processes(started: subprocess.Popen, tmp_path: Path) -> None:
    started.terminate()
    said, grumbled = started.communicate(timeout=120)
    step = last(tmp_path / "run")["global_step"]
    assert started.returncode == 143 and grumbled == ""
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert said.endswith(f"stopped by SIGTERM after step {step}; go on with trainer.resume={checkpoint}\n")


def test_a_job_is_queued_again_and_goes_on_in_its_folder(
    fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >&2\nexit 0\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    words = ["train", *STEPS, f"data.fasta={fasta}", "trainer.requeue=true"]
    assert call_main(words)[2].startswith("trainer.requeue=true needs hydra.run.dir=…")
    words.append(f"hydra.run.dir={tmp_path / 'run'}")
    with monkeypatch.context() as patch:
        at_batch(patch, 3, lambda: signal.raise_signal(signal.SIGUSR1))
        status, said, _ = call_main(words)
    assert status == 138 and said.splitlines()[-1] == "job 7 is queued again"
    assert call_main(words)[0] == 0
    assert [row["step"] for row in rows(tmp_path / "run") if row["loss"]] == ["0", "1", "2", "3", "4", "5"]

    (tmp_path / "scontrol").write_text("#!/bin/sh\necho requeue $2: disabled >&2\nexit 1\n")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    capfd.readouterr()
    requeue()
    sentence = "trainer.requeue: job 8_3 could not be queued again: requeue 8_3: disabled\n"
    assert capfd.readouterr().out == sentence
