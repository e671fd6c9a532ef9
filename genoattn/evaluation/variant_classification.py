"""The evaluator of a variant classifier: held-out variants, beside the majority class and a logistic regression."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torchmetrics.functional import classification

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.evaluation.base import TEST, Answers, Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.baselines.logistic_regression import features, logistic_regression
from genoattn.evaluation.bootstrap import BLOCK, Resamples, interval, resample
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table, panel_in, with_interval
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.progress import progress

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


Prediction: TypeAlias = Answers[Float[np.ndarray, "variants classes"]]
"""The class probabilities of one model or baseline."""


@final
class VariantClassificationEvaluator(Evaluator):
    """Only variants of the test split are tested, on any genome: the regression learns from the training split."""

    primary = MetricKey("model", TEST, "all", "auroc")

    def __init__(self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool):
        assert isinstance(task, VariantClassification)
        self.task, self.both_strands, self.resamples = task, both_strands, test.resamples
        self.training, self.tested = source.labelled["train"], source.labelled["test"]
        window = partial(task.window_around, source.genome, length=data.length)
        self.examples = [window(variant) for variant in self.tested]
        self.training_examples = [window(variant) for variant in self.training]
        self.truth = np.array([variant.label for variant in self.tested])

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        predictions = [Prediction(model.key, model.name, self._probabilities(model)) for model in candidates]
        predictions += self._baselines()
        entries: dict[MetricKey, int | float] = {}
        rows: list[list[str]] = []
        for subset, chosen in self._subsets():
            variants = [self.tested[number] for number in np.flatnonzero(chosen)]
            blocks = [(variant.record, variant.mutation.start // BLOCK) for variant in variants]
            resamples = resample(blocks, self.resamples)
            for prediction in predictions:
                metrics = classification_metrics(prediction.values[chosen], self.truth[chosen], resamples)
                values = metrics._asdict().items()
                entries |= {MetricKey(prediction.key, TEST, subset, metric): value for metric, value in values}
                rows.append([subset, prediction.name, f"{int(chosen.sum()):,}", *_cells(metrics)])
        title = f"Variants classified by attention={candidates[0].name}"
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title, COLUMNS, rows, texts=2), self._confusion(predictions[0])],
            plots={"roc": partial(_plot, predictions, self.truth)},
            primary=self.primary,
        )

    def _probabilities(self, candidate: Candidate) -> Float[np.ndarray, "variants classes"]:
        tables = []
        with progress(f"{candidate.name} scores", len(self.examples)) as advance:
            for _, logits in candidate.predictor.logits(self.examples, self.both_strands):
                tables.append(logits["class"][:, 0].double().softmax(-1).cpu().numpy())
                advance(len(tables[-1]))
        return np.concatenate(tables)

    def _baselines(self) -> list[Prediction]:
        labels, classes = np.array([variant.label for variant in self.training]), len(self.task.classes)
        training, tested = (
            np.stack([features(*pair) for pair in zip(variants, examples, strict=True)])
            for variants, examples in ((self.training, self.training_examples), (self.tested, self.examples))
        )
        shares = np.bincount(labels, minlength=classes) / len(labels)
        regression = logistic_regression(training, labels, tested, classes)
        return [
            Prediction("logistic_regression", "logistic regression", regression),
            Prediction("majority_class", "majority class", np.tile(shares, (len(self.truth), 1))),
        ]

    def _subsets(self) -> Iterator[tuple[str, Bool[np.ndarray, "variants"]]]:
        snv = np.array([variant.mutation.kind == "snv" for variant in self.tested])
        yield "all", np.ones(len(snv), np.bool_)
        if snv.any() and not snv.all():
            yield from (("snv", snv), ("indel", ~snv))

    def _confusion(self, prediction: Prediction) -> Table:
        names = list(self.task.classes)
        predicted, true = (torch.from_numpy(labels) for labels in (prediction.values.argmax(1), self.truth))
        counts = classification.multiclass_confusion_matrix(predicted, true, len(names)).tolist()
        rows = [[name, *(f"{count:,}" for count in row)] for name, row in zip(names, counts, strict=True)]
        return Table("True class (rows) and predicted class (columns)", ["class", *names], rows)


def classification_metrics(
    table: Float[np.ndarray, "variants classes"], truth: Int[np.ndarray, "variants"], resamples: Resamples
) -> ClassificationMetrics:
    """All metrics of a table of class probabilities; AUROC and AUPRC are NaN if a class is missing."""
    auroc, auprc = _ranking_metrics(table, truth)
    resampled = (np.repeat(np.arange(len(truth)), times) for times in resamples.weights[:, resamples.units])
    replicates = np.array([_ranking_metrics(table[chosen], truth[chosen]) for chosen in resampled])
    predicted, true, classes = torch.from_numpy(table.argmax(1)), torch.from_numpy(truth), table.shape[1]
    return ClassificationMetrics(
        auroc,
        *interval(replicates[:, 0]),
        auprc,
        *interval(replicates[:, 1]),
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
    return [with_interval(*metrics[:3]), with_interval(*metrics[3:6]), *(f"{value:.3f}" for value in metrics[6:])]


def _plot(predictions: Sequence[Prediction], truth: Int[np.ndarray, "variants"], file: Path) -> None:
    """The receiver operating characteristic of the last class against all others."""
    last = torch.from_numpy(truth == predictions[0].values.shape[1] - 1).long()
    with panel_in(file, 5.0, 4.5) as panel:
        for prediction in predictions:
            false, true, _ = classification.binary_roc(torch.from_numpy(prediction.values[:, -1]), last)
            panel.plot(false.numpy(), true.numpy(), label=prediction.name)
        panel.set(xlabel="false positive rate", ylabel="true positive rate")
