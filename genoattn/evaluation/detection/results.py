"""The metrics of a detector on test sets, by kind of mutation and by distance."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genoattn.data.targets import COLUMNS, IGNORE_INDEX
from genoattn.evaluation.bootstrap import resampled_average_precision
from genoattn.evaluation.detection.by_distance import DistanceBin, metrics_by_distance
from genoattn.evaluation.detection.detectors import CALLERS, Detector
from genoattn.evaluation.detection.metrics import (
    DetectionMetrics,
    PrecisionRecall,
    best_threshold,
    detection_metrics,
    per_base_auprc,
    precision_recall,
)
from genoattn.evaluation.detection.scored_calls import EVENT_KINDS, HEADLINE_KINDS, KINDS, collect_scored_calls, kind_of
from genoattn.evaluation.detection.testsets import TestSet
from genoattn.evaluation.metrics import MetricKey, Metrics, Replicates, Subgroup


class KindResult(NamedTuple):
    """One kind of mutation in a test set."""

    metrics: DetectionMetrics
    replicates: Float[np.ndarray, "replicates"]
    """AUPRC in every resample."""
    curve: PrecisionRecall | None
    """None for kinds that are not plotted."""


@dataclass(frozen=True)
class DetectionResult:
    """The metrics of one detector on one test set."""

    detector: str
    """The detector's key."""
    name: str
    test_set: str
    """The test set's key."""
    title: str
    simulated: bool
    """False for the mutations of a VCF."""
    kinds: Mapping[str, KindResult]
    by_distance: Sequence[DistanceBin] = ()
    oracle: bool = False
    """True if that VCF has placed the windows."""

    @property
    def calls_only(self) -> bool:
        """True for a baseline that gives no score, so that F1 is its metric."""
        return self.detector in CALLERS

    def metric(self, metrics: DetectionMetrics | DistanceBin) -> float:
        """F1 of a caller, else AUPRC."""
        return metrics.f1 if self.calls_only else metrics.auprc

    def mean(self, metric: Callable[[DetectionMetrics], float]) -> float:
        """The mean of a metric over SNVs, insertions and deletions, as far as the test set holds them; else NaN."""
        values = [metric(self.kinds[kind].metrics) for kind in HEADLINE_KINDS if kind in self.kinds]
        return float(np.mean(values or [np.nan]))


def evaluate_detector(
    test_sets: Sequence[TestSet], detector: Detector, thresholds: Mapping[str, float], count: int
) -> list[DetectionResult]:
    """Evaluate one detector on every test set.

    A test set that is a part of the one before it takes its scores from there.

    Args:
        test_sets: The test sets.
        detector: A model or a baseline.
        thresholds: By output, the score from which a base is called.
        count: Bootstrap resamples behind every interval.
    """
    results: list[DetectionResult] = []
    events, scores = None, np.zeros((0, 0))
    for test_set in test_sets:
        if events is not test_set.events:
            events, scores = test_set.events, test_set.scores(detector)
        names = detector.key, detector.name, test_set.key, test_set.title, test_set.simulated
        kinds = evaluate_scores(test_set, scores, thresholds, count)
        by_distance = metrics_by_distance(test_set, scores, thresholds, count)
        results.append(DetectionResult(*names, kinds, by_distance, test_set.oracle))
    return results


def evaluate_scores(
    test_set: TestSet, scores: Float[np.ndarray, "bases columns"], thresholds: Mapping[str, float], count: int
) -> dict[str, KindResult]:
    """The metrics of each kind of mutation, from the scores of all bases of a test set."""
    resamples, tested = test_set.resamples(count), int(test_set.tested.sum())
    results = {}
    for kind, scored in collect_scored_calls(scores, test_set.events, resamples.units, test_set.tested).items():
        replicates = resampled_average_precision(scored, resamples.weights)
        threshold, base_auprc = thresholds[COLUMNS[KINDS[kind]]], _base_auprc(test_set, scores, kind)
        metrics = detection_metrics(scored, threshold, base_auprc, tested, replicates, resamples)
        results[kind] = KindResult(metrics, replicates, precision_recall(scored) if kind in HEADLINE_KINDS else None)
    return results


def choose_thresholds(test_set: TestSet, scores: Float[np.ndarray, "bases columns"]) -> dict[str, float]:
    """The threshold of the best F1 for each output; 0.5 for an output without an event."""
    best = {
        COLUMNS[KINDS[kind]]: best_threshold(scored)
        for kind, scored in collect_scored_calls(scores, test_set.events, test_set.windows, test_set.tested).items()
        if kind in (*HEADLINE_KINDS, "inversion")
    }
    return {output: best.get(output, 0.5) for output in test_set.targets}


def _base_auprc(test_set: TestSet, scores: np.ndarray, kind: str) -> float:
    """AUPRC over single bases, without the bases of `EVENT_KINDS`; NaN for those kinds."""
    if kind in EVENT_KINDS:
        return float("nan")
    target = test_set.targets[COLUMNS[KINDS[kind]]]
    labelled = test_set.tested & (target != IGNORE_INDEX)
    for event in test_set.events:
        if kind_of(event) in EVENT_KINDS:
            labelled[event.earliest : event.latest] = False
    return per_base_auprc(scores[:, KINDS[kind]], target == 1, labelled)


def metrics_of(results: Sequence[DetectionResult]) -> Metrics:
    """All metrics of all detectors; subset `all` is the mean over SNVs, insertions and deletions."""
    entries: dict[MetricKey, int | float] = {}
    for result in results:
        rows = [(_key(kind), result.kinds[kind].metrics._asdict()) for kind in result.kinds]
        rows += [(row.subset, {"events": row.events, "auprc": row.auprc, "f1": row.f1}) for row in result.by_distance]
        rows.append(("all", {"auprc": result.mean(lambda kind: kind.auprc), "f1": result.mean(lambda kind: kind.f1)}))
        for subset, metrics in rows:
            entries |= {MetricKey(result.detector, result.test_set, subset, name): metrics[name] for name in metrics}
    return Metrics(entries)


def replicates_of(results: Sequence[DetectionResult], primary: MetricKey) -> Replicates:
    """AUPRC of every detector in resamples of the simulated test set, and the subgroups of the first detector."""
    replicates: dict[MetricKey, Sequence[float]] = {}
    simulated = [result for result in results if result.simulated]
    for result in simulated:
        key = MetricKey(result.detector, result.test_set, "all", "auprc")
        replicates |= {key._replace(subset=_key(kind)): row.replicates.tolist() for kind, row in result.kinds.items()}
        headline = [result.kinds[kind].replicates for kind in HEADLINE_KINDS if kind in result.kinds]
        replicates[key] = np.mean(headline, axis=0).tolist() if headline else []
    subgroups = [group for result in simulated if result.detector == primary.candidate for group in _subgroups(result)]
    return Replicates(primary, replicates, subgroups)


def _subgroups(result: DetectionResult) -> list[Subgroup]:
    groups = [
        Subgroup("kind", kind, kind, None, None, metrics.events, metrics.auprc, tuple(replicates.tolist()))
        for kind, (metrics, replicates, _) in result.kinds.items()
    ]
    for row in result.by_distance:
        values = row.low, row.high, row.events, row.auprc, tuple(row.replicates.tolist())
        groups.append(Subgroup("distance", row.name, row.kind, *values))
    return groups


def _key(kind: str) -> str:
    return kind.replace(" ", "_")
