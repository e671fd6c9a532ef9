"""What the finished runs of a comparison say, put together: the plain values of comparison.json."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genoattn.comparison.grid import BASELINES, ExperimentGrid, Run
from genoattn.comparison.recommendation import crossover, describe_groups, pareto_front, recommend
from genoattn.comparison.statistics import Estimate, LayerComparison, SeedRun, compare_layers
from genoattn.evaluation.metrics import REPLICATES_FILE

READING = "seconds to read a million bases"
"""The cost against which the front of quality is drawn."""


COSTS = {"forward": ("forward_bases_per_second", "to read"), "training": ("training_bases_per_second", "to train on")}


def finished(folder: Path, runs: Iterable[Run]) -> list[tuple[Run, dict[str, Any]]]:
    """The runs that have ended well, with their figures."""
    found = []
    for run in runs:
        file = folder / run.run_dir / "metrics.json"
        if file.is_file():
            found.append((run, json.loads(file.read_text("utf-8"))))
    return found


def curve(folder: Path) -> list[tuple[float, float]]:
    """Bases seen and validation loss at every validation of a run."""
    points, seen = [], 0.0
    with (folder / "metrics.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            seen = float(row.get("bases_seen") or seen)
            if row.get("validation/loss"):
                points.append((seen, float(row["validation/loss"])))
    return points


def best_rate(folder: Path, runs: Sequence[Run]) -> float | None:
    """The learning rate of the lowest validation loss among finished runs of a sweep; None where there is none."""
    lowest = {
        run.learning_rate: min(
            (loss for _, loss in curve(folder / run.run_dir) if not math.isnan(loss)), default=math.inf
        )
        for run, _ in finished(folder, runs)
    }
    return min(lowest, key=lambda rate: (lowest[rate], rate)) if lowest else None


def run_rows(folder: Path, runs: Iterable[Run]) -> list[dict[str, Any]]:
    """A row for each finished run."""
    rows = []
    for run, figures in finished(folder, runs):
        points = curve(folder / run.run_dir)
        rows.append(
            {
                "layer": run.layer, "length": run.length, "lr": run.learning_rate, "seed": run.seed, "stage": run.stage,
                "folder": run.run_dir, "steps": run.steps,
                "value": figures.get(_evidence(folder / run.run_dir)["primary_metric"]),
                "validation_loss": min((loss for _, loss in points), default=None),
                "train_seconds": figures.get("cost/train_seconds"), "bases": points[-1][0] if points else None,
                "peak_bytes": figures.get("cost/peak_bytes"), "curve": points,
            }
        )  # fmt: skip
    return rows


def summarize(folder: Path, runs: Sequence[Run]) -> dict[str, Any] | None:
    """Verdict, other figures, strata and baselines of the final runs at one length; None where none has ended."""
    by_layer: dict[str, list[tuple[dict, dict]]] = {}
    for run, figures in finished(folder, runs):
        by_layer.setdefault(run.layer, []).append((figures, _evidence(folder / run.run_dir)))
    if not by_layer:
        return None
    headline = next(iter(by_layer.values()))[0][1]["primary_metric"]
    verdict = compare_layers({name: [_seeded(one, headline) for one in some] for name, some in by_layer.items()})
    keys = sorted({key for some in by_layer.values() for _, seen in some for key in seen["replicates"]})
    own = [key for key in keys if key.startswith("model/")]
    measures = {name: {key: _told(_estimate(some, key)) for key in own} for name, some in by_layer.items()}
    shared = headline.removeprefix("model")
    rivals = {key.partition("/")[0]: key for key in keys if key.endswith(shared) and key != headline}
    baselines = {name: _told(_rival(by_layer, key)) for name, key in rivals.items()}
    return {
        "headline": headline, "verdict": verdict, "measures": measures, "baselines": baselines,
        "strata": {name: _strata([seen for _, seen in some]) for name, some in by_layer.items()},
    }  # fmt: skip


def to_json(
    verdict: LayerComparison, costs: Mapping[str, Mapping[str, int | float]], limit: Mapping[str, int | float]
) -> dict[str, Any]:
    """A verdict as plain values, with its words, the quality–cost front and a recommendation.

    `costs` are by layer and name, of which `READING` is one.
    """
    points = {
        name: (costs[name][READING], one.mean)
        for name, one in verdict.estimates.items()
        if READING in costs.get(name, {})
    }
    return {
        "estimates": {name: _told(one) for name, one in verdict.estimates.items()},
        "differences": [one._asdict() for one in verdict.differences],
        "groups": [list(group) for group in verdict.groups],
        "words": describe_groups(verdict),
        "front": pareto_front(points),
        "recommendation": recommend(verdict, costs, limit, BASELINES)._asdict() if points else None,
    }


def crossovers(costs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """For every pair of layers, the length from which on one is cheaper than the other, reading and in training."""
    lengths = sorted(costs, key=int)
    names = list(dict.fromkeys(name for length in lengths for name in costs[length]))
    found = []
    for key, what in COSTS.values():
        slow = {name: [1 / costs[length].get(name, {}).get(key, math.nan) for length in lengths] for name in names}
        for one in names:
            for other in names:
                at = crossover([float(length) for length in lengths], slow[one], slow[other]) if one != other else None
                if at is not None and at.length is not None:
                    found.append({"cheaper": other, "than": one, "what": what, "length": round(at.length)})
    return found


def _evidence(folder: Path) -> dict[str, Any]:
    return json.loads((folder / REPLICATES_FILE).read_text("utf-8"))


def _seeded(one: tuple[dict, dict], key: str) -> SeedRun:
    figures, seen = one
    value = figures.get(key)
    draws = np.array([math.nan if draw is None else draw for draw in seen["replicates"][key]])
    return SeedRun(math.nan if value is None else value, draws)


def _estimate(some: Sequence[tuple[dict, dict]], key: str) -> Estimate | None:
    usable = [one for one in some if key in one[1]["replicates"] and one[0].get(key) is not None]
    return _alone([_seeded(one, key) for one in usable])


def _alone(runs: Sequence[SeedRun]) -> Estimate | None:
    """The estimate of one layer; None where there is nothing to resample."""
    if not runs or np.isfinite(np.stack([run.replicates for run in runs])).all(0).sum() < 2:
        return None
    return compare_layers({"": runs}).estimates[""]


def _rival(by_layer: Mapping[str, Sequence[tuple[dict, dict]]], key: str) -> Estimate | None:
    """What stands beside the layers does not hang on the layer but for its seed: the first layer's runs tell it."""
    usable = ([one for one in some if key in one[1]["replicates"]] for some in by_layer.values())
    return next((found for some in usable if (found := _estimate(some, key))), None)


