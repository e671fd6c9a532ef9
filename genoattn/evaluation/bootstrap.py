"""To be said in a sentence."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

CHUNK = 256
"""Events that are resampled at once."""


class ScoredCalls(NamedTuple):
    """Candidates of one kind: all of its events, and every base that no event of any kind touches."""

    scores: Float[np.ndarray, "candidates"]
    truth: Bool[np.ndarray, "candidates"]
    windows: Int[np.ndarray, "candidates"]


def resampled_average_precision(
    scored: ScoredCalls, draws: Int[np.ndarray, "resamples windows"]
) -> Float[np.ndarray, "resamples"]:
    """Average precision of each resample, in which window w counts draws[r, w] times; NaN without any event."""
    kept = scored.scores >= scored.scores[scored.truth].min()
    order = np.argsort(-scored.scores[kept], kind="stable")
    scores, truth, windows = (column[kept][order] for column in scored)
    ties = np.searchsorted(-scores, -scores, side="right") - 1  # the last candidate of the same score
    at = ties[truth]
    # A candidate counts at its own event and all that rank after it, so what falls between two events is summed once.
    first = np.searchsorted(at, np.arange(len(scores)))
    times = draws.T.astype(np.float64)
    share = times[windows[truth]]
    hits = np.zeros_like(share)
    np.add.at(hits, first[truth], share)
    ranked = np.concatenate(
        [
            _between(first, windows, low, min(low + CHUNK, len(at)), len(times)) @ times
            for low in range(0, len(at), CHUNK)
        ]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(hits.cumsum(0) / ranked.cumsum(0))
        return (share * precision).sum(0) / share.sum(0)


def resamples(
    blocks: Sequence[Hashable], count: int
) -> tuple[Int[np.ndarray, "windows"], Int[np.ndarray, "draws blocks"]]:
    """The number of each window's block, and how often every block counts in each of `count` bootstrap draws.

    The same blocks in the same order give the same draws, whatever is measured on them.
    """
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    total = len(numbers)
    draws = np.random.default_rng([total, count]).multinomial(total, np.full(total, 1 / total), size=count)
    return np.array([numbers[block] for block in blocks]), draws


def resampled_mean(
    hits: Float[np.ndarray, "questions"],
    owners: Int[np.ndarray, "questions"],
    draws: Int[np.ndarray, "draws blocks"],
) -> Float[np.ndarray, "draws"]:
    """The mean of `hits` in every draw; `owners` are the blocks of the questions. NaN where a draw holds none."""
    size = draws.shape[1]
    found = np.bincount(owners, weights=hits, minlength=size)
    asked = np.bincount(owners, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (draws @ found) / (draws @ asked)


def _between(
    first: Int[np.ndarray, "candidates"], windows: Int[np.ndarray, "candidates"], low: int, high: int, count: int
) -> Float[np.ndarray, "events windows"]:
    """How many candidates of each window count first at events low … high."""
    begin, end = np.searchsorted(first, [low, high])
    cells = (first[begin:end] - low) * count + windows[begin:end]
    return np.bincount(cells, minlength=(high - low) * count).reshape(high - low, count).astype(np.float64)


def _draws(windows: int, resamples: int, seed: int) -> Int[np.ndarray, "resamples windows"]:
    return np.random.default_rng(seed).multinomial(windows, np.full(windows, 1 / windows), size=resamples)


def _middle(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
