"""Detection metrics of one kind of mutation, per event and per base, with bootstrap intervals."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torchmetrics.functional import classification

from genoattn.evaluation.bootstrap import Resamples, ScoredCalls, interval, resampled_ratio


class DetectionMetrics(NamedTuple):
    """Detection of one kind of mutation; the bounds of an interval are the middle 95 % of the replicates."""

    events: int
    rate: float
    """Events per tested base."""
    auprc: float
    auprc_low: float
    auprc_high: float
    auroc: float
    precision: float
    recall: float
    f1: float
    f1_low: float
    f1_high: float
    base_auprc: float
    """AUPRC over single bases; NaN for kinds without a metric per base."""


class PrecisionRecall(NamedTuple):
    """Precision against recall as the threshold falls."""

    precision: Float[np.ndarray, "points"]
    recall: Float[np.ndarray, "points"]


def best_threshold(scored: ScoredCalls) -> float:
    """The threshold with the highest F1; calls of this score or more are positive."""
    order = np.argsort(-scored.scores, kind="stable")
    scores, hits = scored.scores[order], np.cumsum(scored.truth[order])
    last = np.append(scores[1:] != scores[:-1], True)  # a threshold takes all calls of one score, or none
    f1 = np.where(last, 2 * hits / (np.arange(1, len(scores) + 1) + hits[-1]), -1)
    return float(scores[f1.argmax()])


def detection_metrics(
    scored: ScoredCalls, threshold: float, base_auprc: float, bases: int, replicates: np.ndarray, resamples: Resamples
) -> DetectionMetrics:
    """All metrics of one kind; `replicates` are its AUPRC in `resamples`, `bases` the number of tested bases."""
    called, truth = scored.scores >= threshold, scored.truth
    hits, calls, events = int((called & truth).sum()), int(called.sum()), int(truth.sum())
    own = Resamples(scored.units, resamples.weights)
    f1_replicates = resampled_ratio(2.0 * (called & truth), 1.0 * called + truth, own)
    # A resample without any event defines neither metric.
    f1_low, f1_high = interval(np.where(np.isnan(replicates), np.nan, f1_replicates))
    return DetectionMetrics(
        events,
        events / bases,
        average_precision(scored.scores, truth),
        *interval(replicates),
        auroc=float(classification.binary_auroc(torch.from_numpy(scored.scores), torch.from_numpy(truth).long())),
        precision=hits / calls if calls else 0.0,
        recall=hits / events if events else 0.0,
        f1=f1_score(scored, threshold),
        f1_low=f1_low,
        f1_high=f1_high,
        base_auprc=base_auprc,
    )


def f1_score(scored: ScoredCalls, threshold: float) -> float:
    """F1 of the calls with a score of `threshold` or more; 0 without a call or an event."""
    called = scored.scores >= threshold
    total = int(called.sum() + scored.truth.sum())
    return 2 * int((called & scored.truth).sum()) / total if total else 0.0


def per_base_auprc(
    scores: Float[np.ndarray, "bases"], truth: Bool[np.ndarray, "bases"], labelled: Bool[np.ndarray, "bases"]
) -> float:
    """AUPRC over single bases, without those that have no label."""
    return average_precision(scores[labelled], truth[labelled])


def average_precision(scores: Float[np.ndarray, "calls"], truth: Bool[np.ndarray, "calls"]) -> float:
    """Average precision (AUPRC); NaN without an event."""
    if not truth.any():
        return float("nan")
    return float(classification.binary_average_precision(*_down_to_the_last_event(scores, truth)))


def precision_recall(scored: ScoredCalls) -> PrecisionRecall:
    """The precision–recall curve of one kind."""
    precision, recall, _ = classification.binary_precision_recall_curve(
        *_down_to_the_last_event(scored.scores, scored.truth)
    )
    return PrecisionRecall(precision.numpy(), recall.numpy())


def _down_to_the_last_event(scores: np.ndarray, truth: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels of the calls that rank no lower than the last event: the rest changes no precision."""
    ranked = scores >= scores[truth].min()
    return torch.from_numpy(scores[ranked]), torch.from_numpy(truth[ranked]).long()
