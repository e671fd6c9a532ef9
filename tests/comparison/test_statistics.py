"""Verdicts by simulation: the same layer twice is not told apart, a planted difference is; laws of ranks and fronts."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.comparison.recommendation import crossover, describe_groups, pareto_front, recommend
from genoattn.comparison.statistics import (
    Difference,
    Estimate,
    LayerComparison,
    SeedRun,
    compare_layers,
    quantile,
    tail,
)
from genoattn.errors import UserError

CASES = settings(deadline=None, max_examples=50)
BLOCKS, RESAMPLES = 64, 100
WORLDS = {
    "seeds": (0.03, 0.002, 0.0, 0.002),
    "blocks": (0.001, 0.03, 0.03, 0.001),
    "runs": (0.001, 0.02, 0.0, 0.03),
    "both": (0.02, 0.03, 0.02, 0.01),
}
"""Standard deviations of a figure: by seed; by blocks that are hard for all, for one layer, and for one run."""


def simulated(
    rng: np.random.Generator, means: Sequence[float], seeds: int, spread: tuple[float, float, float, float]
) -> dict[str, list[SeedRun]]:
    """Layers a, b, … that reach these means over all seeds and all blocks there could be, in one test set."""
    seed, common, layer, run = spread
    weights = rng.multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), size=RESAMPLES) / BLOCKS
    scale = math.sqrt(BLOCKS)  # of a block, for its mean over all of them to vary as said
    hard = rng.normal(0, common * scale, BLOCKS)
    runs = {}
    for name, mean in zip("abcdefgh", means, strict=False):
        mine = mean + hard + rng.normal(0, layer * scale, BLOCKS)
        scores = [mine + rng.normal(0, seed) + rng.normal(0, run * scale, BLOCKS) for _ in range(seeds)]
        runs[name] = [SeedRun(float(one.mean()), weights @ one) for one in scores]
    return runs


def plainly(runs: dict[str, list[SeedRun]], rng: np.random.Generator, times: int = 200) -> bool:
    """Whether 95 % of plain hierarchical resamples, seeds and then blocks, put one of two layers ahead."""
    a, b = (np.stack([run.replicates for run in layer]) for layer in runs.values())
    picks = rng.integers(len(a), size=(2, times, len(a)))
    which = rng.integers(RESAMPLES, size=(times, 1))
    ahead = a[picks[0], which].mean(1) - b[picks[1], which].mean(1)
    low, high = np.quantile(ahead, [0.025, 0.975])
    return bool(low > 0 or high < 0)


@pytest.mark.parametrize("world", WORLDS)
def test_the_same_layer_twice_is_told_apart_no_more_often_than_the_level_says(world: str):
    rng, times = np.random.default_rng(1), 400
    apart = held = 0
    for _ in range(times):
        verdict = compare_layers(simulated(rng, [0.6, 0.6], 3, WORLDS[world]))
        apart += verdict.differences[0].significant
        held += sum(one.low <= 0.6 <= one.high for one in verdict.estimates.values())
    assert apart / times <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / times)
    assert 0.92 <= held / (2 * times) <= 0.99


def test_a_plain_bootstrap_of_three_seeds_would_be_far_too_sure():
    rng = np.random.default_rng(2)
    assert sum(plainly(simulated(rng, [0.6, 0.6], 3, WORLDS["seeds"]), rng) for _ in range(300)) / 300 > 0.12


def test_of_many_layers_that_are_the_same_none_is_told_apart():
    rng, times = np.random.default_rng(3), 200
    wrong = sum(len(compare_layers(simulated(rng, [0.6] * 5, 3, WORLDS["both"])).groups) > 1 for _ in range(times))
    assert wrong / times <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / times)


@pytest.mark.parametrize(("ahead", "least"), [(0.1, 0.85), (0.15, 0.97)])
def test_a_planted_difference_is_found(ahead: float, least: float):
    rng, times = np.random.default_rng(4), 150
    verdicts = [compare_layers(simulated(rng, [0.6, 0.6 + ahead], 3, (0.02, 0.02, 0.01, 0.01))) for _ in range(times)]
    found = [verdict.differences[0] for verdict in verdicts]
    assert sum(one.significant and (one.first, one.second) == ("b", "a") for one in found) / times >= least
    assert sum(one.groups == [("b",), ("a",)] for one in verdicts) == sum(one.significant for one in found)


def test_blocks_that_are_hard_for_all_do_not_hide_a_difference():
    rng = np.random.default_rng(5)
    verdict = compare_layers(simulated(rng, [0.6, 0.65], 3, (0.002, 0.05, 0.0, 0.0)))
    assert verdict.significant("a", "b") and verdict.significant("b", "a")
    a, b = verdict.estimates["a"], verdict.estimates["b"]
    assert a.high > b.low  # though each alone is known no better than the blocks allow


def test_the_error_is_that_of_resampled_seeds_and_blocks_put_right_for_few_seeds():
    # No block is hard for one run alone: resampling then shows (n − 1)/n of the variance of seeds, and all of blocks'.
    values, moves = np.array([0.5, 0.56, 0.61]), np.random.default_rng(6).normal(0, 0.02, 4000)
    verdict = compare_layers({"a": [SeedRun(float(value), value + moves) for value in values]})
    seeds, blocks = values.var() / 3 * 3 / 2, moves.var(ddof=1)
    freedom = (3 * seeds + blocks) ** 2 / (9 * seeds**2 / 2 + blocks**2 / 3999)
    low, high = (values.mean() + side * quantile(0.05, freedom) * math.sqrt(seeds + blocks) for side in (-1, 1))
    found = verdict.estimates["a"]
    assert found[:3] == pytest.approx((values.mean(), low, high)) and found[3:] == (3, tuple(values))


def test_what_moves_in_one_run_alone_counts_once():
    # The variance of seeds holds it already: without anything that all runs share, blocks add next to nothing.
    rng = np.random.default_rng(11)
    runs = {name: [SeedRun(value, value + rng.normal(0, 0.05, 4000)) for value in (0.45, 0.5, 0.55)] for name in "ab"}
    verdict = compare_layers(runs)
    one, pair = verdict.estimates["a"], verdict.differences[0]
    assert (one.high - one.low) / 2 == pytest.approx(4.303 * 0.05 / math.sqrt(3), rel=0.05)
    assert (pair.high - pair.low) / 2 == pytest.approx(2.776 * 0.05 * math.sqrt(2 / 3), rel=0.05)


@pytest.mark.parametrize(
    "values", [(0.999, 0.9991, 0.9989), (1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5), (0.004, 0.0041, 0.0039), (0, 1, 1), (1,)]
)
@pytest.mark.parametrize("moves", [0.0, 1e-4])
def test_at_the_bounds_intervals_have_a_width_and_stay_within(values: tuple[float, ...], moves: float):
    draws = np.random.default_rng(7).normal(0, moves, 50) if moves else np.zeros(50)
    runs = [SeedRun(float(value), np.clip(value + draws, 0, 1)) for value in values]
    verdict = compare_layers({"a": runs, "again": runs})
    for one in verdict.estimates.values():
        assert 0 <= one.low <= one.mean <= one.high <= 1 and one.high - one.low >= 1e-3
    (pair,) = verdict.differences
    assert (pair.mean, pair.p, pair.adjusted, pair.significant) == (
        0,
        1,
        1,
        False,
    ) and pair.low < -1e-3 < 1e-3 < pair.high
    assert verdict.groups == [("a", "again")]


def test_what_agrees_to_the_third_decimal_is_not_told_apart_and_what_does_not_is():
    def steady(value: float) -> list[SeedRun]:
        return [SeedRun(value, np.full(20, value))] * 3

    assert not compare_layers({"a": steady(0.999), "b": steady(0.998)}).significant("a", "b")
    assert compare_layers({"a": steady(0.999), "b": steady(0.95)}).significant("a", "b")


def test_one_seed_tells_of_blocks_alone():
    rng = np.random.default_rng(8)
    runs = simulated(rng, [0.3, 0.8], 1, (0.02, 0.02, 0.01, 0.01))
    verdict = compare_layers(runs)
    assert [one.seeds for one in verdict.estimates.values()] == [1, 1]
    assert verdict.differences[0].p < 1e-6 and not verdict.differences[0].significant
    assert describe_groups(verdict) == (
        "b and a are not told apart; with one seed each, nothing says how far another seed would move them"
    )
    # Beside a layer of three seeds it is taken to vary as those do.
    narrow, wide = (
        compare_layers(
            runs | {"c": [SeedRun(value, runs["a"][0].replicates - runs["a"][0].value + value) for value in values]}
        )
        for values in ((0.5, 0.501, 0.502), (0.3, 0.5, 0.7))
    )
    assert narrow.significant("a", "b") and not wide.significant("a", "b")
    assert describe_groups(narrow).endswith(
        "; b and a have one seed and are taken to vary from seed to seed as much as the layer that varies most"
    )


def test_layers_may_have_different_numbers_of_seeds():
    rng, spread = np.random.default_rng(9), (0.02, 0.02, 0.01, 0.01)
    runs = simulated(rng, [0.6, 0.9], 8, spread)
    verdict = compare_layers({"a": runs["a"][:2], "b": runs["b"]})
    assert {name: one.seeds for name, one in verdict.estimates.items()} == {"b": 8, "a": 2}
    assert compare_layers(runs).differences[0].p < verdict.differences[0].p


def test_resamples_without_a_figure_are_left_out_for_all():
    rng = np.random.default_rng(10)
    runs = simulated(rng, [0.6, 0.7], 3, WORLDS["both"])
    gone = {name: [SeedRun(run.value, run.replicates.copy()) for run in some] for name, some in runs.items()}
    gone["a"][1].replicates[::2] = np.nan
    kept = {name: [SeedRun(run.value, run.replicates[1::2]) for run in some] for name, some in runs.items()}
    assert compare_layers(gone) == compare_layers(kept)


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ({"a": []}, "layer a has no runs to compare"),
        ({"a": [(0.5, [0.5, 0.5]), (math.nan, [0.5, 0.5])]}, "layer a, run 2 of 2: its figure is nan"),
        ({"a": [(0.5, [0.5, 0.5])], "b": [(0.5, [0.5])]}, r"runs with \[1, 2\] resamples cannot be compared"),
        ({"a": [(0.5, [0.5, math.nan])]}, "no two resamples in which every run has a figure"),
        ({}, "no layers to compare"),
    ],
)
def test_what_cannot_be_compared(runs: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        compare_layers(
            {name: [SeedRun(value, np.array(draws)) for value, draws in some] for name, some in runs.items()}
        )


@st.composite
def comparisons(draw: st.DrawFn) -> dict[str, list[SeedRun]]:
    """Up to six layers at few distinct levels, of one to four seeds each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    means = draw(st.lists(st.sampled_from([0.3, 0.4, 0.42, 0.5, 0.8]), min_size=1, max_size=6))
    seed = draw(st.sampled_from([0.001, 0.01, 0.05]))
    runs = simulated(rng, means, 4, (seed, 0.01, 0.01, 0.005))
    return {name: some[: draw(st.integers(1, 4))] for name, some in runs.items()}


