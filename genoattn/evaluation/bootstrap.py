"""The bootstrap behind every interval: genomic blocks are drawn with replacement, and the middle 95 % is reported."""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

BLOCK = 8192
"""Bases of a genomic block, which a resample draws or leaves out as a whole."""

MIN_BLOCKS = 20
"""With fewer genomic blocks the items themselves are resampled: an interval from a few blocks would be too narrow."""

EVENT_CHUNK = 256
"""Events whose ranks are resampled at once, which bounds memory."""


class Resamples(NamedTuple):
    """Bootstrap resamples of units: genomic blocks, or single items where there are few blocks."""

    units: Int[np.ndarray, "items"]
    """The unit of each item."""
    weights: Int[np.ndarray, "replicates units"]
    """Number of draws of each unit."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class ScoredCalls(NamedTuple):
    """The candidate calls of one kind of mutation: each of its events, and each base that no event touches."""

    scores: Float[np.ndarray, "calls"]
    truth: Bool[np.ndarray, "calls"]
    units: Int[np.ndarray, "calls"]
    """The resampling unit of each call."""


def resample(blocks: Sequence[Hashable], count: int, least: int = MIN_BLOCKS) -> Resamples:
    """Draw resamples of the genomic blocks that items lie in.

    The same blocks in the same order give the same resamples, so replicates of different models are paired.

    Args:
        blocks: The genomic block of each item (a window, a query, a variant).
        count: Number of resamples.
        least: With fewer blocks the items themselves are resampled.
    """
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    units = np.array([numbers[block] for block in blocks])
    total = len(numbers)
    if total < least:
        units, total = np.arange(len(blocks)), len(blocks)
    weights = np.random.default_rng([total, count]).multinomial(total, np.full(total, 1 / total), size=count)
    return Resamples(units, weights)


def interval(replicates: Float[np.ndarray, "replicates"]) -> Interval:
    """The middle 95 % of the replicates that are defined; NaN if none is."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(float(low), float(high))


def resampled_ratio(
    numerator: Shaped[np.ndarray, "items"], denominator: Shaped[np.ndarray, "items"], resamples: Resamples
) -> Float[np.ndarray, "replicates"]:
    """The sum of `numerator` over the sum of `denominator` in each resample; NaN where the latter is 0."""
    above, below = (
        resamples.weights @ np.bincount(resamples.units, weights=values, minlength=resamples.weights.shape[1])
        for values in (numerator, denominator)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below


def resampled_average_precision(
    scored: ScoredCalls, weights: Int[np.ndarray, "replicates units"]
) -> Float[np.ndarray, "replicates"]:
    """Average precision in each resample, in which unit u counts weights[r, u] times; NaN without any event."""
    ranked_calls = scored.scores >= scored.scores[scored.truth].min()
    order = np.argsort(-scored.scores[ranked_calls], kind="stable")
    scores, truth, units = (column[ranked_calls][order] for column in scored)
    ties = np.searchsorted(-scores, -scores, side="right") - 1  # the last call of the same score
    at = ties[truth]
    # A call counts at its own event and at all events that rank after it, so calls between two events are summed once.
    first = np.searchsorted(at, np.arange(len(scores)))
    times = weights.T.astype(np.float64)
    share = times[units[truth]]
    hits = np.zeros_like(share)
    np.add.at(hits, first[truth], share)
    chunks = range(0, len(at), EVENT_CHUNK)
    ranked = np.concatenate(
        [_counts(first, units, low, min(low + EVENT_CHUNK, len(at)), len(times)) @ times for low in chunks]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(hits.cumsum(0) / ranked.cumsum(0))
        return (share * precision).sum(0) / share.sum(0)


def _counts(
    first: Int[np.ndarray, "calls"], units: Int[np.ndarray, "calls"], low: int, high: int, count: int
) -> Float[np.ndarray, "events units"]:
    """Number of calls of each unit that count first at events low … high."""
    begin, end = np.searchsorted(first, [low, high])
    cells = (first[begin:end] - low) * count + units[begin:end]
    return np.bincount(cells, minlength=(high - low) * count).reshape(high - low, count).astype(np.float64)
