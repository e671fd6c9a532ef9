"""The test of a model at further lengths of the window, beside the length of training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.evaluation.base import TEST, Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings

MIN_WINDOWS, MOST_TIMES = 16, 4
"""Fewest windows of a length, and how many times the windows of training there are at most."""


def windows_at(length: int, data: DataSettings, test: TestSettings) -> int:
    """The number of windows of a length: as many bases as in the test at `data.length`, within bounds."""
    same_bases = round(test.windows * data.length / length)
    return min(max(same_bases, min(MIN_WINDOWS, test.windows)), MOST_TIMES * test.windows)


def longest_window(source: DataSource) -> int:
    """Bases of the longest block of the test."""
    return max((interval.length for interval in source.splits.test), default=0)


def at_length(key: MetricKey, length: int) -> MetricKey:
    """The key of a metric of the test at another length than that of training."""
    return key._replace(test_set=f"{TEST}_{length}")


@final
class LengthsEvaluator(Evaluator):
    """The evaluation of a task, and of its first candidate in windows of other lengths.

    Metrics at another length have the test set `test_LENGTH`; baselines are computed there too.
    """

    def __init__(self, evaluator: Evaluator, length: int, at_lengths: Mapping[int, Evaluator]) -> None:
        """Join evaluators; `length` is that of the windows of the first, the others are by their lengths."""
        self.evaluator, self.length, self.at_lengths = evaluator, length, at_lengths

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        result, first = self.evaluator.evaluate(candidates), candidates[0]
        calibrated = replace(first, calibration=result.calibration.get(first.key, {}))
        rows = {self.length: result.metrics.select(first.key, TEST, "all")}
        entries: dict[MetricKey, int | float] = {}
        replicates = dict(result.replicates.replicates) if result.replicates else {}
        for length, evaluator in self.at_lengths.items():
            there = evaluator.evaluate([calibrated])
            rows[length] = there.metrics.select(first.key, TEST, "all")
            entries |= {at_length(key, length): value for key, value in there.metrics.items()}
            if there.replicates:
                replicates |= {at_length(key, length): row for key, row in there.replicates.replicates.items()}
        return replace(
            result,
            metrics=result.metrics + Metrics(entries),
            tables=[*result.tables, _table(rows)],
            replicates=replace(result.replicates, replicates=replicates) if result.replicates else None,
        )


def _table(rows: Mapping[int, Metrics]) -> Table:
    """A row for each length, with all metrics over the whole test set."""
    names = list(dict.fromkeys(key.metric for metrics in rows.values() for key in metrics))
    lines = []
    for length in sorted(rows):
        values = {key.metric: value for key, value in rows[length].items()}
        lines.append([f"{length:,}", *(_cell(values.get(name, math.nan)) for name in names)])
    return Table("By length of the window", ["bases", *(name.replace("_", " ") for name in names)], lines)


def _cell(value: int | float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if math.isnan(value) else f"{value:.3f}"