def by_pair(verdict: LayerComparison) -> dict[frozenset[str], tuple[float, float, float, bool]]:
    return {
        frozenset({one.first, one.second}): (abs(one.mean), one.p, one.adjusted, one.significant)
        for one in verdict.differences
    }


@CASES
@given(comparisons(), st.randoms(use_true_random=False), st.floats(-0.2, 0.15))
def test_order_names_and_a_common_shift_change_nothing(runs: dict[str, list[SeedRun]], random, shift: float):
    verdict = compare_layers(runs)
    names = list(runs)
    random.shuffle(names)
    assert compare_layers({name: runs[name] for name in names}) == verdict
    called = dict(zip(runs, names, strict=True))
    moved = {
        called[name]: [SeedRun(run.value + shift, run.replicates + shift) for run in some]
        for name, some in runs.items()
    }
    other = compare_layers(moved)
    for pair, found in by_pair(verdict).items():
        assert by_pair(other)[frozenset(called[name] for name in pair)] == pytest.approx(found, abs=1e-9, rel=1e-6)
    assert {frozenset(called[name] for name in group) for group in verdict.groups} == set(map(frozenset, other.groups))


@CASES
@given(comparisons())
def test_groups_are_all_the_largest_sets_not_told_apart(runs: dict[str, list[SeedRun]]):
    verdict = compare_layers(runs)
    alike = [
        set(some)
        for size in range(1, len(runs) + 1)
        for some in combinations(runs, size)
        if not any(verdict.significant(a, b) for a, b in combinations(some, 2))
    ]
    largest = {frozenset(some) for some in alike if not any(some < other for other in alike)}
    assert set(map(frozenset, verdict.groups)) == largest and len(verdict.groups) == len(largest)
    ranks, means = list(verdict.estimates), [one.mean for one in verdict.estimates.values()]
    assert means == sorted(means, reverse=True)
    places = [[ranks.index(name) for name in group] for group in verdict.groups]
    assert places == sorted(map(sorted, places))


