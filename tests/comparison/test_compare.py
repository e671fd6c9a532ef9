"""Comparisons: their runs, the results of these, and that a stopped comparison goes on."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import wandb
from omegaconf import OmegaConf

from genoattn.cli.main import main
from genoattn.comparison import launcher, report, runner
from genoattn.comparison.record import Comparison
from genoattn.comparison.run_folders import Again, locked
from tests.comparison.conftest import JOBLIB, SHORT, small

pytestmark = pytest.mark.usefixtures("alone")
BUDGET = ("budget.seconds=null", "sweep.seconds=null")
QUALITY = {"full": 0.8, "again": 0.8, "window": 0.4, "linear": 0.41, "none": 0.05, "conv": 0.05}
SPEED = {"full": 1e4, "again": 1e4, "window": 4e4, "linear": 8e4, "none": 2e5, "conv": 1e5}
"""Invented metrics and speeds of the runs."""


class Lab:
    """Stands in for the processes of a comparison: it records the jobs and makes up their results."""

    def __init__(self) -> None:
        self.jobs: dict[str, list[str]] = {}
        self.broken: set[str] = set()
        self.diverging: set[str] = set()

    def __call__(
        self,
        program: str,
        jobs: Mapping[str, Sequence[str]],
        folder: Path,
        result_file: str,
        launcher: bool = True,
        work: Mapping[str, int | float] | None = None,
        again: Again = False,
    ) -> list[str]:
        failed = []
        for place, words in jobs.items():
            self.jobs[place] = list(words)
            if any(name in place for name in self.broken):
                failed.append(place)
                continue
            (folder / place).mkdir(parents=True, exist_ok=True)
            if any(name in place for name in self.diverging):
                (folder / place / "diverged.json").write_text('{"step": 12, "learning_rate": 1.0, "loss": null}')
                continue
            getattr(self, program)(folder / place, dict(word.split("=", 1) for word in words), place)
        return failed

    def plan(self, home: Path, _: Mapping[str, str], place: str) -> None:
        speed = SPEED.get(place.split("/")[2], 5e4)
        measured = {"seconds_per_step": 1000 / speed, "forward_bases_per_second": speed}
        measured |= {"training_bases_per_second": speed / 3, "training_peak_bytes": 1e9, "forward_peak_bytes": 5e8}
        predicted = {"parameters": 1000, "tokens": 129}
        (home / "plan.json").write_text(json.dumps({"predicted": predicted, "measured": measured}))

    def train(self, home: Path, words: Mapping[str, str], place: str) -> None:
        layer, rate, seed = place.split("/")[2], float(words["optimizer.lr"]), int(words["seed"])
        rng = np.random.default_rng([seed, sum(map(ord, place))])
        value = QUALITY.get(layer, 0.2) + 0.01 * rng.standard_normal()
        shared, own = np.random.default_rng(1).standard_normal(50), rng.standard_normal(50)
        replicates = (value + 0.02 * shared + 0.001 * own).tolist()
        lookup = (0.9 + 0.01 * shared).tolist()
        subgroup = {"by": "distance", "name": "1–2", "kind": "", "low": 1, "high": 2, "count": 5, "value": value}
        bootstrap = {
            "primary_metric": "model/test/all/auprc",
            "replicates": {
                "model/test/all/auprc": replicates,
                "model/test/snv/auprc": [None, *replicates[1:]],
                "untrained/test/all/auprc": [0.01] * 50,
                "kmer_lookup/test/all/auprc": lookup,
                "kmer_lookup/test/snv/auprc": lookup,
            },
            "subgroups": [{**subgroup, "replicates": replicates}],
        }
        told = json.loads(words.get("test.lengths", "[]"))
        bootstrap["replicates"] |= {f"model/test_{at}/all/auprc": replicates for at in told}
        (home / "bootstrap.json").write_text(json.dumps(bootstrap))
        metrics = {f"model/test_{at}/all/auprc": value for at in told}
        metrics |= {"model/test/all/auprc": value, "model/test/snv/auprc": value, "untrained/test/all/auprc": 0.01}
        metrics |= {"kmer_lookup/test/all/auprc": 0.9, "model/test/all/f1": None, "cost/train_seconds": 3.0}
        (home / "metrics.json").write_text(json.dumps(metrics))
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
    monkeypatch.setattr(report, "draw", lambda _: [])  # test_report.py looks at the pictures
    return made


def compared(folder: Path, *words: str) -> Comparison:
    """A made-up comparison in a folder."""
    assert main(["compare", f"hydra.run.dir={folder}", "experiment=smoke", *words]) == 0
    return Comparison.read(folder)


def test_every_layer_has_the_same_runs(lab: Lab, tmp_path: Path) -> None:
    words = ("layers=[full,linear]", "data.length=[64,128]", *BUDGET, "budget.steps=40", "sweep.steps=10")
    comparison = compared(tmp_path, *words)
    runs = {place: words for place, words in lab.jobs.items() if place.startswith("runs/")}
    assert len(runs) == 4 * 2 * (3 + 3)  # full, linear, none and conv, at two lengths, three rates and three seeds
    for layer in ("linear", "none", "conv"):
        for place in (place for place in runs if "/full/" in place):
            other = runs[place.replace("/full/", f"/{layer}/")]
            assert [word.replace(f"attention={layer}", "attention=full") for word in other] == runs[place]
    chosen = [layer.learning_rate for result in comparison.results for layer in result.layers]
    assert chosen == [0.003] * 8
    assert {run.steps for run in comparison.runs if run.stage == "final"} == {40}
    half = [words for place, words in runs.items() if place.startswith("runs/128/")]
    assert all("data.batch=2" in words for words in half)  # as many bases a step as four windows of 64


def test_seconds_are_turned_into_steps_of_each_layer(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = compared(
        tmp_path,
        *("layers=[full,linear]", "data.length=64", "budget.seconds=20", "sweep.seconds=2", "extrapolate=[8]"),
        *(f"data.fasta={tmp_path / 'x.fa'}", "test.rate=0.05"),
    )
    steps = {(run.layer, run.stage): run.steps for run in comparison.runs}
    assert steps["full", "final"] == 200 and steps["linear", "final"] == 1600
    assert steps["full", "sweep"] == 20
    assert "test.lengths=[512]" in lab.jobs["runs/64/linear/final-lr0.003-seed1"]
    assert "test.lengths=[]" in lab.jobs["runs/64/linear/sweep-lr0.003-seed0"]
    assert f"data.fasta='{tmp_path / 'x.fa'}'" in lab.jobs["context/64/linear"]
    assert [*comparison.results[0].layers[0].by_length] == [64, 512]
    # 12 runs of 10 s to start and 2 s or 20 s of training; the estimate is printed before the first run.
    estimate = "estimated time, one run after the other: 12 runs of the sweep 2 min, 12 final runs 6 min"
    assert estimate in capsys.readouterr().out


def test_bases_are_turned_into_steps(lab: Lab, tmp_path: Path) -> None:
    words = ("layers=[full]", "data.length=[64,128]", *BUDGET, "budget.bases=10240", "sweep.bases=2560", "seeds=[0]")
    steps = {(run.length, run.stage): run.steps for run in compared(tmp_path, *words).runs}
    assert steps == {(64, "sweep"): 10, (64, "final"): 40, (128, "sweep"): 10, (128, "final"): 40}


def test_equal_layers_do_not_differ_and_a_simulated_difference_is_significant(lab: Lab, tmp_path: Path) -> None:
    again = '+variants.again=["attention=full"]'
    comparison = compared(
        tmp_path, "layers=[full,window]", again, *BUDGET, "budget.steps=9", "sweep.steps=3", "extrapolate=[]"
    )
    [result] = comparison.results
    statistics = result.statistics
    assert statistics is not None and result.recommendation is not None
    assert not statistics.significant("full", "again") and not statistics.significant("none", "conv")
    assert statistics.significant("full", "window") and statistics.significant("window", "none")
    assert set(statistics.groups[0]) == {"full", "again"} == set(result.recommendation.equivalent)
    assert result.baselines["kmer_lookup"].mean == pytest.approx(0.9)
    assert {*result.layers[0].metrics} == {"model/test/all/auprc", "model/test/snv/auprc"}
    page = (tmp_path / "comparison.html").read_text()
    assert "The baseline kmer_lookup scores 0.900, above the best layer" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    with (tmp_path / "comparison.csv").open(newline="") as lines:
        rows = {row["layer"]: row for row in csv.DictReader(lines)}
    assert float(rows["window"]["mean"]) == pytest.approx(0.4, abs=0.03) and rows["window"]["seeds"] == "3"


def test_the_page_is_made_again_from_the_record(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(tmp_path / "runs", "layers=[full]", *BUDGET, "budget.steps=9", "sweep.steps=3", "seeds=[0]")
    page = (tmp_path / "runs" / "comparison.html").read_text()
    record = (tmp_path / "runs" / "comparison.json").read_bytes()
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "comparison.json.gz").write_bytes(gzip.compress(record))
    lab.jobs.clear()
    assert main(["compare", f"report={folder}", f"hydra.run.dir={tmp_path / 'unused'}"]) == 0
    assert (folder / "comparison.html").read_text() == page and not lab.jobs
    assert main(["compare", f"report={tmp_path}", f"hydra.run.dir={tmp_path / 'unused'}"]) == 2
    assert "holds no comparison.json" in capsys.readouterr().err


def test_runs_that_fail_are_reported(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.broken = {"linear/final-lr0.003-seed1"}
    words = ("experiment=smoke", "layers=[full,linear]", *BUDGET, "budget.steps=9", "sweep.steps=3")
    assert main(["compare", f"hydra.run.dir={tmp_path}", *words]) == 2
    message = capsys.readouterr().err
    assert "1 run failed: see " in message and "linear/final-lr0.003-seed1/log.txt" in message
    [result] = Comparison.read(tmp_path).results
    assert result.estimates["linear"].seeds == 2 and result.estimates["full"].seeds == 3


def test_a_diverged_learning_rate_is_a_result(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is never chosen, whatever it wrote before; a layer that diverges at every one has no final runs."""
    lab.diverging = {"full/sweep-lr0.003", "linear/sweep", "conv/final-lr0.003-seed1"}
    comparison = compared(tmp_path, "layers=[full,linear]", *BUDGET, "budget.steps=9", "sweep.steps=3")
    [result] = comparison.results
    assert not comparison.failed and len(comparison.diverged) == 1 + 3 + 1
    rates = {layer.layer: layer.learning_rate for layer in result.layers}
    assert rates["full"] in (0.001, 0.01) and "linear" not in rates
    assert not any("linear/final" in place for place in lab.jobs)
    rows = [[*row[1:4], *row[5:]] for row in report.tables.sweep(comparison).rows if row[1] in ("full", "linear")]
    assert ["full", "no", "0.003", "diverged at step 12"] in rows
    assert sum(row[-1] == "diverged at step 12" for row in rows) == 4
    missing = report.text.missing(comparison)
    assert "linear at 64 bases: no final run has a score." in missing
    assert "linear at 64 bases: training diverged at learning rates 0.001, 0.003 and 0.01." in missing
    assert "conv at 64 bases: training diverged with seed 1." in missing
    assert not any("not tried" in sentence or "no score for" in sentence for sentence in missing)
    assert Comparison.read(tmp_path) == comparison and result.estimates["conv"].seeds == 2


