"""Metrics by distance: the events and the untouched bases whose counterparts lie equally far back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.paired import Paired
from genoattn.evaluation.detection.by_distance import MIN_EVENTS, metrics_by_distance
from genoattn.evaluation.detection.detectors import CALL_THRESHOLDS, kmer_lookup
from genoattn.evaluation.detection.evaluator import MutationDetectionEvaluator
from genoattn.evaluation.detection.report import distance_tables
from genoattn.evaluation.detection.results import DetectionResult, evaluate_detector, metrics_of, replicates_of
from genoattn.evaluation.detection.scored_calls import HEADLINE_KINDS, KINDS, kind_of
from genoattn.evaluation.detection.testsets import TestSet, simulated_test_set
from genoattn.genome.alphabet import COMPLEMENT
from genoattn.genome.simulate import Rates

CASES = settings(deadline=None, max_examples=40)
RATES = Rates(0.05, 1.0, 0.0, 1.0, 1.0)


def make(task: Paired, length: int, seed: int) -> Example:
    rng = np.random.default_rng(seed)
    return task.example(rng.integers(0, 4, task.reference_length(length), dtype=np.uint8), length, RATES, rng)


@CASES
@given(st.integers(20, 90), st.integers(0, 40), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2**32))
def test_the_counterpart_lies_at_the_distance(length: int, shift: int, reverse_fraction: float, seed: int):
    example = make(Paired(shift=shift, reverse_strand_fraction=reverse_fraction), length, seed)
    assert example.reference is not None and example.distance is not None
    assert ((example.distance == -1) == (example.targets["substitution"] == IGNORE_INDEX)).all()
    context = np.concatenate([example.reference, [99], example.bases])
    plain = np.ones(length, np.bool_)
    for event in example.events:
        plain[event.start : event.stop] &= event.kind == "deletion"
    here = np.flatnonzero((example.distance >= 0) & plain)
    there = context[length + 1 + here - example.distance[here]]
    same, other = (there == example.bases[here]).all(), (there == COMPLEMENT[example.bases[here]]).all()
    assert same or other


def test_distances_by_hand():
    rng = np.random.default_rng(0)
    still = Rates(0.0)
    for task, expected in ((Paired(), [5, 5, 5, 5]), (Paired(reverse_strand_fraction=1.0), [2, 4, 6, 8])):
        example = task.example(rng.integers(0, 4, task.reference_length(4), dtype=np.uint8), 4, still, rng)
        assert example.distance is not None and example.distance.tolist() == expected


def test_bases_that_have_not_drifted_are_a_range_of_their_own():
    examples = [make(Paired("interleaved", shift=2), 60, seed)._replace(block=(0, seed)) for seed in range(160)]
    test_set = simulated_test_set(examples)
    assert test_set.distance is not None
    drifts = [abs(example.distance.astype(int)) for example in examples if example.distance is not None]
    assert (np.concatenate(drifts) == np.abs(test_set.distance)).all()
    bins = metrics_by_distance(test_set, np.random.default_rng(1).random((test_set.bases, 3)), CALL_THRESHOLDS, 3)
    snvs = [(row.low, row.high, row.events) for row in bins if row.kind == "snv"]
    assert [row[:2] for row in snvs] == [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16)][: len(snvs)] and len(snvs) >= 4
    still = [event for event in test_set.events if event.kind == "snv" and test_set.distance[event.start] == 0]
    assert snvs[0][2] == len(still) > 10


def make_test_set(count: int = 90) -> TestSet:
    task = Paired(shift=30, reverse_strand_fraction=0.5)
    return simulated_test_set([make(task, 100, seed)._replace(block=(0, seed // 3)) for seed in range(count)])


def average_precision(scores: list[float], truth: list[int]) -> float:
    """The sum over thresholds of precision times the gain in recall."""
    area, before = 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        called = [true for score, true in zip(scores, truth, strict=True) if score >= threshold]
        area += (sum(called) - before) / sum(truth) * sum(called) / len(called)
        before = sum(called)
    return area


def test_metrics_of_ranges_by_brute_force():
    test_set = make_test_set()
    assert test_set.distance is not None and len(test_set.distance) == test_set.bases
    scores = np.random.default_rng(1).random((test_set.bases, 3))
    for event in test_set.events:
        scores[event.earliest : event.latest] **= 0.5
    scores = scores.round(2)
    bins = {(row.low, row.high, row.kind): row for row in metrics_by_distance(test_set, scores, CALL_THRESHOLDS, 7)}
    assert len({low for low, _, _ in bins}) >= 3  # of either strand: near the separator and far from it
    touched = {base for event in test_set.events for base in range(event.earliest, event.latest)}
    expected = set()
    for low in [2**power for power in range(9)]:
        inside = [base for base, far in enumerate(test_set.distance.tolist()) if low <= far < 2 * low]
        quiet = [base for base in inside if base not in touched]
        kinds = []
        for kind in ("snv", "insertion", "deletion"):
            events = [event for event in test_set.events if kind_of(event) == kind and event.start in set(inside)]
            if len(events) < MIN_EVENTS:
                continue
            kinds.append(kind)
            column = scores[:, KINDS[kind]]
            candidates = [column[event.earliest : event.latest].max() for event in events] + column[quiet].tolist()
            truth = [1] * len(events) + [0] * len(quiet)
            row = bins[low, 2 * low, kind]
            assert row.events == len(events) and len(row.replicates) == 7
            assert row.auprc == pytest.approx(average_precision(candidates, truth), abs=1e-5)
            called = sum(score >= 0.5 for score in candidates)
            right = sum(score >= 0.5 for score in candidates[: len(events)])
            assert row.f1 == pytest.approx(2 * right / (called + len(events)))
        if len(kinds) == 3:
            mean = bins[low, 2 * low, ""]
            assert mean.auprc == pytest.approx(np.mean([bins[low, 2 * low, kind].auprc for kind in kinds]))
            assert mean.replicates == pytest.approx(np.mean([bins[low, 2 * low, kind].replicates for kind in kinds], 0))
            assert mean.events == sum(bins[low, 2 * low, kind].events for kind in kinds)
            kinds.append("")
        expected |= {(low, 2 * low, kind) for kind in kinds}
    assert set(bins) == expected and any(kind == "" for _, _, kind in bins)


def test_resamples_are_shared_by_all_ranges():
    """All ranges have the same resamples of blocks, for any scores."""
    test_set = make_test_set()
    first, second = (
        metrics_by_distance(test_set, np.random.default_rng(seed).random((test_set.bases, 3)), CALL_THRESHOLDS, 50)
        for seed in (0, 1)
    )
    assert [row[:4] for row in first] == [row[:4] for row in second]
    undefined = [[np.isnan(row.replicates).tolist() for row in rows] for rows in (first, second)]
    assert undefined[0] == undefined[1]


def test_no_ranges_without_distances_or_for_real_strains():
    test_set = make_test_set(4)
    scores = np.zeros((test_set.bases, 3))
    assert metrics_by_distance(replace(test_set, distance=None), scores, CALL_THRESHOLDS, 3) == []
    assert metrics_by_distance(replace(test_set, key="N315"), scores, CALL_THRESHOLDS, 3) == []
    assert (
        metrics_by_distance(replace(test_set, distance=np.full(test_set.bases, -1)), scores, CALL_THRESHOLDS, 3) == []
    )


def results() -> list[DetectionResult]:
    test_set = make_test_set()
    (lookup,) = evaluate_detector([test_set], kmer_lookup(), CALL_THRESHOLDS, 5)
    return [replace(lookup, detector="model", name="window"), lookup]


def test_ranges_are_metrics_subgroups_and_a_table():
    own, lookup = both = results()
    metrics, replicates = metrics_of(both), replicates_of(both, MutationDetectionEvaluator.primary)
    assert lookup.calls_only and not own.calls_only and own.by_distance
    for row in own.by_distance:
        subset = f"distance_{row.low}_{row.high}" + ("_" if row.kind else "") + row.kind
        for candidate in ("model", "kmer_lookup"):
            values = {key.metric: value for key, value in metrics.select(candidate, "test", subset).items()}
            assert values == {"events": row.events, "auprc": row.auprc, "f1": row.f1}
    by = {name: [group for group in replicates.subgroups if group.by == name] for name in ("kind", "distance")}
    assert len(by["kind"]) + len(by["distance"]) == len(replicates.subgroups)
    assert {group.kind for group in by["kind"]} == set(own.kinds) >= set(HEADLINE_KINDS)
    assert all(len(group.replicates) == 5 for group in replicates.subgroups)
    for group, row in zip(by["distance"], own.by_distance, strict=True):
        assert (group.low, group.high, group.kind, group.count) == (row.low, row.high, row.kind, row.events)
        assert group.name == f"{row.low}–{row.high}" and group.value == row.auprc
    (table,) = distance_tables(both)
    assert len(table.rows) == len(own.by_distance) and table.columns[-1] == "k-mer look-up\nF1"
    assert table.rows[0][0] == f"{own.by_distance[0].low}–{own.by_distance[0].high}"
    assert table.rows[-1][-1] == f"{lookup.by_distance[-1].f1:.3f}"
    low = own.by_distance[0].low
    short = [replace(result, by_distance=[row for row in result.by_distance if row.low == low]) for result in both]
    assert distance_tables(short) == []  # a single range adds nothing to the first table