@CASES
@given(comparisons())
def test_holm(runs: dict[str, list[SeedRun]]):
    # As a closed test: a difference is there where Bonferroni's says so of every set of pairs that it is in.
    found = compare_layers(dict(list(runs.items())[:4])).differences
    sets = [some for size in range(1, len(found) + 1) for some in combinations(found, size)]
    for one in found:
        least = max(min(1.0, len(some) * min(other.p for other in some)) for some in sets if one in some)
        assert one.adjusted == pytest.approx(least, rel=1e-12)
        assert one.significant == (one.adjusted <= 0.05 and any(len(some) > 1 for some in list(runs.values())[:4]))


def stated(means: dict[str, float], apart: str, groups: list[str]) -> LayerComparison:
    """A verdict on layers of one letter, with pairs such as ac told apart."""
    estimates = {name: Estimate(mean, mean, mean, 3, (mean,)) for name, mean in means.items()}
    pairs = [
        Difference(a, b, means[a] - means[b], 0, 0, 0, 0, a + b in apart.split()) for a, b in combinations(means, 2)
    ]
    return LayerComparison(estimates, pairs, [tuple(group) for group in groups])


@pytest.mark.parametrize(
    ("apart", "groups", "said"),
    [
        (
            "ac ad bc bd",
            ["ab", "cd"],
            "a and b are not told apart; both are ahead of c and d; c and d are not told apart",
        ),
        ("", ["abcd"], "a, b, c and d are not told apart"),
        (
            "ad bd cd",
            ["abc", "d"],
            "a, b and c are not told apart; all are ahead of d",
        ),
        (
            "ab ac ad bc bd cd",
            ["a", "b", "c", "d"],
            "a is ahead of b, c and d; b is ahead of c and d; c is ahead of d",
        ),
        (
            "ac ad bd",
            ["ab", "bc", "cd"],
            "a and b are not told apart; b and c are not told apart; c and d are not told apart; "
            "a is ahead of c and d; b is ahead of d",
        ),
    ],
)
def test_sentences(apart: str, groups: list[str], said: str):
    assert describe_groups(stated({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}, apart, groups)) == said


