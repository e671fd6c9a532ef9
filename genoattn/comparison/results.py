"""The results of a comparison, collected from the files of its finished runs."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from genoattn.comparison.grid import Run
from genoattn.comparison.recommendation import crossover, pareto_front, recommend
from genoattn.comparison.record import (
    BASELINE_LAYERS,
    Comparison,
    ContextResult,
    Crossover,
    Environment,
    LayerCost,
    LayerResult,
    LengthResult,
    SubgroupEstimate,
    TrainingRun,
)
from genoattn.comparison.settings import ComparisonSettings, Cost, Number
from genoattn.comparison.statistics import Estimate, SeedRun, compare_layers, estimate
from genoattn.errors import UserError
from genoattn.evaluation.metrics import METRICS_FILE, REPLICATES_FILE, MetricKey, Metrics, Replicates

MODEL = "model"
"""The candidate of a run's own model in metric keys."""


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


def read_run(folder: Path) -> RunResult | None:
    """The results of a run; None if it is not finished."""
    if not (folder / METRICS_FILE).is_file():
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
    """The learning rate with the lowest validation loss among the finished runs, by layer and length."""
    best: dict[tuple[str, int], tuple[Number, Number]] = {}
    for run in sweep:
        if (folder / run.run_dir / METRICS_FILE).is_file():
            losses = [loss for _, loss in validation_curve(folder / run.run_dir)]
            attempt = (min(losses, default=math.inf), run.learning_rate)
            best[run.layer, run.length] = min(best.get((run.layer, run.length), attempt), attempt)
    return {pair: rate for pair, (_, rate) in best.items()}


def collect(
    folder: Path,
    settings: ComparisonSettings,
    environment: Environment,
    runs: Sequence[Run],
    learning_rates: Mapping[tuple[str, int], Number],
    costs: Sequence[LayerCost],
    failed: Sequence[str] = (),
) -> Comparison:
    """The comparison of a folder.

    Args:
        folder: Folder of the comparison.
        settings: Settings of the comparison.
        environment: Command, machine and versions.
        runs: Training runs, finished or not.
        learning_rates: Best of the sweep by layer and length.
        costs: Costs by layer and length.
        failed: Folders of failed runs.

    Returns:
        The record that comparison.json holds.
    """
    finished = [(run, result) for run in runs if (result := read_run(folder / run.run_dir)) is not None]
    results = []
    for length in settings.lengths:
        by_layer: dict[str, dict[int, RunResult]] = {layer: {} for layer, size in learning_rates if size == length}
        for run, result in finished:
            if (run.stage, run.length) == ("final", length):
                by_layer[run.layer][run.seed] = result
        layers = [
            LayerResult(
                layer,
                learning_rates[layer, length],
                edge(learning_rates[layer, length], settings.learning_rates),
                _metrics([*by_seed.values()]),
                tuple(_subgroups([*by_seed.values()])),
                read_context(folder / "context" / str(length) / layer / "context.json"),
                _extrapolation(folder / "longer" / str(length) / layer, length, settings, by_seed),
            )
            for layer, by_seed in by_layer.items()
        ]
        at_length = {cost.layer: cost.cost for cost in costs if cost.length == length}
        results.append(_rank(length, layers, by_layer, at_length, settings.cost_limit))
    return Comparison(
        settings,
        environment,
        str(finished[-1][1].bootstrap.primary_metric) if finished else "",
        tuple(results),
        tuple(costs),
        tuple(crossovers(costs)),
        tuple(_training_run(folder, run, result) for run, result in finished),
        tuple(failed),
    )


def edge(rate: Number, tried: Sequence[Number]) -> Literal["smallest", "largest"] | None:
    """The end of the tried learning rates that a rate is at."""
    if len(tried) < 2:
        return None
    return "largest" if rate == max(tried) else "smallest" if rate == min(tried) else None


