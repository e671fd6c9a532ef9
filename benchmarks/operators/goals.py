"""Goals for the speed of the layers, and the comparison of measurements with them."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks.operators.measure_operator import BIDIRECTIONAL, BOTH, CAUSAL, FORWARD, OURS

NOISE = 1.1
"""A goal that is missed by less than this factor counts as reached, because measurements vary by as much."""
KIB = 1024


class Ratio(NamedTuple):
    """Goal: our operator is at least `least` times as fast as another; `aim` is the desired factor."""

    layer: str
    kind: str
    length: int
    mode: str
    over: str
    least: float
    aim: float | None = None


class Growth(NamedTuple):
    """Goal: our time per token grows at most by the factor `most` between two lengths."""

    layer: str
    mode: str
    short: int
    long: int
    most: float


class GoalResult(NamedTuple):
    """A goal in words, its limit, the measured factor (None: not measured), and the outcome in words."""

    goal: str
    limit: str
    aim: str
    measured: float | None
    outcome: str


RATIOS = (
    Ratio("full", BIDIRECTIONAL, 16 * KIB, FORWARD, "torch SDPA", 1.0),
    Ratio("full", BIDIRECTIONAL, 16 * KIB, BOTH, "torch SDPA", 1.0),
    Ratio("window", BIDIRECTIONAL, 64 * KIB, FORWARD, "local-attention", 4.5, 8),
    Ratio("window", BIDIRECTIONAL, 64 * KIB, FORWARD, "Longformer", 8, 15),
    Ratio("window", BIDIRECTIONAL, 64 * KIB, BOTH, "local-attention", 2.1, 3.5),
    Ratio("window", BIDIRECTIONAL, 64 * KIB, BOTH, "Longformer", 7, 12),
    Ratio("linear", BIDIRECTIONAL, 64 * KIB, FORWARD, "linear-attention-transformer", 1.2, 2),
    Ratio("linear", BIDIRECTIONAL, 64 * KIB, FORWARD, "performer-relu", 9, 15),
    Ratio("linear", BIDIRECTIONAL, 64 * KIB, BOTH, "linear-attention-transformer", 1.2),
    Ratio("linear", BIDIRECTIONAL, 64 * KIB, BOTH, "performer-relu", 1.0),
    Ratio("linear", CAUSAL, 64 * KIB, FORWARD, "linear-attention-transformer", 2.0, 2.5),
    Ratio("linear", CAUSAL, 16 * KIB, FORWARD, "linear-attention-transformer", 1.0),
    Ratio("linear", CAUSAL, 4 * KIB, FORWARD, "linear-attention-transformer", 1.0),
    Ratio("hierarchical", BIDIRECTIONAL, 64 * KIB, FORWARD, "h-transformer-1d", 1.6, 1.8),
    Ratio("hierarchical", BIDIRECTIONAL, 16 * KIB, FORWARD, "h-transformer-1d", 1.0),
    Ratio("hierarchical", BIDIRECTIONAL, 4 * KIB, FORWARD, "h-transformer-1d", 1.0),
    Ratio("hierarchical", BIDIRECTIONAL, 64 * KIB, BOTH, "h-transformer-1d", 1.4, 1.8),
)
GROWTHS = (
    Growth("sparse", BOTH, 16 * KIB, 64 * KIB, 1.3),
    Growth("window", FORWARD, 16 * KIB, 1024 * KIB, 1.3),
    Growth("linear", FORWARD, 16 * KIB, 1024 * KIB, 1.3),
    Growth("delta", FORWARD, 16 * KIB, 1024 * KIB, 1.3),
    Growth("hierarchical", FORWARD, 16 * KIB, 1024 * KIB, 1.7),
)


def short(length: int) -> str:
    """Length in words, for example 16k for 16384."""
    return f"{length >> 20}M" if length % 2**20 == 0 else f"{length >> 10}k" if length % 2**10 == 0 else str(length)


def goal_results(rows: Iterable[Mapping[str, Any]], heads: str) -> list[GoalResult]:
    """Result of every goal, for one shape of heads."""
    least = {
        (row["layer"], row["kind"], row["length"], row["mode"], row["operator"]): row["least"]
        for row in rows
        if row["heads"] == heads and row["status"] == "measured"
    }
    results = []
    for goal in RATIOS:
        case = goal.layer, goal.kind, goal.length, goal.mode
        ours, theirs = least.get((*case, OURS)), least.get((*case, goal.over))
        measured = None if ours is None or theirs is None else theirs / ours
        words = f"{goal.layer}, {goal.kind}, {short(goal.length)}, {goal.mode}: faster than {goal.over}"
        aim = "" if goal.aim is None else f"{goal.aim:g}×"
        results.append(GoalResult(words, f"≥ {goal.least:g}×", aim, measured, at_least(measured, goal.least, goal.aim)))
    for goal in GROWTHS:
        for kind in (BIDIRECTIONAL, CAUSAL):
            ends = [least.get((goal.layer, kind, at, goal.mode, OURS)) for at in (goal.short, goal.long)]
            before, after = ends
            measured = None if before is None or after is None else after / goal.long / (before / goal.short)
            words = f"{goal.layer}, {kind}, {goal.mode}: time per token at {short(goal.long)} over {short(goal.short)}"
            results.append(GoalResult(words, f"≤ {goal.most:g}×", "", measured, at_most(measured, goal.most)))
    return results


def at_least(measured: float | None, limit: float, aim: float | None = None) -> str:
    """Outcome of a goal with a lower limit."""
    if measured is None:
        return "not measured"
    if aim is not None and measured >= aim:
        return "aim reached"
    if measured >= limit:
        return "reached"
    return "reached, within noise" if measured * NOISE >= limit else f"short by {1 - measured / limit:.0%}"


def at_most(measured: float | None, limit: float) -> str:
    """Outcome of a goal with an upper limit."""
    if measured is None:
        return "not measured"
    if measured <= limit:
        return "reached"
    return "reached, within noise" if measured <= limit * NOISE else f"over by {measured / limit - 1:.0%}"