def test_one_layer_alone():
    verdict = compare_layers({"a": [SeedRun(0.5, np.array([0.4, 0.6, 0.5]))] * 2})
    assert (verdict.differences, verdict.groups, describe_groups(verdict)) == ([], [("a",)], "a alone was run")


POINTS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(0, 4).map(float), st.integers(0, 4).map(float))
)


def test_a_front_by_hand():
    points = {"best": (9.0, 0.9), "cheap": (1.0, 0.5), "twin": (1.0, 0.5), "dear": (9.5, 0.9), "worse": (1.0, 0.4)}
    assert pareto_front(points | {"unmeasured": (0.1, math.nan)}) == ["cheap", "twin", "best"]
    assert pareto_front({}) == []


@CASES
@given(POINTS)
def test_front_laws(points: dict[str, tuple[float, float]]):
    found = pareto_front(points)
    assert [points[name][0] for name in found] == sorted(points[name][0] for name in found)
    for name, (cost, quality) in points.items():
        better = [
            n for n in points if points[n] != (cost, quality) and points[n][0] <= cost and points[n][1] >= quality
        ]
        assert (name in found) == (not better)
        assert any(points[n][0] <= cost and points[n][1] >= quality for n in found)
    assert pareto_front({name: points[name] for name in found}) == found


