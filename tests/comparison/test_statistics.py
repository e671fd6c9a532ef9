"""The tests between layers, by simulation: equal layers do not differ significantly, a simulated difference does."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from genoattn.comparison.statistics import LayerComparison, SeedRun, compare_layers, estimate
from genoattn.errors import UserError

CASES = settings(deadline=None, max_examples=50)
BLOCKS, RESAMPLES = 64, 100
WORLDS = {
    "seeds": (0.03, 0.002, 0.0, 0.002),
    "blocks": (0.001, 0.03, 0.03, 0.001),
    "runs": (0.001, 0.02, 0.0, 0.03),
    "both": (0.02, 0.03, 0.02, 0.01),
}
"""Standard deviations of a score: by seed; by blocks that are hard for all, for one layer, and for one run."""


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
        runs[name] = [SeedRun(float(blocks.mean()), weights @ blocks) for blocks in scores]
    return runs


def plain_bootstrap(runs: dict[str, list[SeedRun]], rng: np.random.Generator, times: int = 200) -> bool:
    """True if 95 % of plain hierarchical resamples, seeds and then blocks, put one of two layers ahead."""
    a, b = (np.stack([run.replicates for run in layer]) for layer in runs.values())
    seeds = rng.integers(len(a), size=(2, times, len(a)))
    resample = rng.integers(RESAMPLES, size=(times, 1))
    ahead = a[seeds[0], resample].mean(1) - b[seeds[1], resample].mean(1)
    low, high = np.quantile(ahead, [0.025, 0.975])
    return bool(low > 0 or high < 0)


@pytest.mark.parametrize("world", WORLDS)
def test_equal_layers_differ_significantly_no_more_often_than_the_level(world: str):
    rng, times = np.random.default_rng(1), 400
    significant = covered = 0
    for _ in range(times):
        comparison = compare_layers(simulated(rng, [0.6, 0.6], 3, WORLDS[world]))
        significant += comparison.differences[0].significant
        covered += sum(mean.low <= 0.6 <= mean.high for mean in comparison.estimates.values())
    assert significant / times <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / times)
    assert 0.92 <= covered / (2 * times) <= 0.99


def test_a_plain_bootstrap_of_three_seeds_would_be_far_too_sure():
    rng = np.random.default_rng(2)
    assert sum(plain_bootstrap(simulated(rng, [0.6, 0.6], 3, WORLDS["seeds"]), rng) for _ in range(300)) / 300 > 0.12


def test_of_many_equal_layers_none_differs():
    rng, times = np.random.default_rng(3), 200
    wrong = sum(len(compare_layers(simulated(rng, [0.6] * 5, 3, WORLDS["both"])).groups) > 1 for _ in range(times))
    assert wrong / times <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / times)


@pytest.mark.parametrize(("ahead", "least"), [(0.1, 0.85), (0.15, 0.97)])
def test_a_simulated_difference_is_detected(ahead: float, least: float):
    rng, times = np.random.default_rng(4), 150
    comparisons = [
        compare_layers(simulated(rng, [0.6, 0.6 + ahead], 3, (0.02, 0.02, 0.01, 0.01))) for _ in range(times)
    ]
    pairs = [comparison.differences[0] for comparison in comparisons]
    assert sum(pair.significant and (pair.first, pair.second) == ("b", "a") for pair in pairs) / times >= least
    separate = sum(comparison.groups == (("b",), ("a",)) for comparison in comparisons)
    assert separate == sum(pair.significant for pair in pairs)


def test_blocks_that_are_hard_for_all_do_not_hide_a_difference():
    rng = np.random.default_rng(5)
    comparison = compare_layers(simulated(rng, [0.6, 0.65], 3, (0.002, 0.05, 0.0, 0.0)))
    assert comparison.significant("a", "b") and comparison.significant("b", "a")
    a, b = comparison.estimates["a"], comparison.estimates["b"]
    assert a.high > b.low  # though each alone is known no better than the blocks allow


def test_the_error_is_that_of_resampled_seeds_and_blocks_put_right_for_few_seeds():
    # No block is hard for one run alone: resampling then shows (n − 1)/n of the variance of seeds, and all of blocks'.
    values, shifts = np.array([0.5, 0.56, 0.61]), np.random.default_rng(6).normal(0, 0.02, 4000)
    comparison = compare_layers({"a": [SeedRun(float(value), value + shifts) for value in values]})
    seeds, blocks = values.var() / 3 * 3 / 2, shifts.var(ddof=1)
    freedom = (3 * seeds + blocks) ** 2 / (9 * seeds**2 / 2 + blocks**2 / 3999)
    low, high = (values.mean() + side * stats.t.isf(0.025, freedom) * math.sqrt(seeds + blocks) for side in (-1, 1))
    mean = comparison.estimates["a"]
    assert (mean.mean, mean.low, mean.high) == pytest.approx((values.mean(), low, high))
    assert (mean.seeds, mean.values) == (3, tuple(values))


def test_variance_of_single_runs_counts_once():
    # The variance of seeds holds it already: without anything that all runs share, blocks add next to nothing.
    rng = np.random.default_rng(11)
    runs = {name: [SeedRun(value, value + rng.normal(0, 0.05, 4000)) for value in (0.45, 0.5, 0.55)] for name in "ab"}
    comparison = compare_layers(runs)
    mean, pair = comparison.estimates["a"], comparison.differences[0]
    assert (mean.high - mean.low) / 2 == pytest.approx(4.303 * 0.05 / math.sqrt(3), rel=0.05)
    assert (pair.high - pair.low) / 2 == pytest.approx(2.776 * 0.05 * math.sqrt(2 / 3), rel=0.05)


@pytest.mark.parametrize(
    "values", [(0.999, 0.9991, 0.9989), (1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5), (0.004, 0.0041, 0.0039), (0, 1, 1), (1,)]
)
@pytest.mark.parametrize("moves", [0.0, 1e-4])
def test_at_the_bounds_intervals_have_a_width_and_stay_within(values: tuple[float, ...], moves: float):
    draws = np.random.default_rng(7).normal(0, moves, 50) if moves else np.zeros(50)
    runs = [SeedRun(float(value), np.clip(value + draws, 0, 1)) for value in values]
    comparison = compare_layers({"a": runs, "again": runs})
    for mean in comparison.estimates.values():
        assert 0 <= mean.low <= mean.mean <= mean.high <= 1 and mean.high - mean.low >= 1e-3
    (pair,) = comparison.differences
    assert (pair.mean, pair.p, pair.adjusted_p, pair.significant) == (0, 1, 1, False)
    assert pair.low < -1e-3 < 1e-3 < pair.high
    assert comparison.groups == (("a", "again"),)


def test_scores_that_agree_to_the_third_decimal_do_not_differ():
    def steady(value: float) -> list[SeedRun]:
        return [SeedRun(value, np.full(20, value))] * 3

    assert not compare_layers({"a": steady(0.999), "b": steady(0.998)}).significant("a", "b")
    assert compare_layers({"a": steady(0.999), "b": steady(0.95)}).significant("a", "b")


def test_one_seed_covers_blocks_only():
    rng = np.random.default_rng(8)
    runs = simulated(rng, [0.3, 0.8], 1, (0.02, 0.02, 0.01, 0.01))
    comparison = compare_layers(runs)
    assert [mean.seeds for mean in comparison.estimates.values()] == [1, 1]
    assert comparison.differences[0].p < 1e-6 and not comparison.differences[0].significant
    # Beside a layer of three seeds it is assumed to vary as much as that layer.
    narrow, wide = (
        compare_layers(
            runs | {"c": [SeedRun(value, runs["a"][0].replicates - runs["a"][0].value + value) for value in values]}
        )
        for values in ((0.5, 0.501, 0.502), (0.3, 0.5, 0.7))
    )
    assert narrow.significant("a", "b") and not wide.significant("a", "b")


def test_layers_may_have_different_numbers_of_seeds():
    rng, spread = np.random.default_rng(9), (0.02, 0.02, 0.01, 0.01)
    runs = simulated(rng, [0.6, 0.9], 8, spread)
    comparison = compare_layers({"a": runs["a"][:2], "b": runs["b"]})
    assert {name: mean.seeds for name, mean in comparison.estimates.items()} == {"b": 8, "a": 2}
    assert compare_layers(runs).differences[0].p < comparison.differences[0].p


def test_resamples_without_a_score_are_left_out_for_all():
    rng = np.random.default_rng(10)
    runs = simulated(rng, [0.6, 0.7], 3, WORLDS["both"])
    gaps = {name: [SeedRun(run.value, run.replicates.copy()) for run in layer] for name, layer in runs.items()}
    gaps["a"][1].replicates[::2] = np.nan
    shorter = {name: [SeedRun(run.value, run.replicates[1::2]) for run in layer] for name, layer in runs.items()}
    assert compare_layers(gaps) == compare_layers(shorter)


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ({"a": []}, "layer a has no runs to compare"),
        ({"a": [(0.5, [0.5, 0.5]), (math.nan, [0.5, 0.5])]}, "layer a, run 2 of 2: its score is nan"),
        ({"a": [(0.5, [0.5, 0.5])], "b": [(0.5, [0.5])]}, r"runs with \[1, 2\] resamples cannot be compared"),
        ({"a": [(0.5, [0.5, math.nan])]}, "fewer than two resamples have a score in every run"),
        ({}, "no layers to compare"),
    ],
)
def test_runs_that_cannot_be_compared(runs: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        compare_layers(
            {name: [SeedRun(value, np.array(draws)) for value, draws in layer] for name, layer in runs.items()}
        )


@st.composite
def layer_runs(draw: st.DrawFn) -> dict[str, list[SeedRun]]:
    """Up to six layers at few distinct levels, of one to four seeds each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    means = draw(st.lists(st.sampled_from([0.3, 0.4, 0.42, 0.5, 0.8]), min_size=1, max_size=6))
    seed = draw(st.sampled_from([0.001, 0.01, 0.05]))
    runs = simulated(rng, means, 4, (seed, 0.01, 0.01, 0.005))
    return {name: layer[: draw(st.integers(1, 4))] for name, layer in runs.items()}


