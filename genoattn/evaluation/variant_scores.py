"""The evaluator of a model that learned a measured number: rank correlation, beside a linear regression and rivals."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float

from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.evaluation.base import TEST, Answers, Candidate, EvaluationResult
from genoattn.evaluation.baselines.regression import linear_regression
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table, panel_in, with_interval
from genoattn.evaluation.score_metrics import ScoreMetrics, score_metrics
from genoattn.evaluation.variant_rivals import Numbers, VariantEvaluator

COLUMNS = ("variants", "model", "number", "Spearman [95 %]", "Pearson", "AUROC [95 %]", "AUPRC [95 %]")


@final
class VariantScoreEvaluator(VariantEvaluator):
    """The measured numbers of the variants of the test split and, with two classes, how well they are told apart."""

    primary = MetricKey("model", TEST, "all", "spearman")

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        scores = np.array([variant.score for variant in self.tested])
        labels = np.array([variant.label for variant in self.tested])
        if len(self.task.classes) != 2:
            labels = np.full_like(labels, -1)
        sign, answers = self.class_sign(), self.predict(candidates)
        entries: dict[MetricKey, int | float] = {}
        rows: list[list[str]] = []
        for subset, chosen in self.subsets():
            resamples = self.resampled(chosen)
            for answer in answers:
                metrics = score_metrics(answer.values[chosen], scores[chosen], labels[chosen], sign, resamples)
                values = metrics._asdict().items()
                entries |= {MetricKey(answer.key, TEST, subset, metric): value for metric, value in values}
                rows.append([subset, answer.name, f"{int(chosen.sum()):,}", *_cells(metrics)])
        title = f"Measured numbers of variants, predicted by attention={candidates[0].name}"
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title, COLUMNS, rows, texts=2, notes=self.notes())],
            plots={"scores": partial(_plot, answers[0], scores)},
            primary=self.primary,
        )

    def predict(self, candidates: Sequence[Candidate]) -> list[Answers[Numbers]]:
        answers = [
            Answers(model.key, model.name, self.logits(model, "score")[:, 0])
            if isinstance(model.predictor.task, VariantClassification)
            else self.zero_shot(model)
            for model in candidates
        ]
        training, tested = self.features()
        regression = linear_regression(training, self.training_targets, tested)
        return [*answers, Answers("linear_regression", "linear regression", regression), *self.rivals()]

    @property
    def training_targets(self) -> Float[np.ndarray, "variants"]:
        return np.array([variant.score for variant in self.training])

    def class_sign(self) -> float:
        """1 if the second class has the higher scores in training, −1 if it has the lower ones."""
        means = [
            np.mean([variant.score for variant in self.training if variant.label == label] or [0.0]) for label in (0, 1)
        ]
        return 1.0 if means[1] >= means[0] else -1.0


def _cells(metrics: ScoreMetrics) -> list[str]:
    both = [with_interval(*values) if math.isfinite(values[0]) else "" for values in (metrics[4:7], metrics[7:10])]
    return [with_interval(*metrics[:3]), f"{metrics.pearson:.3f}", *both]


def _plot(answer: Answers[Numbers], scores: Numbers, file: Path) -> None:
    """The prediction of each variant against its measured number."""
    with panel_in(file, 5.0, 4.5) as panel:
        panel.plot(scores, answer.values, ".", ms=2, label=answer.name)
        panel.set(xlabel="measured number", ylabel="prediction (standard deviations of the training variants)")
