"""The evaluator of a variant classifier: held-out variants, beside the majority class and a logistic regression."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.evaluation.base import TEST, Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.baselines.regression import features, logistic_regression
from genoattn.evaluation.bootstrap import BLOCK, resample
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
from genoattn.evaluation.settings import TestSettings

COLUMNS = ("variants", "model", "number", *METRIC_COLUMNS)


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
                rows.append([subset, prediction.name, f"{int(chosen.sum()):,}", *metric_cells(metrics)])
        confusion = confusion_table(predictions[0], self.truth, list(self.task.classes))
        title = f"Variants classified by attention={candidates[0].name}"
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title, COLUMNS, rows, texts=2), confusion],
            plots={"roc": partial(plot_roc, predictions, self.truth)},
            primary=self.primary,
        )

    def _probabilities(self, candidate: Candidate) -> Float[np.ndarray, "variants classes"]:
        tables = [
            logits["class"][:, 0].double().softmax(-1).cpu().numpy()
            for _, logits in candidate.predictor.logits(self.examples, self.both_strands)
        ]
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
