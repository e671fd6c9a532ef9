"""The evaluator of a model that learned a number of each region: correlations, beside a regression on k-mers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float

from genoattn.data.example import Example
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.evaluation.base import TEST, Answers, Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.baselines.composition import region_kmers
from genoattn.evaluation.baselines.regression import linear_regression
from genoattn.evaluation.bootstrap import interval, resample
from genoattn.evaluation.metrics import MetricKey, Metrics, Replicates
from genoattn.evaluation.report import Table, panel_in, with_interval
from genoattn.evaluation.score_metrics import pearson, spearman
from genoattn.evaluation.settings import TestSettings
from genoattn.evaluation.window_classification import held_out_and_training

COLUMNS = ("model", "regions", "Spearman [95 %]", "Pearson [95 %]")


@final
class WindowScoreEvaluator(Evaluator):
    """The numbers of the regions of the test split."""

    primary = MetricKey("model", TEST, "all", "spearman")

    def __init__(self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool):
        self.both_strands, self.resamples = both_strands, test.resamples
        self.examples, self.training = held_out_and_training(source, data, test, task)
        self.truth = _numbers(self.examples)

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        answers = [Answers(model.key, model.name, self._predicted(model)) for model in candidates]
        features = (np.stack(list(map(region_kmers, these))) for these in (self.training, self.examples))
        learned, asked = features
        regression = linear_regression(learned, _numbers(self.training), asked)
        answers.append(Answers("kmers_4", "4-mers", regression))
        resamples = resample([example.block for example in self.examples], self.resamples)
        drawn = [np.repeat(np.arange(len(self.truth)), times) for times in resamples.weights[:, resamples.units]]
        entries: dict[MetricKey, int | float] = {}
        replicates: dict[MetricKey, Sequence[float]] = {}
        rows = []
        for key, name, values in ((one.key, one.name, one.values) for one in answers):
            cells = []
            for metric, correlation in (("spearman", spearman), ("pearson", pearson)):
                resampled = np.array([correlation(values[chosen], self.truth[chosen]) for chosen in drawn])
                low, high = interval(resampled)
                measured = correlation(values, self.truth)
                cells.append(with_interval(measured, low, high))
                own = MetricKey(key, TEST, "all", metric)
                entries |= {own: measured}
                entries |= {own._replace(metric=f"{metric}_{end}"): at for end, at in (("low", low), ("high", high))}
                replicates[own] = resampled.tolist()
            rows.append([name, f"{len(self.truth):,}", *cells])
        title = f"Numbers of regions, predicted by attention={candidates[0].name}"
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title, COLUMNS, rows)],
            plots={"scores": partial(_plot, answers[0], self.truth)},
            primary=self.primary,
            replicates=Replicates(self.primary, replicates),
        )

    def _predicted(self, candidate: Candidate) -> Float[np.ndarray, "regions"]:
        columns = [
            logits["score"][:, 0, 0].double().cpu().numpy()
            for _, logits in candidate.predictor.logits(self.examples, self.both_strands)
        ]
        return np.concatenate(columns)


def _numbers(examples: Sequence[Example]) -> Float[np.ndarray, "regions"]:
    return np.array([float(example.targets["score"][0]) for example in examples])


def _plot(answers: Answers[np.ndarray], truth: Float[np.ndarray, "regions"], file: Path) -> None:
    """The prediction of each region against its number, both in standard deviations of training regions."""
    with panel_in(file, 5.0, 4.5) as panel:
        panel.plot(truth, answers.values, ".", ms=2, label=answers.name)
        panel.set(xlabel="number (standard deviations)", ylabel="prediction")