def _training_run(folder: Path, run: Run, result: RunResult) -> TrainingRun:
    curve = validation_curve(folder / run.run_dir)
    primary = result.seed_run(result.bootstrap.primary_metric)
    return TrainingRun(
        *(run.layer, run.length, run.learning_rate, run.seed, run.stage, run.steps, run.run_dir),
        value=primary.value if primary else None,
        validation_loss=min((loss for _, loss in curve), default=None),
        train_seconds=result.metrics.costs.get("train_seconds"),
        bases=curve[-1][0] if curve else None,
        curve=curve,
    )


def _rank(
    length: int,
    layers: Sequence[LayerResult],
    by_layer: Mapping[str, Mapping[int, RunResult]],
    costs: Mapping[str, Cost],
    limit: Cost,
) -> LengthResult:
    """The layers of a length, the best first, with their differences and a recommendation."""
    scored = {
        layer: [run for result in seeds.values() if (run := result.seed_run(result.bootstrap.primary_metric))]
        for layer, seeds in by_layer.items()
    }
    scored = {layer: seed_runs for layer, seed_runs in scored.items() if seed_runs}
    if not scored:
        return LengthResult(length, tuple(layers))
    statistics = compare_layers(scored)
    points = {
        layer: (seconds, mean.mean)
        for layer, mean in statistics.estimates.items()
        if (seconds := costs.get(layer, Cost()).seconds) is not None
    }
    order = {layer: rank for rank, layer in enumerate(statistics.estimates)}
    return LengthResult(
        length,
        tuple(sorted(layers, key=lambda result: order.get(result.layer, len(order)))),
        statistics,
        tuple(pareto_front(points)),
        recommend(statistics, costs, limit, BASELINE_LAYERS) if points else None,
        _baselines([[*seeds.values()] for seeds in by_layer.values()]),
    )


def _metrics(results: Sequence[RunResult]) -> dict[str, Estimate]:
    """The metrics of a layer's own models that were resampled."""
    keys = sorted({key for result in results for key in result.bootstrap.replicates if key.candidate == MODEL})
    estimates = {str(key): _estimate(results, key) for key in keys}
    return {key: value for key, value in estimates.items() if value is not None}


def _estimate(results: Sequence[RunResult], key: MetricKey) -> Estimate | None:
    return estimate([run for result in results if (run := result.seed_run(key)) is not None])


def _baselines(layers: Sequence[Sequence[RunResult]]) -> dict[str, Estimate]:
    """The primary metric of other candidates. They do not depend on the layer: the first layer's runs are used."""
    baselines: dict[str, Estimate] = {}
    for results in layers:
        for key in dict.fromkeys(key for result in results for key in result.bootstrap.replicates):
            if key.candidate in (MODEL, *baselines) or key[1:] != results[0].bootstrap.primary_metric[1:]:
                continue
            if (value := _estimate(results, key)) is not None:
                baselines[key.candidate] = value
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


def _extrapolation(
    folder: Path, length: int, settings: ComparisonSettings, by_seed: Mapping[int, RunResult]
) -> dict[int, Estimate]:
    """The primary metric of the first seed's model by length of the test windows, from the trained length on."""
    results = {factor * length: read_run(folder / str(factor)) for factor in settings.extrapolate}
    if any(results.values()):
        results = {length: by_seed.get(settings.seeds[0]), **results}
    estimates = {at: _estimate([result], result.bootstrap.primary_metric) for at, result in results.items() if result}
    return {at: value for at, value in estimates.items() if value is not None}


def crossovers(costs: Sequence[LayerCost]) -> list[Crossover]:
    """For every ordered pair of layers, the length from which the second is cheaper, in reading and in training."""
    lengths = sorted({cost.length for cost in costs})
    layers = dict.fromkeys(cost.layer for cost in costs)
    rows = []
    for stage in ("forward", "training"):
        speeds = {
            (cost.layer, cost.length): cost.forward_bases_per_second
            if stage == "forward"
            else cost.training_bases_per_second
            for cost in costs
        }
        times = {layer: [1 / (speeds.get((layer, length)) or math.nan) for length in lengths] for layer in layers}
        for first in layers:
            for second in layers:
                length = crossover(lengths, times[first], times[second]) if first != second else None
                if length is not None:
                    rows.append(Crossover(second, first, stage, round(length)))
    return rows
