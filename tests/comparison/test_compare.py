"""Comparisons: which runs they are made of, what is made of these, and that a stopped one goes on."""

import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import wandb

from genoattn.cli.main import main
from genoattn.comparison import report as comparison
from genoattn.comparison import runner
from tests.toy_genomes import write_genome

pytestmark = pytest.mark.usefixtures("alone")
BUDGET = ("budget.seconds=null", "sweep.seconds=null")
QUALITY = {"full": 0.8, "again": 0.8, "window": 0.4, "linear": 0.41, "none": 0.05, "conv": 0.05}
SPEED = {"full": 1e4, "again": 1e4, "window": 4e4, "linear": 8e4, "none": 2e5, "conv": 1e5}
"""What runs are made up to reach, and how fast they are."""


class Lab:
    """Stands in for the processes of a comparison: it notes what it is asked for and makes up what comes of it."""

    def __init__(self) -> None:
        self.asked: dict[str, list[str]] = {}
        self.broken: set[str] = set()

    def __call__(
        self, program: str, jobs: Mapping[str, Sequence[str]], folder: Path, done: str, launcher: bool = True
    ) -> list[str]:
        failed = []
        for place, words in jobs.items():
            self.asked[place] = list(words)
            if any(one in place for one in self.broken):
                failed.append(place)
                continue
            (folder / place).mkdir(parents=True, exist_ok=True)
            getattr(self, program)(folder / place, dict(word.split("=", 1) for word in words), place)
        return failed

    def plan(self, home: Path, _: Mapping[str, str], place: str) -> None:
        speed = SPEED.get(place.split("/")[2], 5e4)
        measured = {"seconds_per_step": 1000 / speed, "forward_bases_per_second": speed}
        measured |= {"training_bases_per_second": speed / 3, "training_peak_bytes": 1e9, "forward_peak_bytes": 5e8}
        (home / "plan.json").write_text(json.dumps({"predicted": {}, "measured": measured}))

    def train(self, home: Path, words: Mapping[str, str], place: str) -> None:
        layer, rate, seed = place.split("/")[2], float(words["optimizer.lr"]), int(words["seed"])
        rng = np.random.default_rng([seed, sum(map(ord, place))])
        value = QUALITY.get(layer, 0.2) + 0.01 * rng.standard_normal()
        draws = value + 0.02 * np.random.default_rng(1).standard_normal(50) + 0.001 * rng.standard_normal(50)
        parts = [{"by": "distance", "name": "1–2", "kind": "", "low": 1, "high": 2, "count": 5, "value": value}]
        seen = {"headline": "test/auprc", "draws": {"test/auprc": draws.tolist(), "untrained/test/auprc": [0.01] * 50}}
        seen["strata"] = [{**one, "draws": draws.tolist()} for one in parts]
        (home / "bootstrap.json").write_text(json.dumps(seen))
        figures = {"test/auprc": value, "untrained/test/auprc": 0.01, "cost/train_seconds": 3.0}
        (home / "metrics.json").write_text(json.dumps(figures))
        loss = 1 - QUALITY.get(layer, 0.2) + abs(np.log10(rate) + 2.5)  # best at 0.003
        (home / "metrics.csv").write_text(f"bases_seen,validation/loss\n500,{loss + 1}\n1000,{loss}\n")

    def context(self, home: Path, _: Mapping[str, str], place: str) -> None:
        (home / "context.json").write_text(
            json.dumps({"nominal": None, "effective": 64, "curve": [[1, 0.5], [2, 0.1]]})
        )

    def evaluate(self, home: Path, _: Mapping[str, str], place: str) -> None:
        self.train(home, {"optimizer.lr": "0.003", "seed": "0"}, place)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab()
    monkeypatch.setattr(runner, "run_jobs", made)
    monkeypatch.setattr(comparison, "draw", lambda _: [])  # test_page.py looks at the pictures
    return made


