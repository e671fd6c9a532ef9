"""The ladder of a comparison, put together from its runs, their validations and the plans of their costs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genoattn.comparison.ladder import (
    SHARES,
    Crossing,
    Ladder,
    LadderRow,
    crossing_time,
    exponent,
    median,
    solved_length,
)
from genoattn.comparison.record import LayerCost, LengthResult, TrainingRun
from genoattn.comparison.run_results import FLOOR, LADDER_METRICS, read_run, validation_curve
from genoattn.comparison.settings import ComparisonSettings, Number

PASSES = 3
"""Forward passes that cost as much as a step of training: one forward, and two for the gradients."""


def collect_ladder(
    folder: Path,
    settings: ComparisonSettings,
    result: LengthResult,
    costs: Sequence[LayerCost],
    runs: Sequence[TrainingRun],
) -> Ladder | None:
    """The measures of every layer of a ladder; None without a finished run of `none`."""
    length = result.length
    final = [run for run in runs if run.stage == "final" and run.length == length]
    floors = [run.by_length for run in final if run.layer == FLOOR]
    if not floors:
        return None
    floor = {
        at: sum(run[at] for run in floors) / len(floors) for at in settings.ladder if all(at in run for run in floors)
    }
    first = next(run for run in final if run.layer == FLOOR)
    metric = _metric(folder / first.folder)
    rows = []
    for layer in dict.fromkeys(one.layer for one in result.layers):
        own = [run for run in final if run.layer == layer]
        plan = read_plan(folder, length, layer)
        cost = next((cost for cost in costs if (cost.layer, cost.length) == (layer, length)), LayerCost(layer, length))
        rows.append(_row(folder, settings, metric, layer, own, floor, plan, cost))
    n50 = {row.layer: median(row.solved[name_of(0.5)]) for row in rows}
    slope = exponent({row.layer: row.state_bytes for row in rows}, n50)
    return Ladder(settings.ladder, metric, settings.ladder_ceiling, floor, tuple(rows), slope)


def name_of(share: float) -> str:
    """The name of a solved length: n90, n50."""
    return f"n{share:.0%}".rstrip("%")


def read_plan(folder: Path, length: int, layer: str) -> Mapping[str, Any]:
    """The plan of a layer at a length; empty if it was not measured."""
    file = folder / "costs" / str(length) / layer / "plan.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _metric(folder: Path) -> str:
    result = read_run(folder)
    assert result is not None  # the run is finished
    return result.accuracy.metric


def _row(
    folder: Path,
    settings: ComparisonSettings,
    metric: str,
    layer: str,
    runs: Sequence[TrainingRun],
    floor: Mapping[int, float],
    plan: Mapping[str, Any],
    cost: LayerCost,
) -> LadderRow:
    solved: dict[str, tuple[Crossing, ...]] = {}
    for share in SHARES:
        found = [solved_length(run.by_length, floor, settings.ladder_ceiling, share) for run in runs]
        solved[name_of(share)] = tuple(crossing for crossing in found if crossing)
    at = settings.take_off.length or settings.ladder[0]
    column = f"accuracy_{LADDER_METRICS.get(metric, metric)}_{at}"
    pairs = [(run, time) for run in runs if (time := _take_off(folder, run, column, settings.take_off.accuracy))]
    seconds = [run.train_seconds for run in runs if run.train_seconds is not None]
    tokens = max((run.bases for run in runs if run.bases is not None), default=None)
    context, flops = plan.get("predicted", {}).get("tokens"), cost.model_flops
    return LadderRow(
        layer,
        solved,
        tuple(run.seed for run in runs),
        tuple(time for _, time in pairs),
        tuple(Crossing(time.value * rate, time.censored) for run, time in pairs if (rate := _pace(run)) is not None),
        tokens,
        sum(seconds) / len(seconds) if seconds else None,
        PASSES * flops * tokens / context if flops and tokens and context else None,
        cost.attention_state_bytes,
        {int(keys): float(share) for keys, share in plan.get("letters_told", {}).items()},
    )


def _take_off(folder: Path, run: TrainingRun, column: str, level: Number) -> Crossing | None:
    return crossing_time(validation_curve(folder / run.folder, column), level)


def _pace(run: TrainingRun) -> float | None:
    """Seconds of training per base."""
    if run.train_seconds is None or not run.bases or not math.isfinite(run.train_seconds):
        return None
    return run.train_seconds / run.bases