def by_pair(comparison: LayerComparison) -> dict[frozenset[str], tuple[float, float, float, bool]]:
    return {
        frozenset({pair.first, pair.second}): (abs(pair.mean), pair.p, pair.adjusted_p, pair.significant)
        for pair in comparison.differences
    }


@CASES
@given(layer_runs(), st.randoms(use_true_random=False), st.floats(-0.2, 0.15))
def test_order_names_and_a_common_shift_change_nothing(runs: dict[str, list[SeedRun]], random, shift: float):
    comparison = compare_layers(runs)
    names = list(runs)
    random.shuffle(names)
    assert compare_layers({name: runs[name] for name in names}) == comparison
    called = dict(zip(runs, names, strict=True))
    moved = {
        called[name]: [SeedRun(run.value + shift, run.replicates + shift) for run in layer]
        for name, layer in runs.items()
    }
    other = compare_layers(moved)
    for pair, values in by_pair(comparison).items():
        assert by_pair(other)[frozenset(called[name] for name in pair)] == pytest.approx(values, abs=1e-9, rel=1e-6)
    assert {frozenset(called[name] for name in group) for group in comparison.groups} == set(
        map(frozenset, other.groups)
    )


@CASES
@given(layer_runs())
def test_groups_are_all_the_largest_sets_without_a_significant_difference(runs: dict[str, list[SeedRun]]):
    comparison = compare_layers(runs)
    sets = [
        set(names)
        for size in range(1, len(runs) + 1)
        for names in combinations(runs, size)
        if not any(comparison.significant(a, b) for a, b in combinations(names, 2))
    ]
    largest = {frozenset(names) for names in sets if not any(names < other for other in sets)}
    assert set(map(frozenset, comparison.groups)) == largest and len(comparison.groups) == len(largest)
    ranks, means = list(comparison.estimates), [mean.mean for mean in comparison.estimates.values()]
    assert means == sorted(means, reverse=True)
    places = [[ranks.index(name) for name in group] for group in comparison.groups]
    assert places == sorted(map(sorted, places))


@CASES
@given(layer_runs())
def test_holm(runs: dict[str, list[SeedRun]]):
    # As a closed test: a difference is significant if Bonferroni's test is, of every set of pairs that holds it.
    four = dict(list(runs.items())[:4])
    pairs = compare_layers(four).differences
    sets = [chosen for size in range(1, len(pairs) + 1) for chosen in combinations(pairs, size)]
    for pair in pairs:
        least = max(min(1.0, len(chosen) * min(other.p for other in chosen)) for chosen in sets if pair in chosen)
        assert pair.adjusted_p == pytest.approx(least, rel=1e-12)
        assert pair.significant == (pair.adjusted_p <= 0.05 and any(len(seeds) > 1 for seeds in four.values()))


def test_one_layer_alone():
    runs = [SeedRun(0.5, np.array([0.4, 0.6, 0.5]))] * 2
    comparison = compare_layers({"a": runs})
    assert (comparison.differences, comparison.groups) == ((), (("a",),))
    assert estimate(runs) == comparison.estimates["a"]
    assert estimate([]) is None and estimate([SeedRun(0.5, np.array([math.nan, 0.5]))]) is None
