"""torchrun starts a training: one run folder, and the figures of one process, those of the test at the end included."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parallel.conftest import WORDS, largest_difference
from tests.parallel.ranks import call_main
from tests.parallel.test_data_parallel import assert_same_figures, files

pytestmark = [pytest.mark.usefixtures("alone"), pytest.mark.filterwarnings("ignore")]

CHECKOUT = Path(__file__).parents[2]


def metrics(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if not name.startswith("cost/")}


def test_torchrun_makes_the_run_of_one_process(fasta: Path, tmp_path: Path) -> None:
    words = [*WORDS, f"data.fasta={fasta}", "test.windows=8", "test.threshold_windows=8", "test.resamples=2"]
    one, several = tmp_path / "one", tmp_path / "several"
    assert call_main(["train", *words, f"hydra.run.dir={one}"])[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "scripts/train.py", *words, "trainer.devices=2", f"hydra.run.dir={several}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"run folder: {several}\n") == 1 and "Traceback" not in done.stderr
    assert "2 processes compute: cpu, cpu\n" in done.stdout
    assert sum(line.startswith("step ") for line in (several / "train.log").read_text().splitlines()) == 2
    assert files(several) == files(one)
    assert largest_difference(one, several) < 1e-6
    assert_same_figures(one, several, 1e-6)
    expected = metrics(one)
    assert metrics(several) == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in expected.items()}


def test_the_status_of_processes_is_that_of_the_program(tmp_path: Path) -> None:
    """The console command starts them by torch's launcher; trainings end so by signals in test_stop_and_resume.py."""
    calls = "launch(['--help'], 2, folder), launch(['nothing'], 2, folder)"
    code = f"from pathlib import Path; from genoattn.training.processes import launch; folder = Path(); print({calls})"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.stdout.endswith("0 2\n") and done.stdout.count("usage: genoattn PROGRAM") == 2
    assert done.stderr.count("genoattn nothing: there is no such program") >= 1 and "Traceback" not in done.stderr
