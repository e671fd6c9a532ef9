"""To be said in a sentence."""

import datetime
import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from genoattn.comparison import results as collected
from genoattn.comparison.grid import MIN_WINDOWS, ExperimentGrid, Run
from genoattn.comparison.launcher import composed, run_jobs
from genoattn.errors import UserError
from genoattn.models.build import build_model
from genoattn.models.size_matching import match_size

SIZES = ("parameters", "attention_flops", "attention_state_bytes")
"""What a plan says of a layer without measuring it."""


PRICES = {"seconds": collected.READING, "bytes": "bytes of memory in training"}
"""What `limit` bounds, in words."""


def matched(design: ExperimentGrid, by: Literal["parameters", "flops"]) -> ExperimentGrid:
    """The same design with every layer's model as large, or as costly, as the first layer's."""
    length = min(design.lengths)
    configs = {name: composed("train", design.layer_overrides(name, length)) for name in design.layers}
    segments = instantiate(next(iter(configs.values())).task).segment_count
    models = {
        name: build_model(
            instantiate(one.model), instantiate(one.attention), instantiate(one.task), instantiate(one.tokenizer), 0
        ).model
        for name, one in configs.items()
    }
    found = match_size(models, by, segments * (length + 1) - 1)
    for name, one in found.items():
        print(f"{name}: {' '.join(one.overrides) or 'as it is'}, {one.count:,} {by} ({one.relative_error:+.1%})")
    return replace(design, layers={name: (*words, *found[name].overrides) for name, words in design.layers.items()})


def measured(design: ExperimentGrid, config: DictConfig, folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """By length and layer, what `genoattn plan` measured, one after the other on a machine that does nothing else."""
    jobs = {}
    for length in sorted({*design.lengths, *config.cost_lengths}):
        for layer in design.layers:
            words = design.layer_overrides(layer, length)
            jobs[f"costs/{length}/{layer}"] = [*words, "control=null", "measure=true"]
    for place in run_jobs("plan", jobs, folder, "plan.json", launcher=False):
        print(f"{place} was not measured: see {folder / place / 'log.txt'}", file=sys.stderr)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for place in jobs:
        _, length, layer = place.split("/")
        file = folder / place / "plan.json"
        if file.is_file():
            plan = json.loads(file.read_text("utf-8"))
            sizes = {key: plan["predicted"].get(key) for key in SIZES}
            found.setdefault(length, {})[layer] = sizes | plan["measured"]
    return found


def steps(
    design: ExperimentGrid,
    budget: DictConfig,
    costs: Mapping[str, Mapping[str, Mapping[str, Any]]],
    layer: str,
    length: int,
) -> int:
    """How many steps a budget gives a layer at a length."""
    if budget.steps is not None:
        return budget.steps
    if budget.bases is not None:
        return max(1, round(budget.bases / design.bases(layer, length, lambda words: composed("train", words))))
    try:
        return max(1, round(budget.seconds / costs[str(length)][layer]["seconds_per_step"]))
    except KeyError:
        raise UserError(
            f"{layer} could not be timed at {length} bases, so that a budget of seconds cannot be kept;"
            f" see costs/{length}/{layer}/log.txt in the comparison's folder"
        ) from None


def train(folder: Path, runs: Sequence[Run]) -> list[str]:
    """Train what is not trained yet; returns the places of runs that failed."""
    return run_jobs("train", {run.run_dir: run.overrides for run in runs}, folder, "metrics.json")


def chosen_rate(folder: Path, design: ExperimentGrid, sweep: Sequence[Run], layer: str, length: int) -> float | None:
    """The learning rate of a layer at a length: the only one there is, or the sweep's best."""
    if len(design.learning_rates) == 1:
        return design.learning_rates[0]
    return collected.best_rate(folder, [run for run in sweep if (run.layer, run.length) == (layer, length)])


def probe(folder: Path, design: ExperimentGrid, final: Sequence[Run], factors: Sequence[int]) -> list[str]:
    """Effective context, and the test at longer windows, of the first seed's models."""
    ended = [run for run, _ in collected.finished(folder, final) if run.seed == design.seeds[0]]
    contexts = {
        f"context/{run.length}/{run.layer}": [f"checkpoint='{folder / run.run_dir}'", f"data.length={run.length}"]
        for run in ended
    }
    longer = {}
    for run in ended:
        for factor in factors:
            count = max(MIN_WINDOWS, round(design.windows["test.windows"] * min(design.lengths) / run.length / factor))
            words = [f"checkpoint='{folder / run.run_dir}'", f"data.length={factor * run.length}", "data.vcf=[]"]
            longer[f"longer/{run.length}/{run.layer}/{factor}"] = [*words, f"test.windows={count}"]
    return [
        *run_jobs("context", contexts, folder, "context.json"),
        *run_jobs("evaluate", longer, folder, "metrics.json"),
    ]


def gather(
    folder: Path, design: ExperimentGrid, config: DictConfig, runs: Sequence[Run],
    costs: Mapping[str, Mapping[str, Mapping[str, Any]]], chosen: Mapping[tuple[str, int], float],
) -> dict[str, Any]:  # fmt: skip
    """Everything that comparison.json holds."""
    found: dict[str, Any] = {key: {} for key in ("verdicts", "measures", "strata", "baselines")}
    headline = ""
    for length in design.lengths:
        final = [run for run in runs if run.stage == "final" and run.length == length]
        seen = collected.summarize(folder, final)
        if seen is None:
            continue
        headline = seen["headline"]
        priced = {name: cost_of_layer(one) for name, one in costs.get(str(length), {}).items()}
        limit = {PRICES[key]: value for key, value in config.cost_limit.items() if value is not None}
        found["verdicts"][str(length)] = collected.to_json(seen["verdict"], priced, limit)
        for key in ("measures", "strata", "baselines"):
            found[key][str(length)] = seen[key]
    return found | {
        "title": f"{config.name}: {', '.join(design.layers)} at {', '.join(map(str, design.lengths))} bases",
        "command": "genoattn compare " + shlex.join(HydraConfig.get().overrides.task),
        "made": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("genoattn", "torch", "lightning", "numpy")},
        "machine": f"{platform.machine()}, {platform.system()}, {torch.get_num_threads()} threads",
        "task": str(HydraConfig.get().runtime.choices["task"]),
        "headline": headline,
        "measure": {"auprc": "AUPRC", "exact": "exact match"}.get(headline.rpartition("/")[2], headline),
        "budget": dict(config.budget), "sweep": dict(config.sweep),
        "lengths": list(design.lengths), "layers": list(design.layers), "baseline_layers": ["none", "conv"],
        "seeds": list(design.seeds), "learning_rates": list(design.learning_rates), "match": config.match_size,
        "runs": collected.run_rows(folder, runs),
        "chosen": {
            str(length): {layer: rate for (layer, size), rate in chosen.items() if size == length}
            for length in design.lengths
        },
        "costs": costs,
        "crossovers": collected.crossovers(costs),
        "context": collected.contexts(folder, design),
        "extrapolation": collected.extrapolation(folder, design, list(config.extrapolate)),
    }  # fmt: skip


def cost_of_layer(costs: Mapping[str, Any]) -> dict[str, int | float]:
    """What a recommendation weighs: seconds to read a million bases, bytes of memory in training."""
    speed, peak = costs.get("forward_bases_per_second"), costs.get("training_peak_bytes")
    named = {PRICES["seconds"]: 1e6 / speed if speed else math.nan, PRICES["bytes"]: peak or math.nan}
    return {key: value for key, value in named.items() if not math.isnan(value)}