def _strata(seen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for first in seen[0]["subgroups"]:
        name = tuple(first[key] for key in ("by", "name", "kind"))
        same = [
            one for run in seen for one in run["subgroups"] if tuple(one[key] for key in ("by", "name", "kind")) == name
        ]
        runs = [
            SeedRun(one["value"], np.array([math.nan if draw is None else draw for draw in one["replicates"]]))
            for one in same
            if one["value"] is not None
        ]
        found = _alone(runs)
        if found is not None:
            kept = {key: first[key] for key in ("by", "name", "kind", "low", "high", "count")}
            rows.append(kept | {"mean": found.mean, "ci_low": found.low, "ci_high": found.high})
    return rows


def _told(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else {**found._asdict(), "values": list(found.values)}


def contexts(folder: Path, design: ExperimentGrid) -> dict[str, dict[str, Any]]:
    """By length and layer, what `genoattn context` found."""
    found: dict[str, dict[str, Any]] = {}
    for length in design.lengths:
        for layer in design.layers:
            file = folder / "context" / str(length) / layer / "context.json"
            if file.is_file():
                found.setdefault(str(length), {})[layer] = json.loads(file.read_text("utf-8"))
    return found


def extrapolation(
    folder: Path, design: ExperimentGrid, factors: Sequence[int]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By length trained at and layer, the headline of the first seed's model at longer windows; blocks alone vary."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for length in design.lengths:
        for layer in design.layers:
            for factor in factors:
                place = folder / "longer" / str(length) / layer / str(factor)
                if not (place / "metrics.json").is_file():
                    continue
                seen = _evidence(place)
                figures = json.loads((place / "metrics.json").read_text("utf-8"))
                one = _told(_estimate([(figures, seen)], seen["primary_metric"]))
                if one is not None:
                    row = {"length": factor * length, **{key: one[key] for key in ("mean", "low", "high")}}
                    found.setdefault(str(length), {}).setdefault(layer, []).append(row)
    return found
