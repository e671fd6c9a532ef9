"""Metrics of class probabilities with their bootstrap replicates, the table of confusions and the plot of an ROC."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torchmetrics.functional import classification

from genoattn.evaluation.base import Answers
from genoattn.evaluation.bootstrap import Resamples, interval
from genoattn.evaluation.report import Table, panel_in, with_interval

METRIC_COLUMNS = ("AUROC [95 %]", "AUPRC [95 %]", "accuracy", "F1 (macro)", "MCC")
"""The columns of `metric_cells`."""

Prediction: TypeAlias = Answers[Float[np.ndarray, "items *classes"]]
"""The class probabilities of one model or baseline; or of one that knows no classes, one number of each item that ranks
the second class above the first.
"""


class ClassificationMetrics(NamedTuple):
    """AUROC and AUPRC are those of the second of two classes, or the mean over classes against the rest."""

    auroc: float
    auroc_low: float
    auroc_high: float
    auprc: float
    auprc_low: float
    auprc_high: float
    accuracy: float
    f1: float
    """The mean over classes."""
    mcc: float
    """Matthews correlation coefficient; 0 for a constant answer."""


class Rankings(NamedTuple):
    """AUROC and AUPRC in every resample; NaN where a class is missing."""

    auroc: Float[np.ndarray, "replicates"]
    auprc: Float[np.ndarray, "replicates"]


def classification_metrics(
    answers: Float[np.ndarray, "items *classes"],
    truth: Int[np.ndarray, "items"],
    resamples: Resamples,
    replicates: Rankings | None = None,
) -> ClassificationMetrics:
    """All metrics of a table of class probabilities, or of numbers, which name no class.

    AUROC and AUPRC are NaN if a class is missing, and so is what numbers do not have.

    Args:
        answers: The probability of each class, or one number of each item.
        truth: The true classes.
        resamples: The resamples behind the intervals.
        replicates: What `resampled_rankings` gave for the same arguments; None: it is computed.
    """
    auroc, auprc = (float(values[0]) for values in rankings(answers, truth, np.ones((1, len(truth)), np.int64)))
    replicates = resampled_rankings(answers, truth, resamples) if replicates is None else replicates
    intervals = auroc, *interval(replicates.auroc), auprc, *interval(replicates.auprc)
    if answers.ndim == 1:
        return ClassificationMetrics(*intervals, accuracy=math.nan, f1=math.nan, mcc=math.nan)
    predicted, true, classes = torch.from_numpy(answers.argmax(1)), torch.from_numpy(truth), answers.shape[1]
    return ClassificationMetrics(
        *intervals,
        accuracy=float((predicted == true).double().mean()),
        f1=float(classification.multiclass_f1_score(predicted, true, classes)),
        mcc=matthews(predicted.numpy(), truth, classes),
    )


def resampled_rankings(
    answers: Float[np.ndarray, "items *classes"], truth: Int[np.ndarray, "items"], resamples: Resamples
) -> Rankings:
    """AUROC and AUPRC of class probabilities, or of numbers, in every resample."""
    return rankings(answers, truth, resamples.weights[:, resamples.units])


def rankings(
    answers: Float[np.ndarray, "items *classes"],
    truth: Int[np.ndarray, "items"],
    times: Int[np.ndarray, "replicates items"],
) -> Rankings:
    """AUROC and AUPRC if item i stands times[r, i] times in the test set; see `ClassificationMetrics` on classes."""
    table = answers[:, None] if answers.ndim == 1 else answers
    if table.shape[1] <= 2:
        return _binary_ranking(table[:, -1], truth == 1, times)
    each = [_binary_ranking(table[:, number], truth == number, times) for number in range(table.shape[1])]
    return Rankings(*(np.mean(values, 0) for values in zip(*each, strict=True)))


def _binary_ranking(
    scores: Float[np.ndarray, "items"], truth: Bool[np.ndarray, "items"], times: Int[np.ndarray, "replicates items"]
) -> Rankings:
    """Area under the ROC and average precision, items of equal score counted at the same threshold."""
    order = np.argsort(-scores, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))  # of each group of ties
    hits, misses = (
        np.add.reduceat(times[:, order] * kind[order], first, axis=1).astype(np.float64) for kind in (truth, ~truth)
    )
    found, wrong = hits.cumsum(1), misses.cumsum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        above = (misses * (found - hits / 2)).sum(1)  # pairs in the right order, a tie as half of one
        auroc = above / (found[:, -1] * wrong[:, -1])
        precision = np.nan_to_num(found / (found + wrong))
        return Rankings(auroc, np.where(np.isnan(auroc), np.nan, (hits * precision).sum(1) / found[:, -1]))


def matthews(predicted: Int[np.ndarray, "items"], truth: Int[np.ndarray, "items"], classes: int) -> float:
    """Matthews correlation coefficient for any number of classes (Gorodkin 2004); 0 for a constant answer."""
    called, true = (np.bincount(labels, minlength=classes).astype(np.float64) for labels in (predicted, truth))
    total = float(len(truth))
    spread = math.sqrt((total**2 - called @ called) * (total**2 - true @ true))
    return (total * int((predicted == truth).sum()) - float(called @ true)) / spread if spread else 0.0


def metric_cells(metrics: ClassificationMetrics) -> list[str]:
    """The cells of a row under `METRIC_COLUMNS`."""
    others = (f"{value:.3f}" if math.isfinite(value) else "" for value in metrics[6:])
    return [with_interval(*metrics[:3]), with_interval(*metrics[3:6]), *others]


def confusion_table(prediction: Prediction, truth: Int[np.ndarray, "items"], names: Sequence[str]) -> Table:
    """The number of items of each true class by predicted class."""
    predicted, true = (torch.from_numpy(labels) for labels in (prediction.values.argmax(1), truth))
    counts = classification.multiclass_confusion_matrix(predicted, true, len(names)).tolist()
    rows = [[name, *(f"{count:,}" for count in row)] for name, row in zip(names, counts, strict=True)]
    return Table("True class (rows) and predicted class (columns)", ["class", *names], rows)


def plot_roc(predictions: Sequence[Prediction], truth: Int[np.ndarray, "items"], file: Path) -> None:
    """The receiver operating characteristic of the last class against all others."""
    last = torch.from_numpy(truth == predictions[0].values.shape[1] - 1).long()
    with panel_in(file, 5.0, 4.5) as panel:
        for prediction in predictions:
            false, true, _ = classification.binary_roc(torch.from_numpy(prediction.values[:, -1]), last)
            panel.plot(false.numpy(), true.numpy(), label=prediction.name)
        panel.set(xlabel="false positive rate", ylabel="true positive rate")
