"""The benchmarks: what they run and predict, what they conclude from made-up figures, and small cases for real."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.measure import apart, preload
from benchmarks.common.tables import cell
from benchmarks.models import streaming as stream
from benchmarks.models import training_step as training
from benchmarks.models.models import RECOMPUTED, useful_flops
from benchmarks.operators.cases import HEADS, Group, chosen, predicted, refusal
from benchmarks.operators.goals import GROWTHS, RATIOS, GoalResult, at_least, at_most, goal_results
from benchmarks.operators.measure_operator import BIDIRECTIONAL, BOTH, CAUSAL, FORWARD, OPERATORS, OURS
from benchmarks.operators.run import Pace, measure_group, rendered
from benchmarks.studies import recall
from benchmarks.studies.programs import run, set_otherwise

K = 1024


def row(
    operator: str = OURS,
    length: int = 64 * K,
    mode: str = FORWARD,
    least: float = 1.0,
    above: float = 100.0,
    **other: Any,
) -> dict[str, Any]:
    """A measured case of the bidirectional window, unless told otherwise."""
    case = {"layer": "window", "kind": BIDIRECTIONAL, "heads": "4x64", "length": length, "mode": mode}
    figures = {
        "operator": operator,
        "status": "measured",
        "least": least,
        "above_mib": above,
        "disturbed": False,
        "cold": False,
    }
    return case | figures | other


@pytest.mark.parametrize(
    ("points", "growth", "told"),
    [
        ({4 * K: 1.0, 16 * K: 4.0}, 1.0, 16.0),
        ({4 * K: 1.0, 16 * K: 16.0}, 1.0, 256.0),
        ({4 * K: 1.0, 16 * K: 1.5}, 1.0, 6.0),  # start-up hides the growth: it is at least what the operator says
        ({1 * K: 9.0, 4 * K: 1.0, 16 * K: 4.0}, 1.0, 16.0),  # the two longest count
        ({4 * K: 1.0}, 2.0, 256.0),
        ({4 * K: 0.0, 16 * K: 2.0}, 1.0, 8.0),
        ({64 * K: 1.0, 256 * K: 4.0}, 1.0, None),
        ({}, 1.0, None),
    ],
)
def test_prediction(points: dict[int, float], growth: float, told: float | None) -> None:
    assert predicted(points, 64 * K, growth) == (told if told is None else pytest.approx(told))


@pytest.mark.parametrize(
    ("mode", "known", "why"),
    [
        (FORWARD, [row(length=16 * K, least=14.0)], None),
        (FORWARD, [row(length=16 * K, least=16.0)], "predicted 64 s"),
        (FORWARD, [row(length=16 * K, above=3900.0)], None),
        (FORWARD, [row(length=16 * K, above=4100.0)], "predicted 16 GiB"),  # the inputs are part of it
        (FORWARD, [row(length=16 * K, least=16.0, operator="local-attention")], None),
        (FORWARD, [row(length=16 * K, least=16.0, heads="8x32")], None),
        (FORWARD, [row(length=16 * K, status="refused", why="too much")], "at 16k: too much"),
        (BOTH, [row(least=17.0)], None),
        (BOTH, [row(least=18.0)], "predicted 63 s"),
        (BOTH, [row(least=18.0), row(length=16 * K, mode=BOTH)], None),  # its own kind tells more
        (BOTH, [row(status="listed", why="predicted 99 s")], "forward: predicted 99 s"),
        (BOTH, [], None),
    ],
)
def test_what_is_not_run(mode: str, known: list[dict[str, Any]], why: str | None) -> None:
    assert refusal(Group("window", BIDIRECTIONAL, "4x64", 64 * K, mode), OURS, known) == why


def test_sizes_hold_one_another_and_every_goal() -> None:
    sizes = [{(group, name) for group, names in chosen(size) for name in names} for size in ("quick", "usual", "all")]
    assert sizes[0] < sizes[1] < sizes[2]
    assert {length for group, _ in chosen("all") for length in [group.length]} == {2**n for n in (12, 14, 16, 18, 20)}
    for goal in RATIOS:
        group = Group(goal.layer, goal.kind, "4x64", goal.length, goal.mode)
        assert {(group, OURS), (group, goal.over)} <= sizes[0]
        assert {(group._replace(heads=heads), goal.over) for heads in HEADS} <= sizes[1]
    for goal in GROWTHS:
        for kind in (BIDIRECTIONAL, CAUSAL):
            ends = {(Group(goal.layer, kind, "4x64", at, goal.mode), OURS) for at in (goal.short, goal.long)}
            assert ends <= sizes[1]


def test_groups_are_picked_by_words() -> None:
    picked = chosen("all", ["window,linear", "causal", "64k", "8x32"])
    assert [group[:3] for group, _ in picked] == [
        (layer, CAUSAL, "8x32") for layer in ("window", "linear") for _ in "ab"
    ]
    assert not chosen("quick", ["1M"])


@pytest.mark.parametrize(
    ("got", "word"),
    [
        (None, "not measured"),
        (9.0, "aim reached"),
        (4.6, "reached"),
        (4.2, "reached, within noise"),
        (3.6, "short by 20%"),
    ],
)
def test_words_on_what_should_be_large(got: float | None, word: str) -> None:
    assert at_least(got, 4.5, 8) == word


@pytest.mark.parametrize(
    ("got", "word"), [(None, "not measured"), (1.3, "reached"), (1.4, "reached, within noise"), (1.56, "over by 20%")]
)
def test_words_on_what_should_be_small(got: float | None, word: str) -> None:
    assert at_most(got, 1.3) == word


def result_of(rows: Sequence[dict[str, Any]], heads: str, *words: str) -> GoalResult:
    (result,) = (result for result in goal_results(rows, heads) if all(word in result.goal for word in words))
    return result


def test_goal_results() -> None:
    rows = [row(least=0.5), row("local-attention", least=2.4), row("Longformer", status="refused", why="too much")]
    rows += [row(length=16 * K, least=0.1), row(length=1024 * K, least=9.6), row(heads="8x32", least=1.0)]
    window = result_of(rows, "4x64", "window", FORWARD, "local-attention")
    assert (window.measured, window.outcome, window.limit, window.aim) == (
        pytest.approx(4.8),
        "reached",
        "≥ 4.5×",
        "8×",
    )
    growth = result_of(rows, "4x64", "window, bidirectional", "per token")
    assert (growth.measured, growth.outcome) == (pytest.approx(1.5), "over by 15%")
    assert result_of(rows, "4x64", "window", FORWARD, "Longformer").measured is None
    assert result_of(rows, "8x32", "window", FORWARD, "local-attention").outcome == "not measured"


def test_cells() -> None:
    ours, theirs = row(least=0.5), row("local-attention", least=2.4, above=2048, disturbed=True, cold=True)
    assert cell(ours, ours) == "0.5 s, 100 MiB"
    assert cell(theirs, ours) == "~2.4 s¹ (4.8×), 2.0 GiB"
    assert cell(row(status="listed", why="predicted 99 s"), ours) == "predicted 99 s"
    assert cell(row(status="missing", why="ModuleNotFoundError"), ours) == "missing"
    assert cell(None, ours) == ""


def test_the_page_of_the_operators() -> None:
    machine = {"cpu": "a core", "cores": 2, "gib": 24}
    rows = [row(), row("local-attention", least=4.0)]
    page = rendered({"machine": machine, "versions": {"torch": "2"}, "date": "2026-11-25", "rows": rows})
    assert page.count("| window, bidirectional, 64k, forward: faster than local-attention |") == 1
    assert "4 s (4.0×)" in page


@pytest.mark.parametrize(("attention", "tera"), [("linear", 2.48), ("window", 2.75)])
def test_flops_of_a_million_tokens(attention: str, tera: float) -> None:
    assert useful_flops(attention, 4, 2**20) / 1e12 == pytest.approx(tera, abs=0.005)


def test_what_stream_and_training_say() -> None:
    figures = {"seconds": 20.0, "share": 0.3, "peak_flops": 1e11, "above_gib": 0.7, "difference": 1e-4, "foreign": 0.1}
    lines = stream.table(
        [
            {"layer": "linear", "length": 2**20, "figures": figures},
            {"layer": "delta", "length": 2**20, "figures": {"error": "longer than 9 s"}},
        ]
    ).rows
    assert "short by 25%" in lines[0][3] and "within noise" in lines[0][5] and "NOT equal" in lines[0][6]
    assert lines[1][1] == "longer than 9 s"
    runs = [{"least": least, "peak_gib": 9.0} for least in (3.0, 2.0)]
    kept = {"length": 16 * K, "recompute": False, "runs": runs}
    again = {"length": 16 * K, "recompute": True, "runs": [{"least": 2.3, "peak_gib": 1.0}]}
    long = {"length": 256 * K, "recompute": True, "runs": runs}
    lines = training.table([kept, again, long]).rows
    assert "1.15× (≤ 1.1×: over by 5%)" in lines[1][-1] and "over by 12%" in lines[2][4]


def _adds(a: int, b: int) -> dict[str, Any]:
    return {"sum": a + b, "process": os.getpid()}


def _raises() -> dict[str, Any]:
    raise ValueError("too long\nfor a line")


def _dies() -> dict[str, Any]:
    os._exit(3)


def _sleeps() -> dict[str, Any]:
    time.sleep(600)
    return {}


@pytest.fixture(scope="module", autouse=True)
def imported_once() -> None:
    preload(["torch", "not_a_package"])


def recall_metrics(exact: float, distances: dict[str, tuple[float, int]]) -> dict[str, Any]:
    """The metrics of a run at one length, with exact match and number of queries by distance."""
    values = {
        "queries": 8,
        "exact": exact,
        "exact_low": exact - 0.1,
        "exact_high": exact + 0.1,
        "accuracy": 1,
        "misled": 0,
    }
    metrics: dict[str, Any] = {f"model/test/all/{name}": value for name, value in values.items()}
    metrics["chance/test/all/exact"] = 0.5
    for name, (near, count) in distances.items():
        own = values | {"exact": near, "queries": count, "exact_low": near, "exact_high": near}
        metrics |= {f"model/test/distance_{name}/{key}": value for key, value in own.items()}
    return metrics


def test_what_recall_says(tmp_path: Path) -> None:
    far = recall.summary(recall_metrics(0.25, {"1024_2048": (0.2, 5), "128_256": (1.0, 3)}))
    assert list(far["distances"]) == ["128-256", "1024-2048"] and far["chance"] == 0.5
    near = recall.summary(recall_metrics(0.75, {"128_256": (0.75, 8)}))
    lengths = {"512": near, "2048": {"error": "too long"}, "16384": far}
    rows = [
        {"layer": "full", "steps": 300, "parameters": 9000, "lengths": lengths},
        {"layer": "none", "error": "no such layer"},
    ]
    table = recall.table(rows)
    assert table.columns[-2:] == ["128–256 away", "1024–2048 away"]
    assert table.rows[0][:5] == ["`full`", "9,000", "300", "0.750 [0.650–0.850], 8", "too long"]
    assert table.rows[0][5:] == ["0.250 [0.150–0.350], 8", "1.00, 3", "0.20, 5"]
    assert table.rows[1][:2] == ["`none`", "no such layer"] and {len(line) for line in table.rows} == {8}
    recall.plot(rows, tmp_path / "recall.png")
    assert (tmp_path / "recall.png").stat().st_size > 10_000


def test_a_copy_of_a_model_whose_task_is_set_otherwise(tmp_path: Path) -> None:
    home = tmp_path / "train" / "model"
    home.mkdir(parents=True)
    (home / "model.json").write_text('{"task": {"distance": null, "delta": 1}}')
    copy = set_otherwise(tmp_path / "train", tmp_path / "copy", "distance", [160, 4096])
    assert json.loads((copy / "model" / "model.json").read_text())["task"] == {"distance": [160, 4096], "delta": 1}
    assert json.loads((home / "model.json").read_text())["task"]["distance"] is None


def test_a_program_is_run_once_and_says_why_it_failed(tmp_path: Path) -> None:
    found = run("train", tmp_path / "new", ["attention=nothing"])
    assert list(found) == ["error"] and "attention" in found["error"]
    (tmp_path / "metrics.json").write_text('{"test/exact": 1}')
    assert run("no program", tmp_path, []) == {"test/exact": 1}


def test_a_process_of_its_own() -> None:
    answer = apart(_adds, 2, 3, seconds=100, gib=8)
    assert answer["sum"] == 5 and answer["process"] != os.getpid()
    assert apart(_raises, seconds=100, gib=8) == {"error": "ValueError: too long"}
    assert apart(_dies, seconds=100, gib=8) == {"error": "its process ended with status 3"}
    assert apart(_sleeps, seconds=0.01, gib=8) == {"error": "longer than 0.01 s"}


def test_a_small_case() -> None:
    group = Group("window", CAUSAL, "4x64", 256, BOTH)
    (found,) = measure_group(group, [OURS], [], Pace(rounds=1, wait=0))
    assert found["status"] == "measured" and found["least"] > 0 and len(found["runs"]) == 1
    assert found["peak_mib"] >= found["above_mib"] >= 0
    (listed,) = measure_group(group._replace(length=4 * K), [OURS], [found | {"least": 9.0}], Pace(rounds=1, wait=0))
    assert (listed["status"], listed["why"]) == ("listed", "predicted 144 s")


def test_a_small_training_step() -> None:
    answer = apart(training.measured, 64, RECOMPUTED, 0.0, seconds=100, gib=8)
    assert answer["least"] > 0 and answer["peak_gib"] > 0


def test_ours_comes_first() -> None:
    assert all(next(iter(operators)) == OURS for operators in OPERATORS.values())
