"""By distance: an event and the untouched bases beside it, whose counterparts lie as far back, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE
from genoattn.data.tasks.paired import Paired
from genoattn.evaluation.detection.by_distance import FEWEST, by_distance
from genoattn.evaluation.detection.candidates import KINDS, SIMPLE, kind_of
from genoattn.evaluation.detection.detectors import CALLERS, CALLS, LookupScorer, Result, put_to
from genoattn.evaluation.detection.report import distance_sheets, evidence_of, flat
from genoattn.evaluation.detection.testsets import Trial, planted
from genoattn.genome.alphabet import COMPLEMENT
from genoattn.genome.simulate import Rates

CASES = settings(deadline=None, max_examples=40)
RATES = Rates(0.05, 1.0, 0.0, 1.0, 1.0)


def make(task: Paired, length: int, seed: int) -> Example:
    rng = np.random.default_rng(seed)
    return task.example(rng.integers(0, 4, task.span(length), dtype=np.uint8), length, RATES, rng)


@CASES
@given(st.integers(20, 90), st.integers(0, 40), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2**32))
def test_so_far_back_in_the_context_stands_the_counterpart(length: int, shift: int, turned: float, seed: int):
    example = make(Paired(shift=shift, reversed_share=turned), length, seed)
    assert example.before is not None and example.distance is not None
    assert ((example.distance == -1) == (example.targets["substitution"] == IGNORE)).all()
    context = np.concatenate([example.before, [99], example.bases])
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
    for task, expected in ((Paired(), [5, 5, 5, 5]), (Paired(reversed_share=1.0), [2, 4, 6, 8])):
        example = task.example(rng.integers(0, 4, task.span(4), dtype=np.uint8), 4, still, rng)
        assert example.distance is not None and example.distance.tolist() == expected


def trial_of(count: int = 90) -> Trial:
    task = Paired(shift=30, reversed_share=0.5)
    return planted("planted", [make(task, 100, seed)._replace(block=(0, seed // 3)) for seed in range(count)])


def average_precision(scores: list[float], truth: list[int]) -> float:
    """Precision at each threshold that wins recall, weighed by what it wins."""
    area, before = 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        called = [true for score, true in zip(scores, truth, strict=True) if score >= threshold]
        area += (sum(called) - before) / sum(truth) * sum(called) / len(called)
        before = sum(called)
    return area


def test_ranges_by_the_slow_way():
    trial = trial_of()
    assert trial.distance is not None and len(trial.distance) == trial.bases
    scores = np.random.default_rng(1).random((trial.bases, 3))
    for event in trial.events:
        scores[event.first : event.last] **= 0.5
    scores = scores.round(2)
    found = {(row.low, row.high, row.kind): row for row in by_distance(trial, scores, CALLS, 7)}
    assert len({low for low, _, _ in found}) >= 3  # of either strand: near the separator and far from it
    touched = {base for event in trial.events for base in range(event.first, event.last)}
    expected = set()
    for low in [2**power for power in range(9)]:
        inside = [base for base, far in enumerate(trial.distance.tolist()) if low <= far < 2 * low]
        quiet = [base for base in inside if base not in touched]
        told = []
        for kind in ("snv", "insertion", "deletion"):
            events = [one for one in trial.events if kind_of(one) == kind and one.start in set(inside)]
            if len(events) < FEWEST:
                continue
            told.append(kind)
            column = scores[:, KINDS[kind]]
            candidates = [column[one.first : one.last].max() for one in events] + column[quiet].tolist()
            truth = [1] * len(events) + [0] * len(quiet)
            row = found[low, 2 * low, kind]
            assert row.events == len(events) and len(row.draws) == 7
            assert row.auprc == pytest.approx(average_precision(candidates, truth), abs=1e-5)
            called = sum(score >= 0.5 for score in candidates)
            right = sum(score >= 0.5 for score in candidates[: len(events)])
            assert row.f1 == pytest.approx(2 * right / (called + len(events)))
        if len(told) == 3:
            mean = found[low, 2 * low, ""]
            assert mean.auprc == pytest.approx(np.mean([found[low, 2 * low, kind].auprc for kind in told]))
            assert mean.draws == pytest.approx(np.mean([found[low, 2 * low, kind].draws for kind in told], 0))
            assert mean.events == sum(found[low, 2 * low, kind].events for kind in told)
            told.append("")
        expected |= {(low, 2 * low, kind) for kind in told}
    assert set(found) == expected and any(kind == "" for _, _, kind in found)


def test_draws_are_of_shared_blocks():
    """What one range holds is resampled as the same blocks in every other, whatever is measured."""
    trial = trial_of()
    one, two = (by_distance(trial, np.random.default_rng(seed).random((trial.bases, 3)), CALLS, 50) for seed in (0, 1))
    assert [row[:4] for row in one] == [row[:4] for row in two]
    none = [[np.isnan(row.draws).tolist() for row in rows] for rows in (one, two)]
    assert none[0] == none[1]
    alone = replace(trial, blocks=[(0, 0)] * len(trial.blocks))  # one block: every draw is the whole
    for row in by_distance(alone, np.random.default_rng(0).random((trial.bases, 3)), CALLS, 3):
        assert row.draws == pytest.approx([row.auprc] * 3, abs=1e-5)


def test_no_ranges_without_distances_or_blocks():
    trial = trial_of(4)
    scores = np.zeros((trial.bases, 3))
    assert by_distance(replace(trial, distance=None), scores, CALLS, 3) == []
    assert by_distance(replace(trial, blocks=()), scores, CALLS, 3) == []
    assert by_distance(replace(trial, distance=np.full(trial.bases, -1)), scores, CALLS, 3) == []


def results() -> list[Result]:
    trial = trial_of()
    (lookup,) = put_to([trial], LookupScorer(), CALLS, 5)
    return [replace(lookup, detector="window"), lookup]


def test_strata_are_told_as_figures_evidence_and_a_table():
    one, lookup = found = results()
    figures, evidence = flat(found, "window"), evidence_of(found, "window")
    assert lookup.detector in CALLERS and one.ranges
    for row in one.ranges:
        part = f"distance_{row.low}_{row.high}" + ("/" if row.kind else "") + row.kind
        for prefix in ("test", "lookup/test"):
            assert figures[f"{prefix}/{part}/auprc"] == row.auprc and figures[f"{prefix}/{part}/f1"] == row.f1
            assert figures[f"{prefix}/{part}/events"] == row.events
    by = {name: [one for one in evidence.strata if one.by == name] for name in ("kind", "distance")}
    assert len(by["kind"]) + len(by["distance"]) == len(evidence.strata)
    assert {one.kind for one in by["kind"]} == set(one.kinds) >= set(SIMPLE)
    assert all(len(one.draws) == 5 for one in evidence.strata)
    for stratum, row in zip(by["distance"], one.ranges, strict=True):
        assert (stratum.low, stratum.high, stratum.kind, stratum.count) == (row.low, row.high, row.kind, row.events)
        assert stratum.name == f"{row.low}–{row.high}" and stratum.value == row.auprc
    (sheet,) = distance_sheets(found, "window")
    assert len(sheet.rows) == len(one.ranges) and sheet.columns[-1] == "lookup\nF1"
    assert sheet.rows[0][0] == f"{one.ranges[0].low}–{one.ranges[0].high}"
    assert sheet.rows[-1][-1] == f"{lookup.ranges[-1].f1:.3f}"
    low = one.ranges[0].low
    short = [replace(result, ranges=[row for row in result.ranges if row.low == low]) for result in found]
    assert distance_sheets(short, "window") == []  # one range is what the first table tells already
