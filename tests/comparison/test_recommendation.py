"""The layer that a comparison recommends, as values and in sentences; Pareto fronts and crossovers."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.comparison.recommendation import Recommendation, crossover, pareto_front, recommend
from genoattn.comparison.report import text
from genoattn.comparison.settings import NO_LIMIT, Cost
from genoattn.comparison.statistics import Difference, Estimate, LayerComparison

CASES = settings(deadline=None, max_examples=50)
MIB = 2.0**20


def compared(means: dict[str, float], significant: str, groups: tuple[str, ...] = ()) -> LayerComparison:
    """A comparison of layers of one letter, best first, with pairs such as ac that differ significantly."""
    estimates = {name: Estimate(mean, mean, mean, 3, (mean,)) for name, mean in means.items()}
    pairs = tuple(
        Difference(a, b, means[a] - means[b], 0.0, 0.0, 0.0, 0.0, a + b in significant.split())
        for a, b in combinations(means, 2)
    )
    return LayerComparison(estimates, pairs, tuple(tuple(group) for group in groups))


@pytest.mark.parametrize(
    ("significant", "groups", "sentence"),
    [
        (
            "ac ad bc bd",
            ("ab", "cd"),
            "a and b are significantly better than c and d; a and b do not differ significantly; c and d do not differ"
            " significantly.",
        ),
        ("", ("abcd",), "a, b, c and d do not differ significantly."),
        (
            "ad bd cd",
            ("abc", "d"),
            "a, b and c are significantly better than d; a, b and c do not differ significantly.",
        ),
        (
            "ab ac ad bc bd cd",
            ("a", "b", "c", "d"),
            "a is significantly better than b, c and d; b is significantly better than c and d; c is significantly"
            " better than d.",
        ),
        (
            "ac ad bd",
            ("ab", "bc", "cd"),
            "a is significantly better than c and d; b is significantly better than d; a and b do not differ"
            " significantly; b and c do not differ significantly; c and d do not differ significantly.",
        ),
    ],
)
def test_sentences_on_differences(significant: str, groups: tuple[str, ...], sentence: str) -> None:
    assert text.differences(compared({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}, significant, groups)) == sentence


def test_sentences_on_single_seeds() -> None:
    comparison = compared({"a": 0.9, "b": 0.8}, "", ("ab",))
    single = {name: replace(estimate, seeds=1) for name, estimate in comparison.estimates.items()}
    assert text.differences(replace(comparison, estimates=single)).endswith(
        "; with one seed each, the effect of another seed is not known."
    )
    mixed = {**comparison.estimates, "b": single["b"]}
    assert text.differences(replace(comparison, estimates=mixed)).endswith(
        "; b has one seed and is assumed to vary between seeds as much as the layer that varies most."
    )
    assert text.differences(compared({"a": 0.5}, "", ("a",))) == "Only a was run."


POINTS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(0, 4).map(float), st.integers(0, 4).map(float))
)


def test_a_front_by_hand() -> None:
    points = {"best": (9.0, 0.9), "cheap": (1.0, 0.5), "twin": (1.0, 0.5), "dear": (9.5, 0.9), "worse": (1.0, 0.4)}
    assert pareto_front(points | {"unmeasured": (0.1, math.nan)}) == ["cheap", "twin", "best"]
    assert pareto_front({}) == []


@CASES
@given(POINTS)
def test_laws_of_fronts(points: dict[str, tuple[float, float]]) -> None:
    front = pareto_front(points)
    assert [points[name][0] for name in front] == sorted(points[name][0] for name in front)
    for name, (cost, quality) in points.items():
        better = [
            n for n in points if points[n] != (cost, quality) and points[n][0] <= cost and points[n][1] >= quality
        ]
        assert (name in front) == (not better)
        assert any(points[n][0] <= cost and points[n][1] >= quality for n in front)
    assert pareto_front({name: points[name] for name in front}) == front


COSTS = {"a": Cost(40.0, 9 * MIB), "b": Cost(8.0, 2 * MIB), "c": Cost(2.0, 4 * MIB), "d": Cost(1.0)}


@pytest.mark.parametrize(
    ("limit", "layer", "sentence"),
    [
        (
            Cost(100.0),
            "b",
            "Recommended: b (0.800): the cheapest (8 s to read a million bases) of those that do not differ"
            " significantly from the best of 4 layers within 100 s to read a million bases, a (0.900).",
        ),
        (
            Cost(7.0),
            "c",
            "Recommended: c (0.700): the best of 2 layers within 7 s to read a million bases, at 2 s to read a million"
            " bases.",
        ),
        (
            Cost(10.0, 10 * MIB),
            "c",
            "Recommended: c (0.700): the cheapest (4 MiB of memory in training) of those that do not differ"
            " significantly from the best of 2 layers within 10 s to read a million bases and 10 MiB of memory in"
            " training, b (0.800).",
        ),
        (
            Cost(8.0, 1 * MIB),
            None,
            "No layer is recommended: none stays within 8 s to read a million bases and 1 MiB of memory in training;"
            " the cheapest, b, takes 2 MiB of memory in training.",
        ),
        (
            NO_LIMIT,
            "b",
            "Recommended: b (0.800): the cheapest (8 s to read a million bases) of those that do not differ"
            " significantly from the best of 4 layers, a (0.900).",
        ),
    ],
)
def test_a_layer_within_a_limit(limit: Cost, layer: str | None, sentence: str) -> None:
    comparison = compared({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}, "ac ad bd cd", ("ab", "bc", "d"))
    decision = recommend(comparison, COSTS, limit)
    assert decision.layer == layer
    assert text.recommendation(decision, comparison) == sentence


def test_the_best_is_recommended_if_it_is_the_cheapest_of_its_equals() -> None:
    comparison = compared({"b": 0.9, "a": 0.8}, "", ("ab",))
    decision = recommend(comparison, COSTS)
    assert (decision.layer, decision.equivalent) == ("b", ("b", "a"))
    assert text.recommendation(decision, comparison) == (
        "Recommended: b (0.900): the best of 2 layers, and the cheapest (8 s to read a million bases) of those that do"
        " not differ significantly from it."
    )


def test_a_layer_has_to_beat_the_baseline_layers() -> None:
    costs = {"a": Cost(9.0), "b": Cost(2.0), "none": Cost(1.0)}
    equal = compared({"a": 0.9, "b": 0.5, "none": 0.2}, "bnone")
    decision = recommend(equal, costs, baseline_layers=("none", "conv"))
    assert (decision.layer, decision.baseline, decision.best) == (None, "none", "a")
    assert text.recommendation(decision, equal) == (
        "No layer is recommended: the best of 3 layers, a (0.900), does not differ significantly from the baseline"
        " layer none (0.200); more seeds or longer training may separate them."
    )
    better = compared({"a": 0.9, "b": 0.5, "none": 0.2}, "anone bnone")
    assert recommend(better, costs, baseline_layers=("none", "conv")).layer == "b"


def test_a_baseline_layer_that_is_the_best_is_called_so() -> None:
    costs = {"a": Cost(9.0), "none": Cost(1.0), "conv": Cost(2.0)}
    for means in ({"none": 0.3, "a": 0.2}, {"conv": 0.3, "none": 0.2, "a": 0.1}):
        comparison = compared(means, "")
        decision = recommend(comparison, costs, baseline_layers=("none", "conv"))
        assert decision.layer == "none"
        assert text.recommendation(decision, comparison).endswith(
            "is a baseline layer: attention gains nothing here, or training was too short."
        )


def test_costs_that_are_not_known() -> None:
    comparison = compared({"a": 0.9}, "", ("a",))
    decision = recommend(comparison, {}, Cost(3.0))
    assert decision == Recommendation(None, Cost(3.0), 0)
    assert text.recommendation(decision, comparison) == "No layer is recommended: the cost of no layer is known."


def test_powers_of_the_length_cross_where_they_do() -> None:
    lengths = [512, 1024, 4096, 16384]
    square, line = [n**2 * 1e-6 for n in lengths], [n * 3e-3 for n in lengths]
    assert crossover(lengths, square, line) == pytest.approx(3000)
    assert crossover(lengths[::-1], square[::-1], line[::-1]) == pytest.approx(3000)
    assert crossover(lengths, line, square) is None  # never cheaper
    assert crossover(lengths[2:], square[2:], line[2:]) is None  # cheaper at every measured length
    assert crossover(lengths[:2], square[:2], line[:2]) is None


def test_crossovers_at_ties_and_gaps() -> None:
    assert crossover([1, 2, 4], [3.0, 3.0, 3.0], [4.0, 3.0, 2.0]) == pytest.approx(2)
    assert crossover([1, 2, 4], [3.0, 3.0, 3.0], [3.0, 3.0, 3.0]) is None
    assert crossover([1, 2, 4, 8], [3.0] * 4, [2.0, 4.0, 2.0, 1.0]) == pytest.approx(
        2 * 2 ** (np.log(4 / 3) / np.log(2))
    )
    assert crossover([1, 2, 4], [1.0, 2.0, math.nan], [1.5, 1.0, 1.0]) == pytest.approx(2 ** (np.log(1.5) / np.log(3)))
    assert crossover([1, 2], [math.nan, 0.0], [1.0, 1.0]) is None
