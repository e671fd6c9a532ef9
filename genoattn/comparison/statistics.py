"""The statistics of a comparison: means with intervals over seeds and genomic blocks, and tests between layers.

The score of a layer is the mean over its runs, one run a seed. Other seeds and other blocks of the genome would give
another mean. A plain bootstrap of seeds and blocks is too confident with three seeds: they show two thirds of their
variance, and normal quantiles stand in for Student's. The variance is therefore put together from two sources:

- seeds: their variance (n − 1 in the denominator) over n, and Welch's test, as Colas, Sigaud and Oudeyer (2018,
  arXiv:1806.08295) advise;
- blocks: the variance over resamples of the mean of a layer's runs, or of the difference of two such means. All runs
  share their resamples. The part of it that is due to single runs is in the variance of seeds already and is
  subtracted, or it would count twice (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1:386).

The degrees of freedom are those of Welch and Satterthwaite; a variance over R resamples has R − 1. With three seeds the
variance between seeds is often underestimated, and the degrees of freedom are then too large. We therefore give that
variance a weight of 3 in the degrees of freedom. Without this weight, in simulation, two equal layers pass a level of
0.0024 (that of 21 pairs) more than twice as often as they should.

Limits: with two seeds, or if the seeds of one layer vary ten times as much as those of another, equal layers differ
significantly in up to 10 % of simulated cases instead of 5 %; Welch's own test does so too. Use three seeds at least.
The number of blocks is assumed to be large: with m blocks the resamples show (m − 1)/m of their variance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from genoattn.errors import UserError

RESOLUTION = 1e-3
"""Least standard error: scores that agree to the third decimal do not differ significantly."""


SEED_VARIANCE_WEIGHT = 3
"""Weight of the variance of seeds in the degrees of freedom."""


@dataclass(frozen=True)
class SeedRun:
    """The score of one run of a layer; higher is better."""

    value: float
    replicates: Float[np.ndarray, "replicates"]
    """The score in each resample of genomic blocks, the same resamples in all runs; NaN if it is undefined there."""


@dataclass(frozen=True)
class Estimate:
    """The mean score of a layer with its interval. With one seed the interval covers other blocks, not other seeds."""

    mean: float
    low: float
    high: float
    seeds: int
    values: tuple[float, ...]
    """The score of each run."""


@dataclass(frozen=True)
class Difference:
    """The score of the first of two layers minus that of the second; interval and p are those of this pair alone."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float
    adjusted_p: float
    """p after Holm's correction for the number of pairs."""
    significant: bool
    """True if `adjusted_p` is at most the level and some layer has more than one seed."""


@dataclass(frozen=True)
class LayerComparison:
    """Estimates and differences of layers, best layer first."""

    estimates: Mapping[str, Estimate]
    differences: tuple[Difference, ...]
    """One for each pair of layers, the one with the higher mean first."""
    groups: tuple[tuple[str, ...], ...]
    """Largest sets without a significant difference inside, best set first. A layer may be in several groups."""

    def difference(self, first: str, second: str) -> Difference | None:
        """The difference of two layers, named in either order; None for a layer and itself."""
        return next((pair for pair in self.differences if {pair.first, pair.second} == {first, second}), None)

    def significant(self, first: str, second: str) -> bool:
        """True if two layers differ significantly, in either order."""
        return (pair := self.difference(first, second)) is not None and pair.significant


class _Layer(NamedTuple):
    mean: float
    seeds: int
    block_means: np.ndarray
    """Mean over the layer's runs in every resample."""
    seed_variance: float
    """Variance of the mean due to seeds; NaN with one seed."""
    double_counted: float
    """Variance due to single runs. It is subtracted from the block variance: `seed_variance` contains it already."""


class _Variance(NamedTuple):
    value: float
    freedom: float


def compare_layers(runs: Mapping[str, Sequence[SeedRun]], level: float = 0.05) -> LayerComparison:
    """Compare layers by their runs.

    A layer of one seed is assumed to vary from seed to seed as much as the layer that varies most. If all layers have
    one seed, p and intervals are about these trained models alone, and no difference counts as significant.

    Args:
        runs: Runs by layer, one run a seed, all with the same resamples.
        level: Level of the tests; intervals cover 1 − `level`.

    Returns:
        Estimates, differences of all pairs and groups, best layer first.

    Raises:
        UserError: Runs are missing, have no score, or share fewer than two resamples with a score.
    """
    _check(runs)
    replicates = np.stack([run.replicates for layer in runs.values() for run in layer])
    valid = np.logical_and.reduce(np.isfinite(replicates))
    if valid.sum() < 2:
        raise UserError("fewer than two resamples have a score in every run: the test set holds too few events")
    layers = {name: _summary(layer_runs, valid) for name, layer_runs in runs.items()}
    ranked = sorted(layers, key=lambda name: (-layers[name].mean, name))
    bounded = all(0 <= run.value <= 1 for layer in runs.values() for run in layer)
    estimates = {name: _estimate(layers[name], runs[name], level, bounded) for name in ranked}
    differences = _holm([_difference(a, b, layers, level) for a, b in combinations(ranked, 2)], level)
    if all(layer.seeds == 1 for layer in layers.values()):
        differences = [replace(pair, significant=False) for pair in differences]
    return LayerComparison(estimates, tuple(differences), tuple(_groups(ranked, differences)))