def test_every_learning_rate_of_every_layer_diverges(lab: Lab, tmp_path: Path) -> None:
    lab.diverging = {"sweep"}
    comparison = compared(tmp_path, "layers=[full]", *BUDGET, "budget.steps=9", "sweep.steps=3")
    assert len(comparison.diverged) == 9 and not comparison.results[0].layers


def test_runs_without_replicates_cannot_be_compared(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = lab.train

    def without(home: Path, words: Mapping[str, str], place: str) -> None:
        train(home, words, place)
        (home / "bootstrap.json").unlink()

    monkeypatch.setattr(lab, "train", without)
    words = ("experiment=smoke", "layers=[full]", *BUDGET, "budget.steps=9", "sweep.steps=3")
    assert main(["compare", f"hydra.run.dir={tmp_path}", *words]) == 2
    assert "has no bootstrap.json: runs of this task cannot be compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["attention=full"], "attention=full: a comparison sets attention itself; write layers=[…]"),
        (["optimizer.lr=0.1"], "write learning_rates=[…]"),
        (["budget.steps=3"], "one of budget.steps, budget.bases and budget.seconds, got budget.steps, budget.seconds"),
        (["layers=[]"], "layers: expected one or more, each once, got []"),
        (["seeds=[1,1]"], "seeds: expected one or more, each once, got [1, 1]"),
        (["layers=[fulll]"], "there is no conf/attention/fulll.yaml"),
        (["model.dmi=3"], "dmi"),
        (["hypotheses=nowhere.txt"], "hypotheses=nowhere.txt does not exist"),
        (
            ['+variants.full=["attention=window"]'],
            "variants.full: there is a layer of this name already; name the variant otherwise",
        ),
    ],
)
def test_mistakes(
    words: list[str], sentence: str, lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", f"hydra.run.dir={tmp_path}", *words]) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message
    assert not lab.jobs


def test_weights_and_biases_has_it_in_one_group(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    calls = []
    real = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **given: calls.append(given) or real(**given))
    words = ("layers=[full]", "logger=wandb", "name=mine", *BUDGET, "budget.steps=9", "sweep.steps=3", "seeds=[0]")
    compared(tmp_path, *words)
    assert [call["group"] for call in calls] == ["mine"]
    assert all("logger.wandb.group='mine'" in words for place, words in lab.jobs.items() if place.startswith("runs/"))
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_a_stopped_comparison_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Complete runs are not made again; one that was stopped goes on from its checkpoint, in its folder."""
    runs = sorted((home / "out" / "runs").rglob("metrics.json"))
    assert len(runs) == 2
    made = [file.stat().st_mtime_ns for file in runs]
    runs[0].unlink()
    capsys.readouterr()
    assert main(small(home, home / "out", *JOBLIB, *SHORT)) == 0
    lines = capsys.readouterr().out
    assert "plan: all 2 runs are complete already" in lines and "train: 1 of 2 runs are complete already" in lines
    assert "context: all 2 runs are complete already" in lines  # the model that is made again is the same
    assert runs[0].is_file() and runs[1].stat().st_mtime_ns == made[1]
    assert not list((home / "out" / "runs").rglob("*~1"))
    assert "trainer:\n" in (config := (runs[0].parent / "config.yaml").read_text()) and "last.ckpt" in config
    comparison = Comparison.read(home / "out")
    assert {run.layer for run in comparison.runs} == {"none", "conv"}
    [result] = comparison.results
    assert comparison.costs and all(layer.context and [*layer.by_length] == [16, 32] for layer in result.layers)
    assert comparison.ladder is not None and {*comparison.ladder.rows[0].capacity} == {16, 32}
    assert [len(row.tokens_to_learn) for row in comparison.ladder.rows] == [1, 1]
    probe = json.loads((home / "out" / "context" / "32" / "none" / "inputs.json").read_text())
    assert probe["files"]["data.fasta"][0][0] == "small.fa"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_a_comparison_that_is_stopped_ends_soon_and_leaves_no_process(
    home: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """Neither its runs, nor the workers of the launcher, which would go on with the jobs in their queues."""
    shutil.copytree(home / "out" / "costs", tmp_path / "out" / "costs")  # measured already
    long = ("budget.steps=100000", "sweep.seconds=null", "sweep.steps=100000")
    words = small(home, tmp_path / "out", *JOBLIB, *long)
    command = [sys.executable, "-m", "genoattn", *words]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=in_foreground
    ) as started:
        try:
            wait_until(lambda: trainings(started.pid) == 2)
            family = psutil.Process(started.pid).children(recursive=True)
        finally:
            if how == signal.SIGINT:
                os.killpg(started.pid, how)  # as a terminal does
            else:
                started.send_signal(how)
        left = psutil.wait_procs(family, timeout=15)[1]
        for process in left:
            process.kill()
        assert not left
        message = started.communicate(timeout=15)[1]
    if how != signal.SIGKILL:
        assert started.returncode == 130
        assert "stopped; the same command goes on where it stopped" in message
    assert len(list((tmp_path / "out" / "runs").rglob("log.txt"))) == 2  # no other was begun
    assert not list((tmp_path / "out" / "costs").glob("*/*~1"))


def in_foreground() -> None:
    """Have Ctrl-C arrive: a shell lets programs that it starts in the background ignore it, and all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def trainings(parent: int) -> int:
    """The number of trainings among the processes that a process began."""
    number = 0
    for process in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            number += "train" in process.cmdline()
    return number


def test_sigterm_ends_a_comparison_as_ctrl_c_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(runner, "run_jobs", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    words = ("layers=[full]", *BUDGET, "budget.steps=9", "sweep.steps=3")
    assert main(["compare", f"hydra.run.dir={tmp_path}", "experiment=smoke", *words]) == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_comparison_in_the_same_folder_is_refused(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path):
        assert main(["compare", f"hydra.run.dir={tmp_path}", "experiment=smoke"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("another comparison (process ") and message.count("\n") == 1 and not lab.jobs


def test_progress_tells_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = {tmp_path / "short" / "done": 1.0, tmp_path / "long" / "done": 30.0}
    for file in work:
        file.parent.mkdir()
    with launcher._progress("train", work):
        time.sleep(0.1)
        (tmp_path / "short" / "done").touch()
        wait_until(lambda: "train 1/2" in capsys.readouterr().out)
        (tmp_path / "long" / "done").touch()
    assert [launcher.duration(seconds) for seconds in (40.2, 720, 9000)] == ["40 s", "12 min", "2.5 h"]


def wait_until(true: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait until a condition holds; 300 s are enough on a busy machine."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds:g} s"
        time.sleep(0.2)


def test_runs_are_opened_again_with_the_packages_of_their_layers() -> None:
    inner = {"_target_": "genoattn.attention.none.NoAttention"}
    layer = {"_target_": "my_layers.mine.Mine", "inner": {"_target_": "others.Inner", "more": inner}}
    node = {"_target_": "genoattn.x.Y"}
    config = OmegaConf.create({"attention": layer, "model": node, "task": node, "tokenizer": node, "data": {}})
    assert runner._other_packages(config) == ["my_layers", "others"]
