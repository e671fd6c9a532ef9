"""The tests of kernels, in two processes: triton interprets or compiles, once for all of a process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
import triton

import genoattn.attention.kernels
from genoattn.attention.full import FullAttention
from genoattn.cli.main import main
from tests import gpus

FOLDER = Path(__file__).parent / "kernels"
INTERPRETED = (
    "test_flash.py",
    "test_linear.py",
    "test_delta.py",
    "test_blocks.py",
    "test_heads.py",
    "test_programs.py",
    "test_layer.py",
    "test_faults.py",
)


def run(*files: str, gpu: bool = False, **environment: str) -> None:
    """Fails with what pytest printed unless every test of these files passes."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--confcutdir={FOLDER}"]
    given = gpus.seen() if gpu else os.environ
    inherited = {name: value for name, value in given.items() if not name.startswith(("PYTEST_", "TRITON_"))}
    ended = subprocess.run(
        [*words, *(str(FOLDER / file) for file in files)],
        cwd=FOLDER.parents[2],
        env=inherited | environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and " passed" in ended.stdout, f"{ended.stdout[-20000:]}\n{ended.stderr[-2000:]}"
    assert gpu or "skipped" not in ended.stdout, ended.stdout[-2000:]


def release(version: str) -> tuple[int, ...]:
    """Major and minor number of a version."""
    return tuple(int(number) for number in version.split(".")[:2])


@pytest.mark.skipif(
    release(triton.__version__) < (3, 7) and release(numpy.__version__) >= (2, 4),
    reason="this triton's interpreter makes numbers of arrays as this NumPy no longer does",
)
def test_interpreted() -> None:
    run(*INTERPRETED, TRITON_INTERPRET="1")


def test_compiled_ahead_of_time() -> None:
    run("test_compiled.py")


@pytest.mark.skipif(not gpus.there(), reason="there is no GPU")
def test_on_the_gpu() -> None:
    run(*INTERPRETED[:-1], "test_device.py", gpu=True)


def test_triton_asked_for_where_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(sys, "argv", ["genoattn"])
    words = ["attention=flash", "attention.backend=triton", "experiment=smoke", f"hydra.run.dir={tmp_path}"]
    assert main(["train", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("attention.backend=triton: Triton's kernels need a GPU and there is none; auto takes")
    assert said.count("\n") == 1
    assert "torch, which computes the same" in FullAttention(32, False, backend="auto").describe_backend(
        torch.device("cpu")
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_tiles_are_timed_on_a_gpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(sys, "argv", ["genoattn"])
    assert main(["kernels", "tune=true", f"hydra.run.dir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said == "tune=true times kernels on a GPU: Triton's kernels need a GPU and there is none\n"


def test_every_file_is_run() -> None:
    assert {file.name for file in FOLDER.glob("test_*.py")} == {*INTERPRETED, "test_compiled.py", "test_device.py"}


def test_why_they_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert genoattn.attention.kernels.available(cpu) == (False, "Triton's kernels need a GPU and there is none")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert genoattn.attention.kernels.available(cpu)[0]
    monkeypatch.setattr(genoattn.attention.kernels, "find_spec", lambda name: None)
    assert genoattn.attention.kernels.available(cpu) == (False, "triton is not installed")