def estimate(runs: Sequence[SeedRun], level: float = 0.05) -> Estimate | None:
    """The estimate of one layer; None if fewer than two resamples have a score in every run."""
    if not runs:
        return None
    valid = np.logical_and.reduce([np.isfinite(run.replicates) for run in runs])
    if valid.sum() < 2:
        return None
    return _estimate(_summary(runs, valid), runs, level, all(0 <= run.value <= 1 for run in runs))


def _check(runs: Mapping[str, Sequence[SeedRun]]) -> None:
    if not runs:
        raise UserError("no layers to compare")
    sizes = {len(run.replicates) for layer in runs.values() for run in layer}
    if len(sizes) > 1:
        raise UserError(f"runs with {sorted(sizes)} resamples cannot be compared: test.resamples must be equal")
    for name, layer in runs.items():
        if not layer:
            raise UserError(f"layer {name} has no runs to compare")
        for number, run in enumerate(layer, 1):
            if not math.isfinite(run.value):
                raise UserError(f"layer {name}, run {number} of {len(layer)}: its score is {run.value}")


def _summary(runs: Sequence[SeedRun], valid: np.ndarray) -> _Layer:
    values = np.array([run.value for run in runs])
    replicates = np.stack([run.replicates[valid] for run in runs]).astype(np.float64)
    count, block_means = len(runs), replicates.mean(0)
    if count == 1:
        return _Layer(float(values[0]), 1, block_means, math.nan, 0.0)
    single = (replicates - block_means).var(1, ddof=1).sum() / (count - 1)
    return _Layer(float(values.mean()), count, block_means, float(values.var(ddof=1)) / count, float(single) / count)


def _estimate(layer: _Layer, runs: Sequence[SeedRun], level: float, bounded: bool) -> Estimate:
    """The interval of a `bounded` score is cut at 0 and 1."""
    seeds = [] if layer.seeds == 1 else [_Variance(layer.seed_variance, layer.seeds - 1)]
    error, freedom = _standard_error(seeds, _block_variance(layer.block_means, layer.double_counted))
    half = _quantile(level, freedom) * error
    low, high = layer.mean - half, layer.mean + half
    if bounded:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(layer.mean, low, high, layer.seeds, tuple(run.value for run in runs))


def _block_variance(block_means: np.ndarray, double_counted: float) -> _Variance:
    variance = max(float(block_means.var(ddof=1)) - double_counted, RESOLUTION**2)
    return _Variance(variance, len(block_means) - 1)


def _standard_error(seeds: Sequence[_Variance], blocks: _Variance) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of variances."""
    weighted = [*(_Variance(SEED_VARIANCE_WEIGHT * value, freedom) for value, freedom in seeds), blocks]
    uncertainty = sum(value**2 / freedom for value, freedom in weighted)
    error = math.sqrt(sum(value for value, _ in seeds) + blocks.value)
    return error, sum(value for value, _ in weighted) ** 2 / uncertainty


def _quantile(level: float, freedom: float) -> float:
    """Student's t that is exceeded on either side with probability `level`."""
    return -float(special.stdtrit(freedom, level / 2))


def _difference(a: str, b: str, layers: Mapping[str, _Layer], level: float) -> Difference:
    first, second = layers[a], layers[b]
    repeated = [layer for layer in layers.values() if layer.seeds > 1]
    seeds = []
    for layer in (first, second):
        if layer.seeds > 1:
            seeds.append(_Variance(layer.seed_variance, layer.seeds - 1))
        elif repeated:
            most = max(repeated, key=lambda other: other.seed_variance * other.seeds)
            seeds.append(_Variance(most.seed_variance * most.seeds, most.seeds - 1))
    error, freedom = _standard_error(
        seeds,
        _block_variance(first.block_means - second.block_means, first.double_counted + second.double_counted),
    )
    mean, half = first.mean - second.mean, _quantile(level, freedom) * error
    p = 2 * float(special.stdtr(freedom, -abs(mean) / error))
    return Difference(a, b, mean, mean - half, mean + half, p, 1.0, False)


def _holm(differences: Sequence[Difference], level: float) -> list[Difference]:
    """Holm (1979): the least p times the number of pairs, the next times one less, never falling."""
    adjusted, most = {}, 0.0
    order = sorted(range(len(differences)), key=lambda index: differences[index].p)
    for rank, index in enumerate(order):
        most = max(most, min(1.0, differences[index].p * (len(order) - rank)))
        adjusted[index] = most
    return [
        replace(pair, adjusted_p=adjusted[index], significant=adjusted[index] <= level)
        for index, pair in enumerate(differences)
    ]


def _groups(ranked: Sequence[str], differences: Sequence[Difference]) -> list[tuple[str, ...]]:
    """Insert and absorb (Piepho 2004, J. Comput. Graph. Stat. 13:456): sets with a significant pair are split."""
    groups = [frozenset(range(len(ranked)))]
    for pair in differences:
        if pair.significant:
            a, b = ranked.index(pair.first), ranked.index(pair.second)
            split = {half for group in groups for half in ((group - {a}, group - {b}) if {a, b} <= group else (group,))}
            groups = [half for half in split if not any(half < other for other in split)]
    return [tuple(ranked[index] for index in group) for group in sorted(map(sorted, groups))]
