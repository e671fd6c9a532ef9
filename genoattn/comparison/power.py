"""The smallest difference between two layers that a number of seeds can be expected to find."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from genoattn.comparison.record import Comparison

POWER, LEVEL = 0.8, 0.05

DRAWS = 20_000
"""Simulated pairs of layers."""


def detectable_difference(
    spread: float, seeds: int, pairs: int, power: float = POWER, level: float = LEVEL
) -> float | None:
    """The difference of two means that a test finds with a given probability, by simulation.

    Welch's test, as in `statistics`, of two layers whose seeds vary normally, at the level of one pair among many
    (Bonferroni; the first of Holm's steps). Variance between genomic blocks is left out, because blocks are paired: the
    difference is a lower bound.

    Args:
        spread: Standard deviation of the seeds of a layer.
        seeds: Seeds of each layer.
        pairs: Pairs of layers that are tested.
        power: Probability that the difference is found.
        level: Level of all tests together.

    Returns:
        The difference; None with one seed, from which nothing can be found, or without spread.
    """
    if seeds < 2 or not spread > 0:
        return None
    drawn = np.random.default_rng(seeds).standard_normal((2, DRAWS, seeds))
    variance = drawn.var(-1, ddof=1) / seeds
    freedom = (seeds - 1) * variance.sum(0) ** 2 / (variance**2).sum(0)
    critical = -special.stdtrit(freedom, level / pairs / 2)
    chance = np.subtract(*drawn.mean(-1))
    needed = critical * np.sqrt(variance.sum(0)) - chance  # any greater difference of the means is found
    return float(np.quantile(needed, power)) * spread


def spread_of(comparison: Comparison) -> float | None:
    """Standard deviation of the seeds of a comparison, pooled over the layers and lengths whose runs learned."""
    values: dict[str, list[float]] = {}
    for run in comparison.runs:
        if run.stage == "final" and run.value is not None and run.learned is not False:
            values.setdefault(f"{run.length} {run.layer}", []).append(run.value)
    return pooled_spread(values)


def pooled_spread(values: Mapping[str, Sequence[float]]) -> float | None:
    """Standard deviation of seeds, pooled over layers with at least two; None without such a layer."""
    repeated = [np.array(own) for own in values.values() if len(own) > 1]
    if not repeated:
        return None
    squares = sum(float(((own - own.mean()) ** 2).sum()) for own in repeated)
    return math.sqrt(squares / sum(len(own) - 1 for own in repeated))
