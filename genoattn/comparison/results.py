"""The results of a comparison, collected from the files of its finished runs."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from genoattn.comparison.recommendation import crossover, pareto_front, recommend
from genoattn.comparison.record import (
    BASELINE_LAYERS,
    Comparison,
    ContextResult,
    Crossover,
    DivergedRun,
    Environment,
    LayerCost,
    LayerResult,
    LengthResult,
    Run,
    SubgroupEstimate,
    TrainingRun,
)
from genoattn.comparison.settings import ComparisonSettings, Cost, Number
from genoattn.comparison.statistics import Estimate, SeedRun, compare_layers, estimate
from genoattn.errors import UserError
from genoattn.evaluation.metrics import METRICS_FILE, REPLICATES_FILE, MetricKey, Metrics, Replicates
from genoattn.models.checkpoint import DIVERGED

MODEL = "model"
"""The candidate of a run's own model in metric keys."""


class Trained(NamedTuple):
    """The training runs of a comparison and the measured costs of its layers."""

    runs: Sequence[Run]
    """Finished or not; layers without a finished run in the sweep have no final run."""
    costs: Sequence[LayerCost]
    failed: Sequence[str] = ()
    """Folders of failed runs."""


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


def validation_curve(folder: Path) -> tuple[tuple[float, float], ...]:
    """Bases seen and validation loss at every validation of a run, from its metrics.csv."""
    points, bases = [], 0.0
    with (folder / "metrics.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            bases = float(row.get("bases_seen") or bases)
            loss = float(row.get("validation/loss") or math.nan)
            if math.isfinite(loss):
                points.append((bases, loss))
    return tuple(points)


def best_learning_rates(folder: Path, sweep: Sequence[Run]) -> dict[tuple[str, int], Number]:
    """The learning rate with the lowest validation loss among the finished runs, by layer and length.

    A learning rate whose run diverged is never the best.
    """
    finished = [run for run in sweep if is_finished(folder / run.folder)]

    def rank(run: Run) -> tuple[Number, Number]:
        return min((loss for _, loss in validation_curve(folder / run.folder)), default=math.inf), run.learning_rate

    worst_first = sorted(finished, key=rank, reverse=True)
    return {(run.layer, run.length): run.learning_rate for run in worst_first}  # the last value of a key stays


def collect(folder: Path, settings: ComparisonSettings, environment: Environment, trained: Trained) -> Comparison:
    """The comparison of a folder.

    Args:
        folder: Folder of the comparison.
        settings: Settings of the comparison.
        environment: Command, machine and versions.
        trained: The training runs and the costs of the layers.

    Returns:
        The record that comparison.json holds.
    """
    finished = {run: result for run in trained.runs if (result := read_run(folder / run.folder)) is not None}
    return Comparison(
        settings,
        environment,
        primary_metric=str(next((result.bootstrap.primary_metric for result in finished.values()), "")),
        results=tuple(_length_result(folder, length, settings, trained, finished) for length in settings.lengths),
        costs=tuple(trained.costs),
        crossovers=tuple(crossovers(trained.costs)),
        runs=tuple(_training_run(folder, run, result) for run, result in finished.items()),
        failed=tuple(trained.failed),
        diverged=tuple(
            _diverged_run(folder, run) for run in trained.runs if (folder / run.folder / DIVERGED).is_file()
        ),
    )


def _length_result(
    folder: Path, length: int, settings: ComparisonSettings, trained: Trained, finished: Mapping[Run, RunResult]
) -> LengthResult:
    """The layers of a length, the best first, with their differences and a recommendation."""
    final = [run for run in trained.runs if (run.stage, run.length) == ("final", length)]
    rates = {run.layer: run.learning_rate for run in final}
    first = {run.layer: finished.get(run) for run in final if run.seed == settings.seeds[0]}
    by_layer = {layer: [finished[run] for run in final if run.layer == layer and run in finished] for layer in rates}
    estimates = {layer: _estimates(results) for layer, results in by_layer.items()}
    layers = [
        LayerResult(
            layer,
            rate,
            edge(rate, settings.learning_rates),
            {str(key): value for key, value in sorted(estimates[layer].items()) if key.candidate == MODEL},
            tuple(_subgroups(by_layer[layer])),
            read_context(folder / f"context/{length}/{layer}/context.json"),
            _extrapolation(folder / f"longer/{length}/{layer}", length, settings.extrapolate, first[layer]),
        )
        for layer, rate in rates.items()
    ]
    scored = {layer: [run for result in results if (run := result.primary)] for layer, results in by_layer.items()}
    scored = {layer: runs for layer, runs in scored.items() if runs}
    if not scored:
        return LengthResult(length, tuple(layers))
    statistics = compare_layers(scored)
    costs = {cost.layer: cost.cost for cost in trained.costs if cost.length == length}
    points = {
        layer: (seconds, estimate.mean)
        for layer, estimate in statistics.estimates.items()
        if (seconds := costs.get(layer, Cost()).seconds) is not None
    }
    ranked = [*statistics.estimates, *rates]
    return LengthResult(
        length,
        tuple(sorted(layers, key=lambda result: ranked.index(result.layer))),
        statistics,
        tuple(pareto_front(points)),
        recommend(statistics, costs, settings.cost_limit, BASELINE_LAYERS) if points else None,
        _baselines(by_layer, estimates),
    )


def edge(rate: Number, tried: Sequence[Number]) -> Literal["smallest", "largest"] | None:
    """The end of the tried learning rates that a rate is at."""
    if len(tried) < 2:
        return None
    return "largest" if rate == max(tried) else "smallest" if rate == min(tried) else None


def _training_run(folder: Path, run: Run, result: RunResult) -> TrainingRun:
    curve = validation_curve(folder / run.folder)
    return TrainingRun(
        *(run.layer, run.length, run.learning_rate, run.seed, run.stage, run.steps, run.folder),
        value=result.primary.value if result.primary else None,
        validation_loss=min((loss for _, loss in curve), default=None),
        train_seconds=result.metrics.costs.get("train_seconds"),
        bases=curve[-1][0] if curve else None,
        curve=curve,
    )


def _diverged_run(folder: Path, run: Run) -> DivergedRun:
    try:
        at_step = int(json.loads((folder / run.folder / DIVERGED).read_text("utf-8"))["step"])
    except (ValueError, KeyError, TypeError):
        at_step = None
    return DivergedRun(
        run.layer, run.length, run.learning_rate, run.seed, run.stage, run.steps, run.folder, at_step=at_step
    )


def _estimates(results: Sequence[RunResult]) -> dict[MetricKey, Estimate]:
    """All resampled metrics of a layer's runs."""
    keys = dict.fromkeys(key for result in results for key in result.bootstrap.replicates)
    values = {key: estimate([run for result in results if (run := result.seed_run(key))]) for key in keys}
    return {key: value for key, value in values.items() if value is not None}


def _baselines(
    by_layer: Mapping[str, Sequence[RunResult]], estimates: Mapping[str, Mapping[MetricKey, Estimate]]
) -> dict[str, Estimate]:
    """The primary metric of other candidates. They do not depend on the layer: the first layer's runs are used."""
    baselines: dict[str, Estimate] = {}
    for layer, results in by_layer.items():
        for key, value in estimates[layer].items():
            if key.candidate != MODEL and key[1:] == results[0].bootstrap.primary_metric[1:]:
                baselines.setdefault(key.candidate, value)
    return baselines


def _subgroups(results: Sequence[RunResult]) -> Iterable[SubgroupEstimate]:
    for first in results[0].bootstrap.subgroups if results else ():
        same = [
            group
            for result in results
            for group in result.bootstrap.subgroups
            if (group.by, group.name, group.kind) == (first.by, first.name, first.kind) and not math.isnan(group.value)
        ]
        value = estimate([SeedRun(group.value, np.array(group.replicates)) for group in same])
        if value is not None:
            yield SubgroupEstimate(first.by, first.name, first.kind, first.low, first.high, first.count, value)


def read_context(file: Path) -> ContextResult | None:
    """The effective context in a file of `genoattn context`; None if there is no file."""
    if not file.is_file():
        return None
    context = json.loads(file.read_text("utf-8"))
    curve = tuple(tuple(map(float, row)) for row in context["curve"])
    return ContextResult(context["nominal"], context["effective"], curve)


def _extrapolation(folder: Path, length: int, factors: Sequence[int], trained: RunResult | None) -> dict[int, Estimate]:
    """The primary metric of the first seed's model by length of the test windows, from the trained length on."""
    results = {factor * length: read_run(folder / str(factor)) for factor in factors}
    if any(results.values()):
        results = {length: trained, **results}
    runs = {at: result.primary for at, result in results.items() if result}
    return {at: value for at, run in runs.items() if run and (value := estimate([run])) is not None}


def crossovers(costs: Sequence[LayerCost]) -> list[Crossover]:
    """For every ordered pair of layers, the length from which the second is cheaper, in reading and in training."""
    lengths = sorted({cost.length for cost in costs})
    layers = dict.fromkeys(cost.layer for cost in costs)
    rows = []
    for stage in ("forward", "training"):
        speed = attrgetter(f"{stage}_bases_per_second")
        speeds = {(cost.layer, cost.length): speed(cost) for cost in costs}
        times = {layer: [1 / (speeds.get((layer, length)) or math.nan) for length in lengths] for layer in layers}
        for first, second in permutations(layers, 2):
            if (length := crossover(lengths, times[first], times[second])) is not None:
                rows.append(Crossover(second, first, stage, round(length)))
    return rows
