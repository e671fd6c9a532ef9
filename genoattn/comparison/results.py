"""The results of a comparison, collected from the files of its finished runs."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from genoattn.comparison.ladder import learned
from genoattn.comparison.ladder_results import collect_ladder
from genoattn.comparison.recommendation import crossover, pareto_front, recommend
from genoattn.comparison.record import (
    BASELINE_LAYERS,
    Comparison,
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
from genoattn.comparison.run_results import (
    FLOOR,
    MODEL,
    ChosenRate,
    RunResult,
    mean_run,
    read_context,
    read_run,
    validation_curve,
)
from genoattn.comparison.settings import ComparisonSettings, Cost, Number
from genoattn.comparison.statistics import Estimate, SeedRun, compare_layers, estimate
from genoattn.evaluation.metrics import MetricKey
from genoattn.models.checkpoint import DIVERGED

LEAST_ACCURACY = 0.02
"""A run of a ladder whose accuracy is less above that of `none` has not learned."""


class Trained(NamedTuple):
    """The training runs of a comparison and the measured costs of its layers."""

    runs: Sequence[Run]
    """Finished or not; layers without a finished run in the sweep have no final run."""
    costs: Sequence[LayerCost]
    failed: Sequence[str] = ()
    """Folders of failed runs."""
    rates: Mapping[tuple[str, int], ChosenRate] = {}
    """The choices of the sweep, by layer and length."""


class Judged(NamedTuple):
    """A finished final run, its score, and if it learned."""

    run: Run
    result: RunResult
    score: SeedRun | None
    by_length: Mapping[int, SeedRun]
    learned: bool | None

    @property
    def counts(self) -> bool:
        """True if the run enters a verdict: it has a score, and learned or is of a baseline layer."""
        return self.score is not None and (self.learned is not False or self.run.layer in BASELINE_LAYERS)


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
    judged = {run: verdict for length in settings.lengths for run, verdict in judge(finished, settings, length).items()}
    results = tuple(_length_result(folder, length, settings, trained, judged) for length in settings.lengths)
    runs = tuple(_training_run(folder, run, result, judged.get(run)) for run, result in finished.items())
    return Comparison(
        settings,
        environment,
        primary_metric=next((_metric(result, settings) for result in finished.values()), ""),
        results=results,
        costs=tuple(trained.costs),
        crossovers=tuple(crossovers(trained.costs)),
        runs=runs,
        failed=tuple(trained.failed),
        diverged=tuple(
            _diverged_run(folder, run) for run in trained.runs if (folder / run.folder / DIVERGED).is_file()
        ),
        ladder=collect_ladder(folder, settings, results[-1], trained.costs, runs) if settings.ladder else None,
    )


def judge(finished: Mapping[Run, RunResult], settings: ComparisonSettings, length: int) -> dict[Run, Judged]:
    """The score of every final run of a length, and if it learned more than `none`."""
    tested = settings.tested(length)
    rungs = settings.ladder or (length,)
    curves = {
        run: result.by_length(
            result.accuracy if settings.ladder else result.bootstrap.primary_metric, run.length, tested
        )
        for run, result in finished.items()
        if (run.stage, run.length) == ("final", length)
    }
    none = {at: [curve[at] for run, curve in curves.items() if run.layer == FLOOR and at in curve] for at in rungs}
    least = LEAST_ACCURACY if settings.ladder else 0.0
    judged = {}
    for run, curve in curves.items():
        own = {at: curve[at] for at in rungs if at in curve}
        score = mean_run(own) if settings.ladder else finished[run].primary
        above = None if run.layer in BASELINE_LAYERS else learned(own, none, least=least)
        judged[run] = Judged(run, finished[run], score, curve, above)
    return judged


def _metric(result: RunResult, settings: ComparisonSettings) -> str:
    """The key of the metric that ranks the layers."""
    return str(result.accuracy._replace(test_set="ladder") if settings.ladder else result.bootstrap.primary_metric)


def _length_result(
    folder: Path, length: int, settings: ComparisonSettings, trained: Trained, judged: Mapping[Run, Judged]
) -> LengthResult:
    """The layers of a length, the best first, with their differences and a recommendation."""
    final = [run for run in trained.runs if (run.stage, run.length) == ("final", length)]
    rates = {run.layer: run.learning_rate for run in final}
    own = {layer: [judged[run] for run in final if run.layer == layer and run in judged] for layer in rates}
    estimates = {layer: _estimates([one.result for one in runs]) for layer, runs in own.items()}
    layers = [
        LayerResult(
            layer,
            rate,
            edge(rate, settings.learning_rates) if _chose(trained, layer, length) else None,
            {str(key): value for key, value in sorted(estimates[layer].items()) if key.candidate == MODEL},
            tuple(_subgroups([one.result for one in own[layer]])),
            read_context(folder / f"context/{length}/{layer}/context.json"),
            _by_length(own[layer]),
            tuple(one.run.seed for one in own[layer] if one.learned is False),
            _chose(trained, layer, length),
        )
        for layer, rate in rates.items()
    ]
    scored = {layer: [one.score for one in runs if one.counts and one.score] for layer, runs in own.items()}
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
    baselines, attention = _baselines(own, estimates), scored.keys() - {*BASELINE_LAYERS}
    ahead = _ahead(baselines, own, estimates)
    if settings.ladder:  # which ranks by another metric
        ahead = tuple(
            f"{name} (in {next(iter(judged.values())).result.bootstrap.primary_metric.metric})" for name in ahead
        )
    return LengthResult(
        length,
        tuple(sorted(layers, key=lambda result: ranked.index(result.layer))),
        statistics,
        tuple(pareto_front(points)),
        recommend(statistics, costs, settings.cost_limit, BASELINE_LAYERS, ahead) if points and attention else None,
        {} if settings.ladder else baselines,
    )


def edge(rate: Number, tried: Sequence[Number]) -> Literal["smallest", "largest"] | None:
    """The end of the tried learning rates that a rate is at."""
    if len(tried) < 2:
        return None
    return "largest" if rate == max(tried) else "smallest" if rate == min(tried) else None


def _chose(trained: Trained, layer: str, length: int) -> bool:
    """False if the sweep tells no learning rate of a layer."""
    return (layer, length) not in trained.rates or trained.rates[layer, length].learned


def _training_run(folder: Path, run: Run, result: RunResult, judged: Judged | None) -> TrainingRun:
    curve = validation_curve(folder / run.folder)
    score = judged.score if judged else result.primary
    return TrainingRun(
        *(run.layer, run.length, run.learning_rate, run.seed, run.stage, run.steps, run.folder),
        value=score.value if score else None,
        validation_loss=min((loss for _, loss in curve), default=None),
        train_seconds=result.metrics.costs.get("train_seconds"),
        bases=curve[-1][0] if curve else None,
        curve=curve,
        by_length={at: one.value for at, one in judged.by_length.items()} if judged else {},
        learned=judged.learned if judged else None,
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


def _by_length(runs: Sequence[Judged]) -> dict[int, Estimate]:
    """The score of a layer's runs by length of the test windows, if there are several."""
    lengths = dict.fromkeys(at for one in runs for at in one.by_length)
    values = {at: estimate([one.by_length[at] for one in runs if at in one.by_length]) for at in sorted(lengths)}
    return {at: value for at, value in values.items() if value is not None} if len(lengths) > 1 else {}


def _baselines(
    own: Mapping[str, Sequence[Judged]], estimates: Mapping[str, Mapping[MetricKey, Estimate]]
) -> dict[str, Estimate]:
    """The primary metric of other candidates. They do not depend on the layer: the first layer's runs are used."""
    baselines: dict[str, Estimate] = {}
    for layer, runs in own.items():
        for key, value in estimates[layer].items():
            if key.candidate != MODEL and key[1:] == runs[0].result.bootstrap.primary_metric[1:]:
                baselines.setdefault(key.candidate, value)
    return baselines


def _ahead(
    baselines: Mapping[str, Estimate],
    own: Mapping[str, Sequence[Judged]],
    estimates: Mapping[str, Mapping[MetricKey, Estimate]],
) -> tuple[str, ...]:
    """The baselines whose primary metric is above that of every layer, the best first."""
    best = max(
        (
            estimates[layer][key].mean
            for layer, runs in own.items()
            if runs and (key := runs[0].result.bootstrap.primary_metric) in estimates[layer]
        ),
        default=math.inf,
    )
    above = [name for name, baseline in baselines.items() if baseline.mean > best]
    return tuple(sorted(above, key=lambda name: -baselines[name].mean))


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
