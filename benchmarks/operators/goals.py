"""What the layers are to reach, and whether they do."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks.operators.measure_operator import BIDIRECTIONAL, BOTH, CAUSAL, FORWARD, OURS

NOISE = 1.1
"""What is missed by less than this factor counts as reached: a machine measures itself no better."""
KIB = 1024


class Ratio(NamedTuple):
    """Ours is to be `least` times as fast as another, and better `aim` times."""

    layer: str
    kind: str
    length: int
    mode: str
    over: str
    least: float
    aim: float | None = None


class Growth(NamedTuple):
    """Our time per token is to grow at most by `most` between two lengths."""

    layer: str
    mode: str
    short: int
    long: int
    most: float


class Verdict(NamedTuple):
    """A goal, what was got, and how that compares; `got` is None where it was not measured."""

    what: str
    asked: str
    aim: str
    got: float | None
    word: str


RATIOS = (
    Ratio("full", BIDIRECTIONAL, 16 * KIB, FORWARD, "torch SDPA", 1.0),
    Ratio("full", BIDIRECTIONAL, 16 * KIB, BOTH, "torch SDPA", 1.0),
    Ratio("window", BIDIRECTIONAL, 64 * KIB, FORWARD, "local-attention", 4.5, 8),
    Ratio("window", BIDIRECTIONAL, 64 * KIB, FORWARD, "Longformer", 8, 15),
    Ratio("window", BIDIRECTIONAL, 64 * KIB, BOTH, "local-attention", 2.1, 3.5),
    Ratio("window", BIDIRECTIONAL, 64 * KIB, BOTH, "Longformer", 7, 12),
    Ratio("linear", BIDIRECTIONAL, 64 * KIB, FORWARD, "linear-attention-transformer", 1.2, 2),
    Ratio("linear", BIDIRECTIONAL, 64 * KIB, FORWARD, "performer-relu", 9, 15),
    Ratio("linear", BIDIRECTIONAL, 64 * KIB, BOTH, "linear-attention-transformer", 1.0),
    Ratio("linear", BIDIRECTIONAL, 64 * KIB, BOTH, "performer-relu", 1.0),
    Ratio("linear", CAUSAL, 64 * KIB, FORWARD, "linear-attention-transformer", 1.5, 2),
    Ratio("hierarchical", BIDIRECTIONAL, 64 * KIB, FORWARD, "h-transformer-1d", 1.0, 1.8),
    Ratio("hierarchical", BIDIRECTIONAL, 64 * KIB, BOTH, "h-transformer-1d", 1.0, 1.8),
)
GROWTHS = (
    Growth("sparse", BOTH, 16 * KIB, 64 * KIB, 1.3),
    Growth("window", FORWARD, 16 * KIB, 1024 * KIB, 1.3),
    Growth("linear", FORWARD, 16 * KIB, 1024 * KIB, 1.3),
    Growth("delta", FORWARD, 16 * KIB, 1024 * KIB, 1.3),
    Growth("hierarchical", FORWARD, 16 * KIB, 1024 * KIB, 1.7),
)


def short(length: int) -> str:
    """16k, of 16384."""
    return f"{length >> 20}M" if length % 2**20 == 0 else f"{length >> 10}k" if length % 2**10 == 0 else str(length)


def verdicts(rows: Iterable[Mapping[str, Any]], heads: str) -> list[Verdict]:
    """One of every goal, for one shape of heads."""
    least = {
        (row["layer"], row["kind"], row["length"], row["mode"], row["operator"]): row["least"]
        for row in rows
        if row["heads"] == heads and row["status"] == "measured"
    }
    found = []
    for goal in RATIOS:
        case = goal.layer, goal.kind, goal.length, goal.mode
        ours, theirs = least.get((*case, OURS)), least.get((*case, goal.over))
        got = None if ours is None or theirs is None else theirs / ours
        what = f"{goal.layer}, {goal.kind}, {short(goal.length)}, {goal.mode}: faster than {goal.over}"
        aim = "" if goal.aim is None else f"{goal.aim:g}×"
        found.append(Verdict(what, f"≥ {goal.least:g}×", aim, got, at_least(got, goal.least, goal.aim)))
    for goal in GROWTHS:
        for kind in (BIDIRECTIONAL, CAUSAL):
            ends = [least.get((goal.layer, kind, at, goal.mode, OURS)) for at in (goal.short, goal.long)]
            before, after = ends
            got = None if before is None or after is None else after / goal.long / (before / goal.short)
            what = f"{goal.layer}, {kind}, {goal.mode}: time per token at {short(goal.long)} over {short(goal.short)}"
            found.append(Verdict(what, f"≤ {goal.most:g}×", "", got, at_most(got, goal.most)))
    return found


def at_least(got: float | None, asked: float, aim: float | None = None) -> str:
    """A word on a figure that should be large."""
    if got is None:
        return "not measured"
    if aim is not None and got >= aim:
        return "aim reached"
    if got >= asked:
        return "reached"
    return "reached, within noise" if got * NOISE >= asked else f"short by {1 - got / asked:.0%}"


def at_most(got: float | None, asked: float) -> str:
    """A word on a figure that should be small."""
    if got is None:
        return "not measured"
    if got <= asked:
        return "reached"
    return "reached, within noise" if got <= asked * NOISE else f"over by {got / asked - 1:.0%}"
