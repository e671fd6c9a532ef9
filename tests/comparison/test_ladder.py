"""The measures of a ladder, the gate, and the power of a comparison, on made-up numbers."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genoattn.cli.main import main
from genoattn.comparison import report, runner
from genoattn.comparison.ladder import Crossing, crossing_time, exponent, learned, median, solved_length
from genoattn.comparison.power import detectable_difference, pooled_spread
from genoattn.comparison.record import Comparison
from genoattn.comparison.report import ladder_plots, tables, text
from genoattn.comparison.statistics import SeedRun, compare_layers
from tests.comparison.test_compare import Lab, compared

LENGTHS: tuple[int, ...] = (16, 32, 64, 128)
FLOOR: dict[int, float] = dict.fromkeys(LENGTHS, 0.35)
BLOCKS = np.random.default_rng(0).standard_normal(50)
BELOW, ABOVE = Crossing(16, "below"), Crossing(128, "above")


def curve(*values: float) -> dict[int, float]:
    return dict(zip(LENGTHS, values, strict=True))


@pytest.mark.parametrize(
    ("accuracy", "share", "expected"),
    [
        ((1.0, 1.0, 0.35, 0.35), 0.5, Crossing(math.sqrt(32 * 64))),  # half way down between 32 and 64, in logarithms
        ((1.0, 0.935, 0.35, 0.35), 0.9, Crossing(32.0)),
        ((0.95, 0.95, 0.95, 0.95), 0.9, ABOVE),
        ((0.9, 0.9, 0.9, 0.9), 0.9, BELOW),
        ((0.35, 0.35, 0.35, 0.35), 0.5, BELOW),
        ((1.0, 0.35, 1.0, 0.35), 0.5, Crossing(math.sqrt(64 * 128))),  # the largest length counts
    ],
)
def test_solved_lengths(accuracy: tuple[float, ...], share: float, expected: Crossing) -> None:
    found = solved_length(curve(*accuracy), FLOOR, 1.0, share)
    assert found is not None and found.censored == expected.censored
    assert found.value == pytest.approx(expected.value)
    assert solved_length({}, FLOOR, 1.0, share) is None


def test_a_lower_ceiling_is_solved_earlier() -> None:
    accuracy = curve(0.9, 0.9, 0.9, 0.9)
    assert solved_length(accuracy, FLOOR, 0.95, 0.9) == ABOVE and solved_length(accuracy, FLOOR, 1.0, 0.9) == BELOW


def test_the_time_to_learn_is_censored_where_a_run_did_not() -> None:
    assert crossing_time([(100, 0.4), (200, 0.8)], 0.6) == Crossing(150.0)
    assert crossing_time([(100, 0.4), (200, 0.5)], 0.6) == Crossing(200, "above")
    assert crossing_time([(100, 0.7), (200, 0.9)], 0.6) == Crossing(100, "below")
    assert crossing_time([], 0.6) is None


def test_medians_put_censored_values_beyond_all_others() -> None:
    assert median([ABOVE, Crossing(90), BELOW]) == Crossing(90)
    assert median([ABOVE, ABOVE, Crossing(500)]) == ABOVE and str(ABOVE) == "> 128"
    assert median([BELOW, Crossing(20), BELOW]) == BELOW and str(BELOW) == "< 16"
    assert median([Crossing(30), Crossing(20)]) == Crossing(20) and median([]) is None


def test_the_exponent_is_that_of_a_power_law_without_censored_layers() -> None:
    states = {"a": 1000, "b": 4000, "c": 16000, "d": 64000, "none": 0, "e": 500}
    lengths = {"a": Crossing(20.0), "b": Crossing(42.0), "c": Crossing(78.0), "d": ABOVE, "e": None}
    found = exponent(states, lengths)
    assert found is not None and found.layers == ("a", "b", "c")
    assert found.slope == pytest.approx(0.49, abs=0.02) and found.low < found.slope < found.high
    assert exponent(states, {"a": Crossing(20.0), "b": Crossing(40.0)}) is None
    assert exponent(dict.fromkeys("abc", 8), {name: Crossing(20.0) for name in "abc"}) is None


def seed_run(value: float) -> SeedRun:
    return SeedRun(value, value + 0.02 * BLOCKS)


def test_a_run_has_learned_if_it_is_above_none_at_some_length() -> None:
    none = {length: [seed_run(0.35 + step) for step in (-0.004, 0.0, 0.004)] for length in LENGTHS}
    short = {length: seed_run(value) for length, value in curve(0.6, 0.36, 0.35, 0.35).items()}
    assert learned(short, none)  # one length is enough
    equal = {length: seed_run(value) for length, value in curve(0.36, 0.355, 0.35, 0.345).items()}
    assert learned(equal, none) is False and learned(short, {}) is None
    worse = {length: seed_run(0.2) for length in LENGTHS}
    assert learned(worse, none) is False
    one = {length: runs[:1] for length, runs in none.items()}
    assert learned({16: seed_run(0.36)}, one) and not learned({16: seed_run(0.36)}, one, least=0.02)


@pytest.mark.parametrize(("seeds", "layers"), [(3, 2), (3, 5), (5, 5)])
def test_the_detectable_difference_is_found_as_often_as_it_says(seeds: int, layers: int) -> None:
    rng, found, times = np.random.default_rng(seeds), 0, 150
    difference = detectable_difference(0.02, seeds, layers * (layers - 1) // 2)
    assert difference is not None
    for _ in range(times):
        drawn = 0.02 * rng.standard_normal((layers, seeds))
        drawn[0] += difference
        runs = {str(layer): [seed_run(value) for value in own] for layer, own in enumerate(drawn.tolist())}
        found += compare_layers(runs).significant("0", "1")
    assert 0.7 <= found / times <= 0.95  # Holm's later steps are a little easier


def test_nothing_can_be_found_with_one_seed() -> None:
    assert detectable_difference(0.02, 1, 1) is None and pooled_spread({"a": [0.1]}) is None
    assert pooled_spread({"a": [0.0, 0.2], "b": [0.5, 0.5], "c": [0.1]}) == pytest.approx(0.1)


REACH = {"full": 128, "window": 32, "none": 0, "conv": 0, "linear": 0}


class LadderLab(Lab):
    """Made-up runs that restore 0.95 of the masked bases up to the reach of their layer, and 0.35 beyond."""

    def train(self, home: Path, words: Mapping[str, str], place: str) -> None:
        super().train(home, words, place)
        layer, rng = place.split("/")[2], np.random.default_rng([int(words["seed"]), sum(map(ord, place))])
        metrics, bootstrap = (json.loads((home / name).read_text()) for name in ("metrics.json", "bootstrap.json"))
        for length in [*json.loads(words["test.lengths"]), int(words["data.length"])]:
            key = f"model/test{f'_{length}' if length != int(words['data.length']) else ''}/all/restored"
            metrics[key] = (0.95 if length <= REACH[layer] else 0.35) + 0.003 * rng.standard_normal()
            bootstrap["replicates"][key] = (metrics[key] + 0.01 * BLOCKS).tolist()
        (home / "metrics.json").write_text(json.dumps(metrics))
        (home / "bootstrap.json").write_text(json.dumps(bootstrap))
        if layer == "linear":  # no rate is any better than none
            (home / "metrics.csv").write_text("bases_seen,validation/loss\n500,1.5\n1000,0.97\n")
        elif layer == "full":
            rows = f"500,1.0,0.4\n1000,{0.3 if words['optimizer.lr'] == '0.003' else 0.5},0.8\n"
            (home / "metrics.csv").write_text(f"bases_seen,validation/loss,validation/accuracy_restore_16\n{rows}")

    def plan(self, home: Path, words: Mapping[str, str], place: str) -> None:
        super().plan(home, words, place)
        plan = json.loads((home / "plan.json").read_text())
        state = {"full": 8192, "window": 4096, "linear": 1024}.get(place.split("/")[2], 0)
        plan["predicted"] |= {"attention_state_bytes": state, "model_flops": 10**6, "tokens": 256}
        plan["letters_told"] = dict.fromkeys(json.loads(words["capacity"]), 1.0)
        (home / "plan.json").write_text(json.dumps(plan))


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = LadderLab()
    monkeypatch.setattr(runner, "run_jobs", made)
    monkeypatch.setattr(report, "draw", lambda _: [])
    return made


LADDER_PLOTS = ladder_plots.accuracy, ladder_plots.solved, ladder_plots.time_to_learn, ladder_plots.quality_cost
WORDS = ("ladder=[16,64,32,128]", "budget.seconds=null", "sweep.seconds=null", "budget.bases=20000", "sweep.steps=9")


@pytest.mark.usefixtures("alone")
def test_a_ladder_says_where_each_layer_ends_and_leaves_out_what_did_not_learn(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = compared(tmp_path, "layers=[full,window,linear]", *WORDS, "extrapolate=[2]", "data.batch=4")
    words = lab.jobs["runs/128/full/final-lr0.003-seed0"]
    mixture = {"++curriculum.length=16", "++curriculum.lengths=mixed", "data.validation_lengths=[16,32,64,128]"}
    assert {*words} >= {"data.length=128", "test.lengths=[16,32,64,256]", *mixture}
    assert {run.steps for run in comparison.runs if run.stage == "final"} == {39}  # 20,000 bases in steps of 512
    assert comparison.ladder is not None and Comparison.read(tmp_path) == comparison
    rows = {row.layer: row for row in comparison.ladder.rows}
    assert rows["full"].solved["n90"] == (Crossing(128, "above"),) * 3
    assert all(32 < crossing.value < 36 for crossing in rows["window"].solved["n90"])
    assert rows["linear"].solved["n50"] == (Crossing(16, "below"),) * 3
    assert rows["full"].tokens_to_learn == (Crossing(750.0),) * 3
    assert rows["full"].seconds_to_learn[0].value == pytest.approx(3.0 * 0.75)  # of training, 3 s
    assert rows["full"].flops == pytest.approx(3 * 1e6 * 1000 / 256) and rows["full"].capacity[128] == 1.0
    [result] = comparison.results
    layers = {layer.layer: layer for layer in result.layers}
    assert layers["linear"].not_learned == (0, 1, 2) and not layers["linear"].learning_rate_learned
    assert layers["linear"].learning_rate == 0.003  # the middle one
    assert {*result.estimates} == {"full", "window", "none", "conv"} and layers["conv"].not_learned == ()
    assert [*layers["full"].by_length] == [16, 32, 64, 128, 256]
    assert result.estimates["window"].mean == pytest.approx((0.95 + 0.95 + 0.35 + 0.35) / 4, abs=0.01)
    assert result.recommendation is not None and result.recommendation.layer is None
    assert result.recommendation.ahead == ("kmer_lookup (in auprc)",)
    answer = " ".join(text.answer(comparison, result))
    assert "No layer is recommended: kmer_lookup (in auprc) is ahead of every layer" in answer
    assert "no better than none: linear (seeds 0, 1 and 2)" in answer
    assert "No rate learned in the sweep of linear: the middle one, 0.003, was taken." in answer
    assert "power: 3 seeds, 10 pairs: a difference of" in capsys.readouterr().out
    table = {row[0]: row[1:4] for row in tables.ladder(comparison).rows}
    assert table["full"] == ["1", "> 128", "> 128"] and table["none"] == ["3", "< 16", "< 16"]
    assert table["linear"] == ["–", "< 16", "< 16"]
    plots = [plot for maker in LADDER_PLOTS if (plot := maker(comparison))]
    assert [plot.name for plot in plots] == ["ladder", "solved", "time_to_learn", "quality_cost"]
    dotted = [line for line in plots[0].figure.axes[0].lines if line.get_linestyle() == ":"]
    assert np.ravel(dotted[0].get_ydata()).tolist() == [1.0] * 4  # the capacity of `full`
    assert {line.get_label() for axis in plots[1].figure.axes for line in axis.lines} >= {"full", "window", "linear"}
    assert not any(maker(replace(comparison, ladder=None)) for maker in LADDER_PLOTS)
    page = (tmp_path / "comparison.html").read_text()
    assert "Too few layers have an n50 inside the ladder" in page and "had a chance of 80% to be found" in page


@pytest.mark.usefixtures("alone")
def test_nothing_is_recommended_where_no_layer_learned(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REACH, "full", 0)
    comparison = compared(tmp_path, "layers=[full]", *WORDS, "extrapolate=[]", f"former={old(lab, tmp_path)}")
    assert comparison.settings.spread is not None
    [result] = comparison.results
    assert result.recommendation is None and {*result.estimates} == {"none", "conv"}
    assert text.answer(comparison, result)[0].startswith("No layer is recommended: none learned more than none")
    assert ["did not learn", "3 (3 did not learn)"] in [row[3:5] for row in tables.results(comparison).rows]
    rest = replace(comparison, ladder=None)
    assert not tables.ladder(rest).rows


def old(lab: Lab, folder: Path) -> Path:
    """The folder of an earlier comparison."""
    compared(folder / "old", "layers=[full]", *WORDS, "extrapolate=[]", "learning_rates=[0.003]")
    lab.jobs.clear()
    return folder / "old"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ladder=[16]"], "ladder: expected two or more lengths, got [16]"),
        (["data.length=64"], "data.length=64: a ladder decides data.length by its lengths; leave it out"),
        (["budget.bases=null", "budget.seconds=9"], "budget.seconds: layers of a ladder read equally many tokens"),
        (["take_off.length=17"], "take_off.length: expected a length of the ladder, got 17"),
        (["test.lengths=[16]"], "a comparison sets test.lengths itself; write ladder=[…] or extrapolate=[…]"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_mistakes(
    words: list[str], sentence: str, lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", f"hydra.run.dir={tmp_path}", *WORDS, *words]) == 2
    message = capsys.readouterr().err
    assert sentence in message and "Traceback" not in message and not lab.jobs
