"""The evaluator of a variant classifier: held-out variants, beside the majority class and a logistic regression."""

from collections.abc import Sequence
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import special

from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.evaluation.base import TEST, Candidate, EvaluationResult
from genoattn.evaluation.baselines.regression import logistic_regression
from genoattn.evaluation.class_metrics import (
    METRIC_COLUMNS,
    Prediction,
    classification_metrics,
    confusion_table,
    metric_cells,
    plot_roc,
)
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table
from genoattn.evaluation.variant_rivals import VariantEvaluator

COLUMNS = ("variants", "model", "number", *METRIC_COLUMNS)


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
                rows.append([subset, prediction.name, f"{int(chosen.sum()):,}", *metric_cells(metrics)])
        title = f"Variants classified by attention={candidates[0].name}"
        tables = [prediction for prediction in predictions if prediction.values.ndim == 2]
        confusion = confusion_table(tables[0], truth, list(self.task.classes))
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title, COLUMNS, rows, texts=2, notes=self.notes()), confusion],
            plots={"roc": partial(plot_roc, tables, truth)},
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