def held(folder: Path, *words: str) -> dict:
    """A made-up comparison in a folder, and what its comparison.json says."""
    assert main(["compare", f"hydra.run.dir={folder}", "experiment=smoke", *words]) == 0
    return json.loads((folder / "comparison.json").read_text())


def test_every_layer_has_the_same_runs(lab: Lab, tmp_path: Path) -> None:
    found = held(tmp_path, "layers=[full,linear]", "data.length=[64,128]", *BUDGET, "budget.steps=40", "sweep.steps=10")
    runs = {place: words for place, words in lab.asked.items() if place.startswith("runs/")}
    assert len(runs) == 4 * 2 * (3 + 3)  # full, linear, none and conv, at two lengths, three rates and three seeds
    for layer in ("linear", "none", "conv"):
        for place in (place for place in runs if "/full/" in place):
            other = runs[place.replace("/full/", f"/{layer}/")]
            assert [word.replace(f"attention={layer}", "attention=full") for word in other] == runs[place]
    assert found["chosen"] == {
        length: dict.fromkeys(("full", "linear", "none", "conv"), 0.003) for length in ("64", "128")
    }
    assert {one["steps"] for one in found["runs"] if one["stage"] == "final"} == {40}
    half = [words for place, words in runs.items() if place.startswith("runs/128/")]
    assert all("data.batch=2" in words for words in half)  # as many bases a step as four windows of 64


def test_seconds_are_made_into_steps_of_each_layer(lab: Lab, tmp_path: Path) -> None:
    found = held(tmp_path, "layers=[full,linear]", "data.length=64", "budget.seconds=20", "sweep.seconds=2")
    steps = {(one["layer"], one["stage"]): one["steps"] for one in found["runs"]}
    assert steps["full", "final"] == 200 and steps["linear", "final"] == 1600
    assert steps["full", "sweep"] == 20
    assert (
        "checkpoint=" in " ".join(lab.asked["longer/64/linear/8"])
        and "data.length=512" in lab.asked["longer/64/linear/8"]
    )


def test_bases_are_made_into_steps(lab: Lab, tmp_path: Path) -> None:
    words = ("layers=[full]", "data.length=[64,128]", *BUDGET, "budget.bases=10240", "sweep.bases=2560", "seeds=[0]")
    steps = {(one["length"], one["stage"]): one["steps"] for one in held(tmp_path, *words)["runs"]}
    assert steps == {(64, "sweep"): 10, (64, "final"): 40, (128, "sweep"): 10, (128, "final"): 40}


def test_the_same_layer_twice_is_not_told_apart_and_a_planted_difference_is(lab: Lab, tmp_path: Path) -> None:
    again = '+variants.again=["attention=full"]'
    found = held(tmp_path, "layers=[full,window]", again, *BUDGET, "budget.steps=9", "sweep.steps=3")
    verdict = found["verdicts"]["64"]
    apart = {frozenset((one["first"], one["second"])): one["significant"] for one in verdict["differences"]}
    assert not apart[frozenset(("full", "again"))]
    assert apart[frozenset(("full", "window"))] and apart[frozenset(("window", "none"))]
    assert not apart[frozenset(("none", "conv"))]
    assert set(verdict["groups"][0]) == {"full", "again"}
    assert verdict["recommendation"]["layer"] in ("full", "again")
    page = (tmp_path / "comparison.html").read_text()
    assert verdict["words"] in page and not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    with (tmp_path / "comparison.csv").open(newline="") as lines:
        rows = {row["layer"]: row for row in csv.DictReader(lines)}
    assert float(rows["window"]["mean"]) == pytest.approx(0.4, abs=0.03) and rows["window"]["n"] == "3"


