"""Cases of the operator benchmark and their order; cases that need too much time or memory are only listed."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from benchmarks.operators.goals import GROWTHS, RATIOS, short
from benchmarks.operators.measure_operator import BIDIRECTIONAL, BOTH, CAUSAL, FORWARD, OPERATORS, OURS

HEADS = ("4x64", "8x32")
LENGTHS = tuple(2**power for power in (12, 14, 16, 18, 20))
MOST_SECONDS, MOST_GIB = 60.0, 16.0
"""A case predicted beyond these is listed, not run."""
BACKWARD = 3.5, 2.5
"""Assumed ratios of time and memory of forward and backward to forward, if no shorter case is measured."""

Row: TypeAlias = dict[str, Any]
"""Saved form of a case: the fields of its group, its operator, its status, and its measurements or the reason."""


class Group(NamedTuple):
    """Cases that differ only in the operator; they are measured in turn and compared."""

    layer: str
    kind: str
    heads: str
    length: int
    mode: str

    @property
    def words(self) -> tuple[str, ...]:
        """Words by which a user selects the group."""
        return self.layer, self.kind, self.heads, short(self.length), self.mode


def every() -> Iterator[tuple[Group, tuple[str, ...]]]:
    """Every group with its operators; shorter ones before longer ones, forward before forward and backward."""
    for layer, operators in OPERATORS.items():
        for kind in (BIDIRECTIONAL, CAUSAL):
            for heads in HEADS:
                for length in LENGTHS:
                    for mode in (FORWARD, BOTH):
                        able = (
                            name for name, entry in operators.items() if kind in entry.kinds and mode in entry.modes
                        )
                        yield Group(layer, kind, heads, length, mode), tuple(able)


def chosen(size: str, words: Sequence[str] = ()) -> list[tuple[Group, tuple[str, ...]]]:
    """The groups of a size (quick, usual, all) whose words hold one of the alternatives of each of `words` (a,b)."""
    picked = []
    for group, operators in every():
        take = {"quick": quick, "usual": usual, "all": lambda _, operators: operators}[size](group, operators)
        if take and all(set(word.split(",")) & set(group.words) for word in words):
            picked.append((group, tuple(take)))
    return picked


def quick(group: Group, operators: Iterable[str]) -> list[str]:
    """4 heads of 64: the comparisons that the goals name, and the growth up to 64k."""
    if group.heads != HEADS[0]:
        return []
    grows = group.kind == BIDIRECTIONAL and _grows(group, 2**16)
    return [name for name in operators if name in _compared(group) or (name == OURS and grows)]


def usual(group: Group, operators: Iterable[str]) -> list[str]:
    """Every goal, those of comparison in both shapes of heads; every operator forward at 4k and 16k in one."""
    first = group.heads == HEADS[0]
    if first and group.mode == FORWARD and group.length <= 2**14:
        return list(operators)
    return [name for name in operators if name in _compared(group) or (name == OURS and first and _grows(group, 2**20))]


def _compared(group: Group) -> set[str]:
    goals = [goal for goal in RATIOS if group == (goal.layer, goal.kind, group.heads, goal.length, goal.mode)]
    named = {goal.over for goal in goals}
    return named | {OURS} if named else set()


def _grows(group: Group, up_to: int) -> bool:
    return any(
        (group.layer, group.mode) == (goal.layer, goal.mode) and goal.short <= group.length <= goal.long <= up_to
        for goal in GROWTHS
    )


def predicted(points: Mapping[int, float], length: int, growth: float) -> float | None:
    """Prediction for `length` from the two longest shorter lengths by a power law of at least the power `growth`."""
    shorter = sorted(at for at in points if at < length)[-2:]
    if not shorter:
        return None
    last = shorter[-1]
    power = growth
    if len(shorter) == 2 and min(points[at] for at in shorter) > 0:
        power = max(growth, math.log(points[last] / points[shorter[0]]) / math.log(last / shorter[0]))
    return points[last] * (length / last) ** power


def refusal(group: Group, name: str, rows: Iterable[Row]) -> str | None:
    """Reason why a case is listed and not run, from shorter cases and its forward pass; None if it is run."""
    same = {
        (row["mode"], row["length"]): row
        for row in rows
        if (row["layer"], row["kind"], row["heads"], row["operator"]) == (*group[:3], name)
    }
    forward = same.get((FORWARD, group.length))
    own = {length: row for (mode, length), row in same.items() if mode == group.mode and length < group.length}
    if group.mode == BOTH and forward is not None and forward["status"] != "measured":
        return f"forward: {forward['why']}"
    if own and (last := own[max(own)])["status"] != "measured":
        return f"at {short(last['length'])}: {last['why']}"
    growth = OPERATORS[group.layer][name].growth
    seconds = predicted({at: row["least"] for at, row in own.items()}, group.length, growth)
    above = predicted({at: row["above_mib"] for at, row in own.items()}, group.length, growth)
    if not own and group.mode == BOTH and forward is not None:
        seconds, above = forward["least"] * BACKWARD[0], forward["above_mib"] * BACKWARD[1]
    if seconds is None or above is None:
        return None
    count, width = map(int, group.heads.split("x"))
    gib = above / 2**10 + 3 * 4 * group.length * count * width / 2**30  # the queries, keys and values themselves
    if seconds > MOST_SECONDS:
        return f"predicted {seconds:,.0f} s"
    return f"predicted {gib:,.0f} GiB" if gib > MOST_GIB else None
