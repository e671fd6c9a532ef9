"""Detection metrics by hand, and against their slowest definition."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.evaluation.bootstrap import EVENT_CHUNK, ScoredCalls, resample, resampled_average_precision
from genoattn.evaluation.detection.metrics import (
    DetectionMetrics,
    best_threshold,
    detection_metrics,
    per_base_auprc,
)
from genoattn.evaluation.detection.results import choose_thresholds, evaluate_scores
from genoattn.evaluation.detection.scored_calls import collect_scored_calls, kind_of
from genoattn.evaluation.detection.testsets import TestSet
from genoattn.genome.mutations import Event

CASES = settings(deadline=None, max_examples=80)


def scored(scores: Any, truth: Any, windows: Any = None) -> ScoredCalls:
    count = len(scores)
    return ScoredCalls(
        np.array(scores, np.float64),
        np.array(truth, np.bool_),
        np.zeros(count, np.int64) if windows is None else np.array(windows, np.int64),
    )


def average_precision(scores: list[float], truth: list[bool]) -> float:
    """The sum over thresholds of precision times the gain in recall; a threshold takes all calls of a score."""
    total, before, area = sum(truth), 0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = [true for score, true in zip(scores, truth, strict=True) if score >= threshold]
        area += (sum(called) - before) / total * (sum(called) / len(called))
        before = sum(called)
    return area


def f1_at(threshold: float, case: ScoredCalls) -> float:
    right = sum(bool(true) and score >= threshold for score, true, _ in zip(*case, strict=True))
    called = sum(score >= threshold for score in case.scores.tolist())
    return 2 * right / (called + int(case.truth.sum()))


@st.composite
def scored_calls(draw: st.DrawFn) -> ScoredCalls:
    """At least one event and one base of none, few distinct scores, up to five windows."""
    count = draw(st.integers(2, 25))
    row = st.tuples(st.sampled_from([0.0, 0.125, 0.5, 0.75, 1.0]), st.booleans(), st.integers(0, 4))
    rows = draw(st.lists(row, min_size=count, max_size=count))
    scores, truth, windows = (list(column) for column in zip(*rows, strict=True))
    truth[:2] = [True, False]
    return scored(scores, truth, windows)


def metrics_of(case: ScoredCalls, threshold: float, count: int = 20) -> DetectionMetrics:
    """Metrics with every unit as a block of its own."""
    resamples = resample(range(int(case.units.max()) + 1), count)
    return detection_metrics(
        case, threshold, 0.25, 100, resampled_average_precision(case, resamples.weights), resamples
    )


def test_metrics_by_hand():
    case = scored([0.9, 0.8, 0.7, 0.6, 0.4, 0.2], [True, False, True, True, False, False])
    metrics = metrics_of(case, 0.65)
    assert (metrics.events, metrics.rate, metrics.base_auprc) == (3, 0.03, 0.25)
    assert metrics.auprc == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert metrics.auroc == pytest.approx(7 / 9)  # of nine pairs of an event and another base seven are in order
    assert (metrics.precision, metrics.recall, metrics.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert metrics_of(case, 0.6).recall == 1  # a score that equals the threshold is called
    uncalled = metrics_of(case, 0.95)
    assert (uncalled.precision, uncalled.recall, uncalled.f1) == (0, 0, 0)
    # All in one window: every resample is the whole.
    assert (metrics.f1_low, metrics.f1_high) == pytest.approx((2 / 3, 2 / 3))
    assert (metrics.auprc_low, metrics.auprc_high) == pytest.approx((metrics.auprc, metrics.auprc))


@CASES
@given(scored_calls(), st.sampled_from([0.0, 0.125, 0.3, 0.5, 1.0]))
def test_metrics_by_brute_force(case: ScoredCalls, threshold: float):
    metrics = metrics_of(case, threshold)
    scores, truth = case.scores.tolist(), case.truth.tolist()
    events = [score for score, true in zip(scores, truth, strict=True) if true]
    others = [score for score, true in zip(scores, truth, strict=True) if not true]
    right, wrong = sum(score >= threshold for score in events), sum(score >= threshold for score in others)
    pairs = [1.0 if event > other else 0.5 if event == other else 0.0 for event in events for other in others]
    assert metrics.events == len(events)
    assert metrics.auprc == pytest.approx(average_precision(scores, truth), abs=1e-6)
    assert metrics.auroc == pytest.approx(np.mean(pairs), abs=1e-6)
    assert metrics.precision == pytest.approx(right / (right + wrong) if right + wrong else 0)
    assert metrics.recall == pytest.approx(right / len(events))
    assert metrics.f1 == pytest.approx(f1_at(threshold, case))
    assert metrics.auprc_low <= metrics.auprc_high and metrics.f1_low <= metrics.f1_high


def test_intervals_are_of_resampled_units():
    # The first unit is called right and the second wrong: a resample holds either or both.
    case = scored([0.9, 0.1, 0.2, 0.8], [True, False, True, False], [0, 0, 1, 1])
    metrics = metrics_of(case, 0.5, count=400)
    assert (metrics.f1_low, metrics.f1, metrics.f1_high) == pytest.approx((0, 0.5, 1))
    assert (metrics.auprc_low, metrics.auprc, metrics.auprc_high) == pytest.approx((0.5, (1 + 2 / 3) / 2, 1))
    assert metrics_of(case, 0.5, count=5) == metrics_of(case, 0.5, count=5)


@CASES
@given(scored_calls(), st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_a_resample_repeats_windows(case: ScoredCalls, weights: list[list[int]]):
    whole = resampled_average_precision(case, np.ones((1, 5), np.int64))
    assert whole == pytest.approx([average_precision(case.scores.tolist(), case.truth.tolist())])
    for counts, value in zip(weights, resampled_average_precision(case, np.array(weights)), strict=True):
        repeated = [
            (score, true)
            for score, true, window in zip(case.scores.tolist(), case.truth.tolist(), case.units, strict=True)
            for _ in range(counts[window])
        ]
        if any(true for _, true in repeated):
            scores, truth = (list(column) for column in zip(*repeated, strict=True))
            assert value == pytest.approx(average_precision(scores, truth))
        else:
            assert np.isnan(value)


@pytest.mark.parametrize("events", [EVENT_CHUNK - 1, EVENT_CHUNK, EVENT_CHUNK + 1, 2 * EVENT_CHUNK + 40])
def test_more_events_than_are_resampled_at_once(events: int):
    rng = np.random.default_rng(events)
    truth = np.arange(events + 300) < events
    case = scored(rng.random(len(truth)).round(2), truth, rng.integers(0, 5, len(truth)))
    weights = rng.integers(0, 3, (3, 5))
    for counts, value in zip(weights, resampled_average_precision(case, weights), strict=True):
        times = counts[case.units]
        repeated = np.repeat(case.scores, times).tolist(), np.repeat(case.truth, times).tolist()
        assert value == pytest.approx(average_precision(*repeated))


@CASES
@given(scored_calls())
def test_no_threshold_has_a_higher_f1(case: ScoredCalls):
    threshold = best_threshold(case)
    assert threshold in case.scores
    assert f1_at(threshold, case) == pytest.approx(max(f1_at(score, case) for score in case.scores.tolist()))


def test_no_interval_without_an_event_in_any_resample():
    case = scored([0.9, 0.1], [True, False], [0, 1])
    assert np.isnan(resampled_average_precision(case, np.array([[0, 2]]))).all()
    metrics = metrics_of(case, 0.5, count=200)
    assert (metrics.auprc_low, metrics.auprc_high) == (1, 1)  # of the resamples that hold the event
    assert (metrics.f1_low, metrics.f1_high) == (1, 1)


def test_scored_calls_are_events_and_untouched_bases():
    scores = np.arange(36).reshape(12, 3) / 100
    snv = Event("snv", 1, 1, 2, 1, 2, 1)
    insertion = Event("insertion", 2, 3, 5, 3, 7, 3)  # as well at 4 or 5, so bases 3 to 6
    deletion = Event("deletion", 20, 9, 10, 9, 11, 7)
    windows, tested = np.arange(12) // 4, np.ones(12, np.bool_)
    calls = collect_scored_calls(scores, [deletion, snv, insertion], windows, tested)
    assert list(calls) == ["snv", "insertion", "long deletion"]
    quiet = [0, 2, 7, 8, 11]
    for kind, column, best, window in (("snv", 0, 1, 0), ("insertion", 1, 6, 0), ("long deletion", 2, 10, 2)):
        assert calls[kind].truth.tolist() == [True] + 5 * [False]
        assert calls[kind].scores.tolist() == scores[[best, *quiet], column].tolist()
        assert calls[kind].units.tolist() == [window, *(base // 4 for base in quiet)]


def test_untested_bases_are_no_scored_calls():
    scores = np.arange(30).reshape(10, 3) / 100
    within = Event("insertion", 1, 4, 5, 4, 7, 3)  # could also stand at a base that is not tested
    before = Event("insertion", 1, 1, 2, 1, 4, 1)  # begins where nothing is tested, and touches base 3
    tested = np.array([False, False, True, True, True, True, False, False, True, True])
    (kind,) = calls = collect_scored_calls(scores, [before, within], np.zeros(10, np.int64), tested)
    assert kind == "insertion"
    assert calls[kind].scores.tolist() == scores[[6, 8, 9], 1].tolist()  # base 2 and 3 are touched
    assert collect_scored_calls(scores, [before], np.zeros(10, np.int64), tested) == {}


def test_long_insertions_and_duplications_choose_no_threshold():
    """The threshold of insertions is that of short ones, though longer kinds share their output."""
    kinds = [Event("insertion", 1, at, at + 1, at, at + 1, 0) for at in (2, 4)]
    others = [Event("insertion", 20, 6, 26, 6, 26, 0), Event("duplication", 8, 30, 38, 30, 38, 0)]
    others.append(Event("expansion", 6, 40, 46, 40, 46, 0))
    scores = np.zeros((50, 3))
    scores[[2, 4], 1] = 0.8
    scores[6:46, 1] = 0.3
    scores[48, 1] = 0.5  # a base without a mutation
    targets = {name: np.zeros(50, np.int64) for name in ("substitution", "insertion", "deletion")}
    windows, tested = np.zeros(50, np.int64), np.ones(50, np.bool_)
    test_set = TestSet("validation", "", [], [], [*kinds, *others], targets, windows, tested, [0])
    assert choose_thresholds(test_set, scores) == {"substitution": 0.5, "insertion": 0.8, "deletion": 0.5}
    assert choose_thresholds(replace(test_set, events=others), scores)["insertion"] == 0.5


def test_single_bases_leave_out_every_placement_of_a_long_event():
    """A long deletion could as well stand at any of its placements, so no base of them is right or wrong."""
    short = Event("deletion", 1, 3, 4, 3, 4, 0)
    long = Event("deletion", 20, 10, 11, 10, 16, 0)
    scores, target = np.zeros((20, 3)), np.zeros(20, np.int64)
    scores[3, 2], scores[12:16, 2] = 0.5, 0.9
    target[3] = target[10] = 1
    targets = {"substitution": np.zeros(20, np.int64), "insertion": np.zeros(20, np.int64), "deletion": target}
    windows, tested = np.zeros(20, np.int64), np.ones(20, np.bool_)
    test_set = TestSet("test", "", [], [], [short, long], targets, windows, tested, [0])
    half = dict.fromkeys(targets, 0.5)
    assert evaluate_scores(test_set, scores, half, 2)["deletion"].metrics.base_auprc == 1


def test_kinds_by_size():
    sizes = [("insertion", 10), ("insertion", 11), ("deletion", 10), ("deletion", 11), ("mnv", 11), ("snv", 1)]
    kinds = [kind_of(Event(kind, size, 0, 1, 0, 1, 0)) for kind, size in sizes]  # type: ignore[arg-type]
    assert kinds == ["insertion", "long insertion", "deletion", "long deletion", "mnv", "snv"]


@CASES
@given(scored_calls(), st.lists(st.booleans(), min_size=25, max_size=25))
def test_unlabelled_bases_do_not_count(case: ScoredCalls, mask: list[bool]):
    labelled = np.array([True, True, *mask[: len(case.scores) - 2]])
    rows = zip(case.scores.tolist(), case.truth.tolist(), labelled, strict=True)
    counted = [(score, true) for score, true, has_label in rows if has_label]
    scores, truth = (list(column) for column in zip(*counted, strict=True))
    assert per_base_auprc(case.scores, case.truth, labelled) == pytest.approx(
        average_precision(scores, truth), abs=1e-6
    )
