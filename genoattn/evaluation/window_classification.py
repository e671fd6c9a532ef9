"""The evaluator of tasks with a class for each window: held-out windows, beside what simple statistics tell."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias, final

import numpy as np
from jaxtyping import Bool, Float

from genoattn.data.example import Example
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.frame import Frame
from genoattn.data.tasks.region import Region
from genoattn.data.tasks.strand import Strand
from genoattn.data.tasks.window_classification import WindowClassification
from genoattn.errors import UserError
from genoattn.evaluation.base import TEST, Candidate, EvaluationResult, Evaluator, fixed_windows
from genoattn.evaluation.baselines.codons import REACHES, CodonModel
from genoattn.evaluation.baselines.composition import region_kmers, skew_features, strand_kmers
from genoattn.evaluation.baselines.regression import logistic_regression
from genoattn.evaluation.bootstrap import resample
from genoattn.evaluation.class_metrics import (
    METRIC_COLUMNS,
    Prediction,
    classification_metrics,
    confusion_table,
    metric_cells,
    plot_roc,
    resampled_rankings,
)
from genoattn.evaluation.metrics import MetricKey, Metrics, Replicates, Subgroup
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.genes import gene_bases

COLUMNS = ("windows", "model", "number", *METRIC_COLUMNS)

TRAINING_WINDOWS = 5
"""Windows of the training blocks, for each of the test blocks, from which the regressions of the baselines learn."""

MOST_REGIONS = 20_000
"""Labelled regions of the training split from which a baseline learns at most."""

Features: TypeAlias = Callable[[Example], Float[np.ndarray, "features"]]


class Statistic(NamedTuple):
    """A baseline: a logistic regression on some features of a window."""

    key: str
    name: str
    features: Features


@final
class WindowClassificationEvaluator(Evaluator):
    """Windows of the test split. A regression on each statistic of the task learns from windows of training blocks."""

    primary = MetricKey("model", TEST, "all", "auroc")

    def __init__(self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool):
        assert isinstance(task, WindowClassification)
        if both_strands and task.one_strand:
            raise UserError(
                f"reverse_complement must be none for {type(task).__name__}: the outputs of both strands cannot be"
                " averaged if the strand is the label"
            )
        self.task, self.source, self.both_strands, self.resamples = task, source, both_strands, test.resamples
        self.examples, self.training = held_out_and_training(source, data, test, task)
        self.truth = _labels(self.examples)

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        predictions = [Prediction(model.key, model.name, self._probabilities(model)) for model in candidates]
        predictions += self._baselines()
        entries: dict[MetricKey, int | float] = {}
        replicates: dict[MetricKey, Sequence[float]] = {}
        subgroups: list[Subgroup] = []
        rows: list[list[str]] = []
        for subset, chosen in self._subsets():
            count, truth = int(chosen.sum()), self.truth[chosen]
            resamples = resample([self.examples[number].block for number in np.flatnonzero(chosen)], self.resamples)
            for prediction in predictions:
                resampled = resampled_rankings(prediction.values[chosen], truth, resamples)
                metrics = classification_metrics(prediction.values[chosen], truth, resamples, resampled)
                values = metrics._asdict().items()
                entries |= {MetricKey(prediction.key, TEST, subset, metric): value for metric, value in values}
                rows.append([subset, prediction.name, f"{count:,}", *metric_cells(metrics)])
                auroc = tuple(resampled.auroc.tolist())
                if subset == "all":
                    replicates[MetricKey(prediction.key, TEST, subset, "auroc")] = auroc
                    replicates[MetricKey(prediction.key, TEST, subset, "auprc")] = tuple(resampled.auprc.tolist())
                elif prediction.key == candidates[0].key:
                    subgroups.append(Subgroup("kind", subset, "", None, None, count, metrics.auroc, auroc))
        title = f"Windows classified by attention={candidates[0].name}"
        confusion = confusion_table(predictions[0], self.truth, self.task.class_names)
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title, COLUMNS, rows, texts=2, secondary=["F1 (macro)", "MCC"]), confusion],
            plots={"roc": partial(plot_roc, predictions, self.truth)},
            primary=self.primary,
            replicates=Replicates(self.primary, replicates, subgroups),
        )

    def _probabilities(self, candidate: Candidate) -> Float[np.ndarray, "windows classes"]:
        tables = [
            logits["class"][:, 0].double().softmax(-1).cpu().numpy()
            for _, logits in candidate.predictor.logits(self.examples, self.both_strands)
        ]
        return np.concatenate(tables)

    def _baselines(self) -> Iterator[Prediction]:
        labels, classes = _labels(self.training), len(self.task.class_names)
        for key, name, features in self._statistics():
            training, tested = (np.stack(list(map(features, these))) for these in (self.training, self.examples))
            yield Prediction(key, name, logistic_regression(training, labels, tested, classes))
        shares = np.bincount(labels, minlength=classes) / len(labels)
        yield Prediction("majority_class", "majority class", np.tile(shares, (len(self.truth), 1)))

    def _statistics(self) -> Iterator[Statistic]:
        """The statistics that know most about the task without learning a representation."""
        if isinstance(self.task, Strand):
            yield Statistic("gc_skew", "GC skew", skew_features)
            yield Statistic("kmers_3", "3-mers", strand_kmers)
        elif isinstance(self.task, Region):
            yield Statistic("kmers_4", "4-mers", region_kmers)
        elif isinstance(self.task, Frame):
            assert self.source.items is not None
            model = CodonModel([gene_bases(self.source.genome, gene) for gene in self.source.items.train])
            for reach in REACHES:
                yield Statistic(f"codons_{reach}", f"codon model ±{reach}", partial(model.features, reach=reach))

    def _subsets(self) -> Iterator[tuple[str, Bool[np.ndarray, "windows"]]]:
        """All windows; and if the second of two classes has several kinds, each of them beside the first class."""
        kinds = np.array([example.kind for example in self.examples])
        yield "all", np.ones(len(kinds), np.bool_)
        of_second = np.unique(kinds[self.truth == 1])
        if len(self.task.class_names) == 2 and len(of_second) > 1:
            yield from ((str(kind), (self.truth == 0) | (kinds == kind)) for kind in of_second)


def held_out_and_training(
    source: DataSource, data: DataSettings, test: TestSettings, task: Task
) -> tuple[list[Example], list[Example]]:
    """The windows that are tested, and those that baselines learn from.

    Of labelled regions they are all that there are, at most `MOST_REGIONS` for the baselines, else random windows.
    """
    if isinstance(task, Region):
        assert source.items is not None
        training = source.items.of("train")
        chosen = training[:: -(-len(training) // MOST_REGIONS)]
        rng = np.random.default_rng(test.seed)  # which such a window does not use
        tested, learned = (
            [task.item_example(source.genome, item, data.length, rng) for item in items]
            for items in (source.items.of(TEST), chosen)
        )
        return tested, learned
    windows = partial(fixed_windows, source=source, data=data, test=test, task=task, rates=task.rates)
    return windows(TEST, test.windows), windows("train", TRAINING_WINDOWS * test.windows)


def _labels(examples: Sequence[Example]) -> np.ndarray:
    return np.array([int(example.targets["class"][0]) for example in examples])