COSTS = {
    "a": {"seconds": 40.0, "bytes": 9e6},
    "b": {"seconds": 8.0, "bytes": 2e6},
    "c": {"seconds": 2.0, "bytes": 4e6},
    "d": {"seconds": 1.0, "bytes": math.nan},
}


@pytest.mark.parametrize(
    ("budget", "layer", "why"),
    [
        (
            {"seconds": 100.0},
            "b",
            "b: of 4 within seconds of at most 100, the cheapest (8 seconds) that is not told apart from the best, a"
            " (0.800 against 0.900)",
        ),
        ({"seconds": 7.0}, "c", "c: of 2 within seconds of at most 7, the best (0.700): 2 seconds"),
        (
            {"seconds": 10.0, "bytes": 1e7},
            "c",
            "c: of 2 within seconds of at most 10 and bytes of at most 10,000,000, the cheapest (4,000,000 bytes) that"
            " is not told apart from the best, b (0.700 against 0.800)",
        ),
        ({"seconds": 1.5}, "d", "d: alone within seconds of at most 1.5, the best (0.600): 1 seconds"),
        (
            {"bytes": 1e6, "seconds": 8.0},
            None,
            "no layer fits bytes of at most 1,000,000 and seconds of at most 8; the least is b with 2,000,000 bytes and"
            " 8 seconds",
        ),
    ],
)
def test_a_layer_for_a_budget(budget: dict[str, float], layer: str | None, why: str):
    verdict = stated({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}, "ac ad bd cd", ["ab", "bc", "d"])
    assert recommend(verdict, COSTS, budget) == (layer, why)


def test_without_a_budget_the_cheapest_of_those_not_told_apart_is_taken() -> None:
    costs = {"a": {"seconds": 9.0}, "b": {"seconds": 2.0}, "c": {"seconds": 1.0}}
    layer, why = recommend(stated({"a": 0.9, "b": 0.88, "c": 0.2}, "ac bc", ["ab", "c"]), costs, {})
    assert layer == "b"
    assert why.startswith("b: of 3, the cheapest (2 seconds) that is not told apart from the best, a")


def test_no_layer_is_recommended_that_is_not_told_apart_from_a_baseline() -> None:
    costs = {"a": {"seconds": 9.0}, "b": {"seconds": 2.0}, "none": {"seconds": 1.0}}
    equal = stated({"a": 0.9, "b": 0.5, "none": 0.2}, "bnone", ["a", "none"])
    layer, why = recommend(equal, costs, {}, ("none", "conv"))
    assert layer is None
    assert why.startswith(
        "the best of 3, a, is not told apart from the baseline none (0.900 against 0.200); more seeds"
    )
    ahead = stated({"a": 0.9, "b": 0.5, "none": 0.2}, "anone bnone", ["ab"])
    assert recommend(ahead, costs, {}, ("none", "conv")).layer == "b"


