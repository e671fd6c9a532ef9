"""Metrics of predicted numbers: rank correlation with measured numbers, and how well they tell two classes apart."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torchmetrics.functional import classification

from genoattn.evaluation.bootstrap import Interval, Resamples, interval

NO_INTERVAL = Interval(math.nan, math.nan)


class ScoreMetrics(NamedTuple):
    """Metrics with 95 % intervals; AUROC and AUPRC are NaN without two classes."""

    spearman: float
    spearman_low: float
    spearman_high: float
    pearson: float
    auroc: float
    auroc_low: float
    auroc_high: float
    auprc: float
    auprc_low: float
    auprc_high: float


class Ranking(NamedTuple):
    """The quality of numbers that rank the second of two classes above the first."""

    auroc: float
    auprc: float


def score_metrics(
    numbers: Float[np.ndarray, "variants"],
    scores: Float[np.ndarray, "variants"],
    labels: Int[np.ndarray, "variants"],
    sign: float,
    resamples: Resamples,
) -> ScoreMetrics:
    """All metrics of predicted numbers.

    Args:
        numbers: The predictions; only their order counts, but for Pearson's correlation.
        scores: The measured numbers.
        labels: 0 and 1 for the two classes; variants with another label have none.
        sign: 1 if the second class has the higher scores, −1 if it has the lower ones.
        resamples: Resamples of the variants.
    """
    drawn = [np.repeat(np.arange(len(scores)), times) for times in resamples.weights[:, resamples.units]]
    spearmans = np.array([spearman(numbers[rows], scores[rows]) for rows in drawn])
    known, oriented = labels >= 0, sign * numbers
    rankings = np.array([ranking(oriented[rows], labels[rows]) for rows in (rows[known[rows]] for rows in drawn)])
    auroc, auprc = ranking(oriented[known], labels[known])
    correlation = pearson(numbers, scores)
    intervals = [interval(rankings[:, column]) for column in range(2)] if known.any() else [NO_INTERVAL] * 2
    (low, high), of_auroc, of_auprc = interval(spearmans), *intervals
    return ScoreMetrics(
        spearman(numbers, scores), low, high, correlation, auroc, *of_auroc, auprc, of_auprc.low, of_auprc.high
    )


def spearman(first: Float[np.ndarray, "variants"], second: Float[np.ndarray, "variants"]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; NaN if one side is constant."""
    return pearson(rankdata(first), rankdata(second))


def pearson(first: Float[np.ndarray, "variants"], second: Float[np.ndarray, "variants"]) -> float:
    """Pearson's correlation; NaN if one side is constant."""
    a, b = (values - values.mean() for values in (np.asarray(first, float), np.asarray(second, float)))
    spread = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / spread if spread else math.nan


def ranking(numbers: Float[np.ndarray, "variants"], labels: Int[np.ndarray, "variants"]) -> Ranking:
    """AUROC and AUPRC of numbers of any size for labels 0 and 1; NaN if one of the two is missing."""
    if set(np.unique(labels).tolist()) != {0, 1}:
        return Ranking(math.nan, math.nan)
    # By ranks, because torchmetrics takes other numbers than probabilities through a sigmoid, which makes ties.
    ranks, truth = torch.from_numpy(rankdata(numbers) / (len(numbers) + 1)), torch.from_numpy(labels).long()
    auroc, auprc = classification.binary_auroc(ranks, truth), classification.binary_average_precision(ranks, truth)
    return Ranking(float(auroc), float(auprc))