def test_runs_that_fail_are_missed_in_words(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.broken = {"linear/final-lr0.003-seed1"}
    words = ("experiment=smoke", "layers=[full,linear]", *BUDGET, "budget.steps=9", "sweep.steps=3")
    assert main(["compare", f"hydra.run.dir={tmp_path}", *words]) == 2
    assert "1 runs ended badly" in capsys.readouterr().err
    found = json.loads((tmp_path / "comparison.json").read_text())
    [estimates] = (one["estimates"] for one in found["verdicts"].values())
    assert estimates["linear"]["seeds"] == 2 and estimates["full"]["seeds"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attention=full"], "attention=full: a comparison settles attention itself; write layers=[…]"),
        (["optimizer.lr=0.1"], "write learning_rates=[…]"),
        (["budget.steps=3"], "one of budget.steps, budget.bases and budget.seconds, got budget.steps, budget.seconds"),
        (["layers=[]"], "layers: expected one or more, each once, got []"),
        (["seeds=[1,1]"], "seeds: expected one or more, each once, got [1, 1]"),
        (["layers=[fulll]"], "there is no conf/attention/fulll.yaml"),
        (["model.dmi=3"], "dmi"),
        (["hypotheses=nowhere.txt"], "hypotheses=nowhere.txt does not exist"),
    ],
)  # fmt: skip
def test_mistakes(words: list[str], said: str, lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", f"hydra.run.dir={tmp_path}", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not lab.asked


def test_weights_and_biases_has_it_in_one_group(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    seen = []
    real = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **given: seen.append(given) or real(**given))
    held(
        tmp_path, "layers=[full]", "logger=wandb", "name=mine", *BUDGET, "budget.steps=9", "sweep.steps=3", "seeds=[0]"
    )
    assert [one["group"] for one in seen] == ["mine"]
    assert all("logger.group='mine'" in words for place, words in lab.asked.items() if place.startswith("runs/"))
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_a_stopped_comparison_goes_on(tmp_path: Path) -> None:
    """Real runs, each in a process of its own, two at a time; of those that ended none is made again."""
    fasta, _ = write_genome(tmp_path, "small", 0)
    words = [
        "compare", f"hydra.run.dir={tmp_path / 'out'}", "experiment=smoke", f"data.fasta={fasta}", "layers=[none]",
        "learning_rates=[0.01]", "seeds=[0]", "budget.seconds=null", "budget.steps=2", "extrapolate=[2]",
        "trainer.threads=1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "test.resamples=4",
    ]  # fmt: skip
    assert main(words) == 0
    runs = sorted((tmp_path / "out" / "runs").rglob("metrics.json"))
    assert len(runs) == 2
    made = [file.stat().st_mtime_ns for file in runs]
    runs[0].unlink()
    assert main(words) == 0
    assert runs[0].is_file() and runs[1].stat().st_mtime_ns == made[1]
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {one["layer"] for one in found["runs"]} == {"none", "conv"}
    assert found["costs"] and found["context"] and found["extrapolation"]


def test_a_killed_comparison_leaves_no_process_behind(tmp_path: Path) -> None:
    """Neither the runs of its workers, nor these, which would go on with what stands in their queues."""
    fasta, _ = write_genome(tmp_path, "small", 0)
    words = [
        "compare", f"hydra.run.dir={tmp_path / 'out'}", "experiment=smoke", f"data.fasta={fasta}", "layers=[none]",
        "seeds=[0]", "budget.seconds=null", "budget.steps=100000", "sweep.seconds=null", "sweep.steps=100000",
        "trainer.threads=1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    ]  # fmt: skip
    with subprocess.Popen([sys.executable, "-m", "genoattn", *words], stderr=subprocess.DEVNULL) as started:
        try:
            until(lambda: len(list((tmp_path / "out" / "runs").rglob("train.log"))) == 2)
            family = psutil.Process(started.pid).children(recursive=True)
            assert sum("train" in one.cmdline() for one in family) == 2
        finally:
            started.kill()
        left = psutil.wait_procs(family, timeout=30)[1]
        for one in left:
            one.kill()
        assert not left
    assert len(list((tmp_path / "out" / "runs").rglob("train.log"))) == 2  # no other was begun


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    """Waits for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds:g} s"
        time.sleep(0.2)
