"""How well scores find mutations: per event and per base, by kind, with intervals from resampled windows."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from genoattn.evaluation.bootstrap import ScoredCalls, _draws, _middle, resampled_average_precision


class DetectionMetrics(NamedTuple):
    """How well one kind is found. Rates are events a base; an interval is the middle 95 % over resampled windows."""

    events: int
    rate: float
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


def best_threshold(scored: ScoredCalls) -> float:
    """The score from which on calling an event gives the highest F1."""
    order = np.argsort(-scored.scores, kind="stable")
    scores, hits = scored.scores[order], np.cumsum(scored.truth[order])
    last = np.append(scores[1:] != scores[:-1], True)  # a threshold takes all candidates of one score, or none
    f1 = np.where(last, 2 * hits / (np.arange(1, len(scores) + 1) + hits[-1]), -1)
    return float(scores[f1.argmax()])


def detection_metrics(
    scored: ScoredCalls, threshold: float, base_auprc: float, bases: int, resamples: int, seed: int
) -> DetectionMetrics:
    """Every figure of one kind; `resamples` bootstrap draws of the windows give the intervals."""
    scored = scored._replace(windows=np.unique(scored.windows, return_inverse=True)[1])  # those that hold candidates
    scores, truth = torch.from_numpy(scored.scores), torch.from_numpy(scored.truth)
    counts = _counts(scored, threshold)
    precision, recall, f1 = _at_threshold(counts.sum(0)[None])[0]
    draws = _draws(len(counts), resamples, seed)
    drawn = draws @ counts
    held = drawn[:, 0] + drawn[:, 2] > 0  # a resample without any event says nothing, for AUPRC too
    f1_low, f1_high = _middle(np.where(held, _at_threshold(drawn)[:, 2], np.nan))
    auprc_low, auprc_high = _middle(resampled_average_precision(scored, draws))
    return DetectionMetrics(
        events=int(truth.sum()),
        rate=int(truth.sum()) / bases,
        auprc=average_precision(scored.scores, scored.truth),
        auprc_low=auprc_low,
        auprc_high=auprc_high,
        auroc=float(binary_auroc(scores, truth.long())),
        precision=precision,
        recall=recall,
        f1=f1,
        f1_low=f1_low,
        f1_high=f1_high,
        base_auprc=base_auprc,
    )


def f1_score(scored: ScoredCalls, threshold: float) -> float:
    """F1 of calling what scores `threshold` or more; 0 where nothing was called or there is nothing to find."""
    return float(_at_threshold(_counts(scored, threshold).sum(0)[None])[0, 2])


def per_base_auprc(
    scores: Float[np.ndarray, "bases"], truth: Bool[np.ndarray, "bases"], asked: Bool[np.ndarray, "bases"]
) -> float:
    """AUPRC over single bases, those about which nothing is asked left out."""
    return average_precision(scores[asked], truth[asked])


def average_precision(scores: Float[np.ndarray, "candidates"], truth: Bool[np.ndarray, "candidates"]) -> float:
    """AUPRC; NaN without anything to find."""
    if not truth.any():
        return float("nan")
    # What scores below every event comes after the last of them in the ranking and cannot change the figure.
    kept = scores >= scores[truth].min()
    return float(binary_average_precision(torch.from_numpy(scores[kept]), torch.from_numpy(truth[kept]).long()))


def _counts(scored: ScoredCalls, threshold: float) -> Int[np.ndarray, "windows 3"]:
    """True positives, false positives and false negatives of each window."""
    called = scored.scores >= threshold
    cells = (called & scored.truth, called & ~scored.truth, ~called & scored.truth)
    windows = int(scored.windows.max()) + 1
    return np.stack([np.bincount(scored.windows[cell], minlength=windows) for cell in cells], 1)


def _at_threshold(counts: Int[np.ndarray, "rows 3"]) -> Float[np.ndarray, "rows 3"]:
    """Precision, recall and F1 of rows of counts; 0 where nothing was called or there is nothing to find."""
    right, wrong, missed = counts.T.astype(np.float64)
    pairs = ((right, right + wrong), (right, right + missed), (2 * right, 2 * right + wrong + missed))
    return np.stack([np.divide(a, b, out=np.zeros_like(a), where=b > 0) for a, b in pairs], 1)
