"""The stages of a comparison: measure costs, sweep learning rates, train the final runs, probe their models."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal, TypeAlias

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from genoattn.comparison.composition import compose_run
from genoattn.comparison.grid import ExperimentGrid, PlannedRun
from genoattn.comparison.launcher import duration, run_jobs
from genoattn.comparison.record import LayerCost, Run
from genoattn.comparison.results import Trained
from genoattn.comparison.run_folders import Again
from genoattn.comparison.run_results import ChosenRate, choose_rates, is_finished
from genoattn.comparison.settings import Budget, ComparisonSettings, Number
from genoattn.config.overrides import override, quote
from genoattn.errors import UserError
from genoattn.evaluation.metrics import METRICS_FILE
from genoattn.models.build import build_model
from genoattn.models.size_matching import match_size

Timings: TypeAlias = Mapping[tuple[str, int], Number | None]
"""Seconds of a training step by layer and length; None: not known."""

START_SECONDS = 10
"""Rough duration of the start and the test of a run, added to its training in estimates of time."""


def match_sizes(grid: ExperimentGrid, by: Literal["parameters", "flops"]) -> ExperimentGrid:
    """The same grid, with every model as large, or as expensive, as that of the first layer."""
    length = min(grid.lengths)
    configs = {name: compose_run("train", grid.layer_overrides(name, length)) for name in grid.layers}
    task = instantiate(next(iter(configs.values())).task)
    models = {
        name: build_model(
            *(instantiate(config[key]) for key in ("model", "attention", "task", "tokenizer")),
            seed=0,
        ).model
        for name, config in configs.items()
    }
    matches = match_size(models, by, task.context_tokens(length))
    for name, match in matches.items():
        print(f"{name}: {' '.join(match.overrides) or 'unchanged'}, {match.count:,} {by} ({match.relative_error:+.1%})")
    layers = {name: (*words, *matches[name].overrides) for name, words in grid.layers.items()}
    return replace(grid, layers=layers)


def run_comparison(folder: Path, grid: ExperimentGrid, settings: ComparisonSettings, again: Again = False) -> Trained:
    """Make every run of a comparison that is not complete.

    Args:
        folder: Folder of the comparison, where complete runs are found and others are made.
        grid: Layers, lengths and overrides.
        settings: Settings of the comparison.
        again: Complete runs that are made again: all, or those of some stages or folders.

    Returns:
        The training runs and the measured costs.

    Raises:
        UserError: A budget of seconds needs the time of a layer that could not be measured.
    """
    costs = measure_costs(folder, grid, settings.cost_lengths, again, settings.ladder)
    timings = {(cost.layer, cost.length): cost.seconds_per_step for cost in costs}
    pairs = [(layer, length) for length in grid.lengths for layer in grid.layers]
    rates, seeds = settings.learning_rates, settings.seeds
    steps = {pair: _steps(grid, settings.budget, timings, *pair) for pair in pairs}
    sweep = [
        grid.run(*pair, rate, seeds[0], "sweep", _steps(grid, settings.sweep, timings, *pair))
        for pair in pairs
        for rate in rates
        if len(rates) > 1
    ]

    def final_runs(best: Mapping[tuple[str, int], ChosenRate]) -> list[PlannedRun]:
        chosen = {pair: best[pair].rate for pair in pairs if pair in best}
        return [grid.run(*pair, rate, seed, "final", steps[pair]) for pair, rate in chosen.items() for seed in seeds]

    first: Mapping[tuple[str, int], ChosenRate] = dict.fromkeys(pairs, ChosenRate(settings.learning_rates[0]))
    estimates = [
        f"{len(runs)} {name} {duration(sum(_duration(run, timings) for run in runs))}"
        for name, runs in (("runs of the sweep", sweep), ("final runs", final_runs(first)))
    ]
    print(f"estimated time, one run after the other: {', '.join(estimates)}", flush=True)
    failed = _train(folder, sweep, timings, again)
    rates = choose_rates(folder, sweep) if sweep else first
    final = final_runs(rates)
    failed += _train(folder, final, timings, again)
    failed += _probe(folder, final, settings, again)
    return Trained([*sweep, *final], costs, failed, rates)


def measure_costs(
    folder: Path,
    grid: ExperimentGrid,
    cost_lengths: Sequence[int] = (),
    again: Again = False,
    keys: Sequence[int] = (),
) -> tuple[LayerCost, ...]:
    """The costs of every layer by `genoattn plan`, one layer after the other so that they do not share the machine.

    The plans hold the capacity of a layer for each of the numbers of `keys` too.
    """
    asked = [f"capacity={list(keys)}".replace(" ", "")] if keys else []
    jobs = {
        f"costs/{length}/{layer}": [*grid.layer_overrides(layer, length), "control=null", "measure=true", *asked]
        for length in sorted({*grid.lengths, *cost_lengths})
        for layer in grid.layers
    }
    print(f"measuring the cost of {len(jobs)} layers and lengths, about 30 s each")
    for place in run_jobs("plan", jobs, folder, "plan.json", launcher=False, again=again):
        print(f"{place} was not measured: see {folder / place / 'log.txt'}", file=sys.stderr)
    names = {field.name for field in fields(LayerCost)} - {"layer", "length"}
    costs = []
    for place in jobs:
        if (folder / place / "plan.json").is_file():
            plan = json.loads((folder / place / "plan.json").read_text("utf-8"))
            amounts = {key: value for key, value in (plan["predicted"] | plan["measured"]).items() if key in names}
            _, length, layer = place.split("/")
            costs.append(LayerCost(layer, int(length), **amounts))
    return tuple(costs)


def _steps(grid: ExperimentGrid, budget: Budget, timings: Timings, layer: str, length: int) -> int:
    """Training steps that a budget gives a layer at a length."""
    if budget.steps is not None:
        return budget.steps
    if budget.bases is not None:
        return max(1, round(budget.bases / grid.bases_per_step(length)))
    seconds = timings.get((layer, length))
    if seconds is None or budget.seconds is None:
        raise UserError(
            f"{layer} could not be timed at {length} bases, so a budget of seconds cannot be turned into steps; see"
            f" costs/{length}/{layer}/log.txt in the comparison's folder"
        )
    return max(1, round(budget.seconds / seconds))


def _duration(run: Run, timings: Timings) -> Number:
    """Expected seconds of a run."""
    return START_SECONDS + run.steps * (timings.get((run.layer, run.length)) or 0.0)


def _train(folder: Path, runs: Sequence[PlannedRun], timings: Timings, again: Again) -> list[str]:
    jobs = {run.folder: run.overrides for run in runs}
    work = {run.folder: _duration(run, timings) for run in runs}
    return run_jobs("train", jobs, folder, METRICS_FILE, work=work, again=again)


def _probe(folder: Path, final: Sequence[PlannedRun], settings: ComparisonSettings, again: Again) -> list[str]:
    """The effective context of the first seed's models."""
    contexts = {}
    for run in final:
        if run.seed != settings.seeds[0] or not is_finished(folder / run.folder):
            continue
        checkpoint, config = f"checkpoint={quote(folder / run.folder)}", compose_run("train", run.overrides)
        trust = f"trust=[{','.join(_other_packages(config))}]"
        keys = ("fasta", "max_leak", "soft_mask", "max_n_fraction", "cache")
        data = [override(f"data.{key}", config.data[key]) for key in keys]
        contexts[f"context/{run.length}/{run.layer}"] = [checkpoint, trust, *data, f"data.length={run.length}"]
    return run_jobs("context", contexts, folder, "context.json", again=again)


def _other_packages(config: DictConfig) -> list[str]:
    """The packages besides genoattn that the user's own config names for a model, so that its run may open it again."""
    nodes = OmegaConf.to_yaml(OmegaConf.masked_copy(config, ["attention", "model", "task", "tokenizer"]))
    return sorted(set(re.findall(r"_target_: (\w+)", nodes)) - {"genoattn"})
