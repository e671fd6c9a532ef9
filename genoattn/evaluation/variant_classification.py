"""The evaluator of a variant classifier: held-out variants, beside the majority class and a logistic regression."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import special
from torchmetrics.functional import classification

from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.evaluation.base import TEST, Answers, Candidate, EvaluationResult
from genoattn.evaluation.baselines.regression import logistic_regression
from genoattn.evaluation.bootstrap import Resamples, interval
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table, panel_in, with_interval
from genoattn.evaluation.score_metrics import ranking
from genoattn.evaluation.variant_rivals import VariantEvaluator

COLUMNS = ("variants", "model", "number", "AUROC [95 %]", "AUPRC [95 %]", "accuracy", "F1 (macro)", "MCC")


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


Prediction: TypeAlias = Answers[Float[np.ndarray, "variants *classes"]]
"""The class probabilities of one model or baseline; of a rival, one number that ranks the second class above the first.
"""


@final
class VariantClassificationEvaluator(VariantEvaluator):
    """The classes of the variants of the test split, on any genome."""

    primary = MetricKey("model", TEST, "all", "auroc")

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        truth = np.array([variant.label for variant in self.tested])
        predictions = self.predict(candidates)
        entries: dict[MetricKey, int | float] = {}
        rows: list[list[str]] = []
        for subset, chosen in self.subsets():
            resamples = self.resampled(chosen)
            for prediction in predictions:
                metrics = classification_metrics(prediction.values[chosen], truth[chosen], resamples)
                values = metrics._asdict().items()
                entries |= {MetricKey(prediction.key, TEST, subset, metric): value for metric, value in values}
                rows.append([subset, prediction.name, f"{int(chosen.sum()):,}", *_cells(metrics)])
        title = f"Variants classified by attention={candidates[0].name}"
        tables = [prediction for prediction in predictions if prediction.values.ndim == 2]
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title, COLUMNS, rows, texts=2, notes=self.notes()), self._confusion(tables[0], truth)],
            plots={"roc": partial(_plot, tables, truth)},
            primary=self.primary,
        )

    def predict(self, candidates: Sequence[Candidate]) -> list[Prediction]:
        answers = [
            Prediction(model.key, model.name, special.softmax(self.logits(model, "class"), axis=1))
            if isinstance(model.predictor.task, VariantClassification)
            else self.zero_shot(model)
            for model in candidates
        ]
        return [*answers, *self._baselines(), *self.rivals()]

    @property
    def training_targets(self) -> Float[np.ndarray, "variants"]:
        return np.array([variant.label for variant in self.training], float)

    def _baselines(self) -> list[Prediction]:
        labels, classes = np.array([variant.label for variant in self.training]), len(self.task.classes)
        shares = np.bincount(labels, minlength=classes) / len(labels)
        training, tested = self.features()
        regression = logistic_regression(training, labels, tested, classes)
        return [
            Prediction("logistic_regression", "logistic regression", regression),
            Prediction("majority_class", "majority class", np.tile(shares, (len(tested), 1))),
        ]

    def _confusion(self, prediction: Prediction, truth: Int[np.ndarray, "variants"]) -> Table:
        names = list(self.task.classes)
        predicted, true = (torch.from_numpy(labels) for labels in (prediction.values.argmax(1), truth))
        counts = classification.multiclass_confusion_matrix(predicted, true, len(names)).tolist()
        rows = [[name, *(f"{count:,}" for count in row)] for name, row in zip(names, counts, strict=True)]
        return Table("True class (rows) and predicted class (columns)", ["class", *names], rows)


def classification_metrics(
    answers: Float[np.ndarray, "variants *classes"], truth: Int[np.ndarray, "variants"], resamples: Resamples
) -> ClassificationMetrics:
    """All metrics of a table of class probabilities, or of numbers, which name no class.

    AUROC and AUPRC are NaN if a class is missing, and so is what numbers do not have.
    """
    measure = ranking if answers.ndim == 1 else _ranking_metrics
    auroc, auprc = measure(answers, truth)
    resampled = (np.repeat(np.arange(len(truth)), times) for times in resamples.weights[:, resamples.units])
    replicates = np.array([measure(answers[chosen], truth[chosen]) for chosen in resampled])
    intervals = auroc, *interval(replicates[:, 0]), auprc, *interval(replicates[:, 1])
    if answers.ndim == 1:
        return ClassificationMetrics(*intervals, accuracy=math.nan, f1=math.nan, mcc=math.nan)
    predicted, true, classes = torch.from_numpy(answers.argmax(1)), torch.from_numpy(truth), answers.shape[1]
    return ClassificationMetrics(
        *intervals,
        accuracy=float((predicted == true).double().mean()),
        f1=float(classification.multiclass_f1_score(predicted, true, classes)),
        mcc=matthews(predicted.numpy(), truth, classes),
    )


def matthews(predicted: Int[np.ndarray, "variants"], truth: Int[np.ndarray, "variants"], classes: int) -> float:
    """Matthews correlation coefficient for any number of classes (Gorodkin 2004); 0 for a constant answer."""
    called, true = (np.bincount(labels, minlength=classes).astype(np.float64) for labels in (predicted, truth))
    total = float(len(truth))
    spread = math.sqrt((total**2 - called @ called) * (total**2 - true @ true))
    return (total * int((predicted == truth).sum()) - float(called @ true)) / spread if spread else 0.0


def _ranking_metrics(table: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    probabilities, true, classes = torch.from_numpy(table), torch.from_numpy(truth), table.shape[1]
    if len(np.unique(truth)) < classes:
        return math.nan, math.nan
    if classes == 2:
        second = probabilities[:, 1]
        auroc, auprc = classification.binary_auroc(second, true), classification.binary_average_precision(second, true)
    else:
        auroc = classification.multiclass_auroc(probabilities, true, classes)
        auprc = classification.multiclass_average_precision(probabilities, true, classes)
    return float(auroc), float(auprc)


def _cells(metrics: ClassificationMetrics) -> list[str]:
    others = (f"{value:.3f}" if math.isfinite(value) else "" for value in metrics[6:])
    return [with_interval(*metrics[:3]), with_interval(*metrics[3:6]), *others]


def _plot(predictions: Sequence[Prediction], truth: Int[np.ndarray, "variants"], file: Path) -> None:
    """The receiver operating characteristic of the last class against all others."""
    last = torch.from_numpy(truth == predictions[0].values.shape[1] - 1).long()
    with panel_in(file, 5.0, 4.5) as panel:
        for prediction in predictions:
            false, true, _ = classification.binary_roc(torch.from_numpy(prediction.values[:, -1]), last)
            panel.plot(false.numpy(), true.numpy(), label=prediction.name)
        panel.set(xlabel="false positive rate", ylabel="true positive rate")
