"""The results of single runs, read from their folders, and the learning rates that a sweep chooses."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genoattn.comparison.record import BASELINE_LAYERS, ContextResult, Run
from genoattn.comparison.settings import Number
from genoattn.comparison.statistics import SeedRun
from genoattn.errors import UserError
from genoattn.evaluation.base import TEST
from genoattn.evaluation.by_length import at_length
from genoattn.evaluation.metrics import METRICS_FILE, REPLICATES_FILE, MetricKey, Metrics, Replicates
from genoattn.models.checkpoint import DIVERGED

MODEL = "model"
"""The candidate of a run's own model in metric keys."""

FLOOR = "none"
"""The layer whose runs say what is reached without attention."""

LADDER_METRICS: Mapping[str, str] = {"restored": "restore", "accuracy": "value"}
"""Accuracies that a ladder takes if a task has one, and the output of the model that each is of."""

LEAST_LOSS = 0.02
"""Share by which the validation loss of a run is below the lowest of `none`, if the run has learned."""


class RunResult(NamedTuple):
    """The metrics of a finished run and their bootstrap replicates."""

    metrics: Metrics
    bootstrap: Replicates

    def seed_run(self, key: MetricKey) -> SeedRun | None:
        """A metric and its replicates; None if the run lacks either."""
        value = self.metrics.get(key, math.nan)
        if math.isnan(value) or key not in self.bootstrap.replicates:
            return None
        return SeedRun(value, np.array(self.bootstrap.replicates[key]))

    @property
    def primary(self) -> SeedRun | None:
        """The primary metric and its replicates."""
        return self.seed_run(self.bootstrap.primary_metric)

    @property
    def accuracy(self) -> MetricKey:
        """The metric of a ladder: an accuracy over single bases or, without one, the primary metric."""
        keys = [MetricKey(MODEL, TEST, "all", name) for name in LADDER_METRICS]
        return next((key for key in keys if key in self.bootstrap.replicates), self.bootstrap.primary_metric)

    def by_length(self, key: MetricKey, trained: int, lengths: Sequence[int]) -> dict[int, SeedRun]:
        """A metric in windows of some lengths, those at which it was tested; `trained` is the length of the run."""
        keys = {length: key if length == trained else at_length(key, length) for length in lengths}
        return {length: run for length, there in keys.items() if (run := self.seed_run(there))}


def mean_run(runs: Mapping[int, SeedRun]) -> SeedRun | None:
    """The mean of the scores of a run at several lengths, in every resample; None of none."""
    if not runs:
        return None
    values, replicates = [run.value for run in runs.values()], [run.replicates for run in runs.values()]
    return SeedRun(float(np.mean(values)), np.mean(replicates, axis=0))


def is_finished(folder: Path) -> bool:
    """True if a run has results; a diverged run has none."""
    return (folder / METRICS_FILE).is_file() and not (folder / DIVERGED).is_file()


def read_run(folder: Path) -> RunResult | None:
    """The results of a run; None if it is not finished."""
    if not is_finished(folder):
        return None
    if not (folder / REPLICATES_FILE).is_file():
        raise UserError(f"{folder} has no {REPLICATES_FILE}: runs of this task cannot be compared")
    return RunResult(Metrics.read(folder), Replicates.read(folder))


def validation_curve(folder: Path, column: str = "loss") -> tuple[tuple[float, float], ...]:
    """Bases seen and validation loss, or another column, at every validation of a run, from its metrics.csv."""
    points, bases = [], 0.0
    with (folder / "metrics.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            bases = float(row.get("bases_seen") or bases)
            value = float(row.get(f"validation/{column}") or math.nan)
            if math.isfinite(value):
                points.append((bases, value))
    return tuple(points)


class ChosenRate(NamedTuple):
    """The learning rate of the final runs of a layer."""

    rate: Number
    learned: bool = True
    """False: the layer learned at no rate, so that losses do not tell them apart; `rate` is the middle one."""


def choose_rates(folder: Path, sweep: Sequence[Run]) -> dict[tuple[str, int], ChosenRate]:
    """The learning rate with the lowest validation loss among the runs that learned, by layer and length.

    A run has learned if its loss is at least 2 % below the lowest of `none`; the baseline layers need not. A learning
    rate whose run diverged is never chosen.
    """
    losses = {
        run: min((loss for _, loss in validation_curve(folder / run.folder)), default=math.inf)
        for run in sweep
        if is_finished(folder / run.folder)
    }
    chosen: dict[tuple[str, int], ChosenRate] = {}
    for pair in dict.fromkeys((run.layer, run.length) for run in losses):
        own = {run.learning_rate: loss for run, loss in losses.items() if (run.layer, run.length) == pair}
        floor = [loss for run, loss in losses.items() if (run.layer, run.length) == (FLOOR, pair[1])]
        if floor and pair[0] not in BASELINE_LAYERS:
            most = (1 - LEAST_LOSS) * min(floor)
            if not (learned := {rate: loss for rate, loss in own.items() if loss <= most}):
                chosen[pair] = ChosenRate(sorted(own)[(len(own) - 1) // 2], learned=False)
                continue
            own = learned
        chosen[pair] = ChosenRate(min(own, key=lambda rate: (own[rate], rate)))
    return chosen


def read_context(file: Path) -> ContextResult | None:
    """The effective context in a file of `genoattn context`; None if there is no file."""
    if not file.is_file():
        return None
    context = json.loads(file.read_text("utf-8"))
    curve = tuple(tuple(map(float, row)) for row in context["curve"])
    return ContextResult(context["nominal"], context["effective"], curve)
