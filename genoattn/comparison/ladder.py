"""The measures of a ladder: the lengths that a layer solves, the time that it takes to learn, and which runs learned.

A ladder trains every layer on windows of mixed lengths at equal tokens and tests it at each length. A curve of accuracy
against length from one run says where a layer ends; a single length says only that it ended before, or has not begun.

- Solved length (n90, n50): the largest length at which the accuracy covers 0.9, or half, of the way from that of `none`
  to the ceiling, interpolated in the logarithm of the length. Beyond the ends of the ladder it is censored.
- Time to learn: the tokens read when the validation accuracy at a short length first reaches a level; censored at the
  end of a training that never reaches it.
- Learned: a run is better than the runs of `none` at some length, by the paired test of `statistics`. Other runs did
  not learn within their budget. They say nothing about the layer at any other budget.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy import stats

from genoattn.comparison.settings import Number
from genoattn.comparison.statistics import SeedRun, compare_layers

Censored: TypeAlias = Literal["", "below", "above"]

SHARES = (0.9, 0.5)
"""Shares of the way from `none` to the ceiling of the two solved lengths, n90 and n50."""

FEWEST_POINTS = 3
"""Layers with a known solved length from which an exponent is estimated."""


@dataclass(frozen=True)
class Crossing:
    """The place at which a curve crosses a level, or the end beyond which it does."""

    value: Number
    censored: Censored = ""
    """"below": less than `value`; "above": more than `value`."""

    @property
    def rank(self) -> float:
        """A number by which crossings are sorted."""
        return {"below": -math.inf, "": self.value, "above": math.inf}[self.censored]

    def __str__(self) -> str:
        sign = {"below": "< ", "": "", "above": "> "}[self.censored]
        return f"{sign}{self.value:,.0f}"


@dataclass(frozen=True)
class Exponent:
    """The slope of log n50 against log state bytes over layers, by least squares, with its 95 % interval."""

    slope: float
    low: float
    high: float
    layers: tuple[str, ...]
    """The layers with a state and an n50 that is not censored."""
    intercept: float
    """The logarithm of n50 at a state of one byte."""


@dataclass(frozen=True)
class LadderRow:
    """The measures of one layer."""

    layer: str
    solved: Mapping[str, tuple[Crossing, ...]]
    """n90 and n50 of each seed, in the order of `seeds`."""
    seeds: tuple[int, ...]
    tokens_to_learn: tuple[Crossing, ...] = ()
    seconds_to_learn: tuple[Crossing, ...] = ()
    """In proportion to the tokens, from the duration of the training."""
    tokens: Number | None = None
    """Tokens of a training."""
    seconds: Number | None = None
    """Mean duration of a training."""
    flops: Number | None = None
    """FLOPs of a training: three forward passes over its tokens in windows of the longest length."""
    state_bytes: Number | None = None
    """State of all attention layers after the longest window."""
    capacity: Mapping[int, float] = None  # type: ignore[assignment]
    """By number of keys, the share of letters that an ideal reader tells from one untrained layer."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", self.capacity or {})


@dataclass(frozen=True)
class Ladder:
    """The measures of all layers of a ladder."""

    lengths: tuple[int, ...]
    metric: str
    """The accuracy of the ladder: restored, accuracy or another metric over the whole test set."""
    ceiling: float
    floor: Mapping[int, float]
    """The mean accuracy of `none` by length."""
    rows: tuple[LadderRow, ...]
    exponent: Exponent | None = None


def solved_length(
    accuracy: Mapping[int, float], floor: Mapping[int, float], ceiling: float, share: float
) -> Crossing | None:
    """The largest length at which an accuracy covers a share of the way from a floor to a ceiling.

    Args:
        accuracy: By length in bases.
        floor: The accuracy without learning, by length.
        ceiling: The accuracy of a complete solution.
        share: The share of the way, from 0 to 1.

    Returns:
        The length, interpolated in its logarithm; None without a length that both have.
    """
    lengths = sorted(accuracy.keys() & floor.keys())
    if not lengths:
        return None
    covered = [(accuracy[length] - floor[length]) / max(ceiling - floor[length], 1e-9) for length in lengths]
    last = next((place for place in reversed(range(len(lengths))) if covered[place] >= share), None)
    if last is None:
        return Crossing(lengths[0], "below")
    if last == len(lengths) - 1:
        return Crossing(lengths[-1], "above")
    part = (covered[last] - share) / (covered[last] - covered[last + 1])
    low, high = math.log(lengths[last]), math.log(lengths[last + 1])
    return Crossing(math.exp(low + part * (high - low)))


def crossing_time(curve: Sequence[tuple[Number, Number]], level: Number) -> Crossing | None:
    """The first point of a curve (time, value) at or above a level, interpolated; censored at its end.

    A curve that begins at or above the level is censored at its first point. None for an empty curve.
    """
    before: tuple[Number, Number] | None = None
    for time, value in curve:
        if value >= level:
            if before is None:
                return Crossing(time, "below")
            part = (level - before[1]) / (value - before[1])
            return Crossing(before[0] + part * (time - before[0]))
        before = time, value
    return None if before is None else Crossing(before[0], "above")


def median(crossings: Sequence[Crossing]) -> Crossing | None:
    """The median, in which a censored value counts as beyond all others; the lower one of an even number.

    Where at least half of the values are known, this is the median of Kaplan and Meier, because all runs that are
    censored are censored at the same end.
    """
    ranked = sorted(crossings, key=lambda crossing: (crossing.rank, crossing.value))
    return ranked[(len(ranked) - 1) // 2] if ranked else None


def exponent(states: Mapping[str, Number | None], lengths: Mapping[str, Crossing | None]) -> Exponent | None:
    """The power of the state with which the solved length grows, over layers.

    Args:
        states: Bytes by layer.
        lengths: Solved length by layer; censored ones are left out.

    Returns:
        The exponent; None with fewer than three layers, or if all have the same state.
    """
    points = {
        layer: (state, length.value)
        for layer, state in states.items()
        if state and (length := lengths.get(layer)) is not None and not length.censored
    }
    if len(points) < FEWEST_POINTS or len({state for state, _ in points.values()}) < 2:
        return None
    x, y = np.log(np.array([*points.values()], np.float64)).T
    slope, intercept, _, _, error = map(float, stats.linregress(x, y))  # type: ignore[call-overload]
    half = float(stats.t.ppf(0.975, len(points) - 2)) * error
    return Exponent(slope, slope - half, slope + half, tuple(points), intercept)


def learned(
    run: Mapping[int, SeedRun], none: Mapping[int, Sequence[SeedRun]], level: float = 0.05, least: float = 0.0
) -> bool | None:
    """True if a run is better than `none` at some length: the interval of the difference lies above 0.

    Blocks are paired, seeds of the run are assumed to vary as those of `none`, and the level is divided by the number
    of lengths.

    Args:
        run: The score of the run by tested length.
        none: The runs of the layer `none` by tested length.
        level: Level of the test, over all lengths.
        least: A smaller difference is no learning.

    Returns:
        None without a length that both have.
    """
    lengths = [length for length in run if none.get(length)]
    for length in lengths:
        compared = compare_layers({"run": [run[length]], "none": none[length]}, level / len(lengths))
        pair = compared.differences[0]
        if pair.first == "run" and pair.low > 0 and pair.mean >= least:
            return True
    return False if lengths else None