def test_a_baseline_that_is_the_best_is_called_one() -> None:
    costs = {"a": {"seconds": 9.0}, "none": {"seconds": 1.0}, "conv": {"seconds": 2.0}}
    words = "the best is a baseline: attention gains nothing here, or a larger budget of training would tell"
    for verdict in (stated({"none": 0.3, "a": 0.2}, "", []), stated({"conv": 0.3, "none": 0.2, "a": 0.1}, "", [])):
        layer, why = recommend(verdict, costs, {}, ("none", "conv"))
        assert layer == "none" and why.endswith(words)
    assert words not in recommend(stated({"none": 0.3, "a": 0.2}, "", []), costs, {})[1]


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"hours": 1.0}, "budget names hours, which no layer's costs hold: they are bytes, seconds"),
        ({"seconds": 0.0}, "budget: seconds must be above 0, got 0.0"),
    ],
)
def test_budgets_that_say_nothing(budget: dict[str, float], words: str):
    with pytest.raises(UserError, match=words):
        recommend(stated({"a": 0.9, "b": 0.8}, "", ["ab"]), COSTS, budget)


def test_costs_that_no_layer_has_in_full():
    known = recommend(stated({"a": 0.9}, "", ["a"]), {"a": {"seconds": math.nan}}, {"seconds": 3.0})
    assert known == (None, "no layer is known to fit seconds of at most 3: none has all of these costs measured")


def test_lines_of_logarithms_cross_where_the_powers_do():
    lengths = [512, 1024, 4096, 16384]
    square, line = [n**2 * 1e-6 for n in lengths], [n * 3e-3 for n in lengths]
    found = crossover(lengths, square, line)
    assert found.length == pytest.approx(3000) and found.words == "at 3,000"
    assert crossover(lengths[::-1], square[::-1], line[::-1]).length == pytest.approx(3000)
    assert crossover(lengths, line, square) == (None, "above 16,384, if at all")
    assert crossover(lengths[2:], square[2:], line[2:]) == (None, "below 4,096, if at all")
    assert crossover(lengths[:2], square[:2], line[:2]) == (None, "above 1,024, if at all")


def test_crossovers_at_ties_and_gaps():
    assert crossover([1, 2, 4], [3.0, 3.0, 3.0], [4.0, 3.0, 2.0]).length == pytest.approx(2)
    assert crossover([1, 2, 4], [3.0, 3.0, 3.0], [3.0, 3.0, 3.0]).length is None
    assert crossover([1, 2, 4, 8], [3.0] * 4, [2.0, 4.0, 2.0, 1.0]).length == pytest.approx(
        2 * 2 ** (np.log(4 / 3) / np.log(2))
    )
    assert crossover([1, 2, 4], [1.0, 2.0, math.nan], [1.5, 1.0, 1.0]).length == pytest.approx(
        2 ** (np.log(1.5) / np.log(3))
    )
    assert crossover([1, 2], [math.nan, 0.0], [1.0, 1.0]) == (None, "not measured at any length for both")


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.7, 1.0, 2.5, 12.0, 300.0])
def test_students_tail_where_it_has_a_closed_form(ratio: float):
    square = ratio**2
    assert tail(ratio, 1.0) == pytest.approx(2 / math.pi * math.atan2(1, ratio), rel=1e-10)
    assert tail(-ratio, 2.0) == pytest.approx(2 / (2 + square + ratio * math.sqrt(2 + square)), rel=1e-10)
    sine = ratio / math.sqrt(4 + square)
    assert tail(ratio, 4.0) == pytest.approx(1 - sine * (3 - sine**2) / 2, abs=1e-12)
    assert tail(ratio, 1e9) == pytest.approx(math.erfc(ratio / math.sqrt(2)), abs=1e-12)


def test_students_quantiles_as_printed_in_tables():
    table = {(0.05, 1.0): 12.706, (0.05, 2.0): 4.303, (0.05, 4.0): 2.776, (0.01, 10.0): 3.169, (0.001, 30.0): 3.646}
    for (chance, freedom), ratio in table.items():
        assert quantile(chance, freedom) == pytest.approx(ratio, abs=5e-4)
    assert quantile(0.05, math.inf) == pytest.approx(1.959963984540054)


@CASES
@given(st.floats(1e-9, 1), st.floats(1, 1e6))
def test_quantile_and_tail_are_inverse(chance: float, freedom: float):
    assert tail(quantile(chance, freedom), freedom) == pytest.approx(chance, rel=1e-8)
