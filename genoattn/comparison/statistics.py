"""Which layers are told apart: means and intervals over training seeds and genomic blocks, and ranks as groups.

A figure of a layer is the mean of its runs', one run a seed. It would come out otherwise with other seeds and with
other blocks of the genome. Resampling seeds and then blocks as they stand is far too sure of itself with three seeds:
they show two thirds of their variance, and a normal quantile does for Student's. So the variance that it measures is
put together from its parts:

- seeds: their variance, with n − 1, over n; Welch's test, as Colas, Sigaud and Oudeyer (2018, arXiv:1806.08295) advise;
- blocks: the variance over resamples of the mean of a layer's runs, or of the difference of two such means, since all
  runs share their resamples. What moves in single runs only is in the variance of seeds already and is taken out, or it
  would count twice (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1:386).

The degrees of freedom are Welch's and Satterthwaite's, a variance over R resamples counting R − 1, with one change:
three seeds often lie closer by chance than they should, and the many degrees of the blocks then pass for theirs, so the
variance of seeds is weighed three times. Without it, in simulation, two layers that are the same pass a level of
0.0024, that of 21 pairs, more than twice as often as they should.

What is left: with two seeds, or where one layer's seeds vary ten times as much as another's, equals are told apart too
often, in simulation in up to 10 % of cases instead of 5; Welch's own test does so too. Three seeds are the least to
trust. The blocks are taken to be many: with m of them the resamples show (m − 1)/m of their variance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genoattn.errors import UserError

NORMAL = 1e5
"""Degrees of freedom from which on the normal distribution stands for Student's."""


def tail(ratio: float, freedom: float) -> float:
    """The chance of a ratio this far from 0 on either side, with `freedom` degrees of freedom, not always whole.

    An incomplete beta function (NIST Digital Library of Mathematical Functions, 8.17.22 for its continued fraction).
    """
    if freedom >= NORMAL:
        return math.erfc(abs(ratio) / math.sqrt(2))
    square = ratio**2
    near, far = square / (freedom + square), freedom / (freedom + square)
    if far < (freedom + 2) / (freedom + 5):  # where the fraction converges fast
        return _beta(far, near, freedom / 2, 0.5)
    return 1 - _beta(near, far, 0.5, freedom / 2)


def quantile(chance: float, freedom: float) -> float:
    """The ratio of which `tail` is `chance`, by Newton's method."""
    ratio = NormalDist().inv_cdf(1 - chance / 2)
    if freedom >= NORMAL:
        return ratio
    # Left of the answer, on a tail that falls ever more slowly: no step goes too far.
    for _ in range(200):
        step = (tail(ratio, freedom) - chance) / (2 * _density(ratio, freedom))
        ratio += step
        if step < 1e-12 * ratio:
            break
    return ratio


def _density(ratio: float, freedom: float) -> float:
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    return math.exp(scale - (freedom + 1) / 2 * math.log1p(ratio**2 / freedom))


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """The regularised incomplete beta function of x = 1 − rest, its continued fraction summed from the far end."""
    if x == 0:
        return 0.0
    fraction = 1.0
    for m in range(30 + int(2 * math.sqrt(a + b)), -1, -1):
        below = (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2))
        above = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        fraction = 1 + above / (1 + below / fraction)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(front) / a / fraction


RESOLUTION = 1e-3
"""A standard error is never below this: figures that agree to the third decimal are not told apart."""


SEED_VARIANCE_WEIGHT = 3
"""How many times the variance of seeds counts in the degrees of freedom."""


@dataclass(frozen=True)
class SeedRun:
    """One run of a layer."""

    value: float
    """Its figure on the test set, higher being better."""
    replicates: Float[np.ndarray, "replicates"]
    """The figure in each resample of genomic blocks, the same ones for all runs; NaN where it has none."""


class Estimate(NamedTuple):
    """What a layer reaches. Of a single seed the interval is of blocks alone: it says nothing of other seeds."""

    mean: float
    low: float
    high: float
    seeds: int
    values: tuple[float, ...]
    """Of each run."""


class Difference(NamedTuple):
    """How far the first of two layers is ahead. The interval and p are of this pair alone."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float
    adjusted: float
    """p by Holm's method over all pairs."""
    significant: bool
    """Whether adjusted is at most the level, and anything is known of how seeds vary."""


@dataclass(frozen=True)
class LayerComparison:
    """Layers compared, best first."""

    estimates: Mapping[str, Estimate]
    differences: Sequence[Difference]
    """Of every pair, the one with the higher mean first."""
    groups: Sequence[tuple[str, ...]]
    """The largest sets of which no two are told apart, best first; a layer may stand in several."""

    def significant(self, first: str, second: str) -> bool:
        """Whether two layers are told apart, in either order."""
        return any(one.significant and {one.first, one.second} == {first, second} for one in self.differences)


class _Layer(NamedTuple):
    mean: float
    seeds: int
    block_means: np.ndarray
    """The mean of its runs in every resample."""
    seed_variance: float
    """What seeds add to the variance of the mean; NaN: there is one seed."""
    double_counted: float
    """What single runs add to the variance of the path, between holding it already."""


def compare_layers(runs: Mapping[str, Sequence[SeedRun]], level: float = 0.05) -> LayerComparison:
    """Compare layers, each by its runs; intervals hold what is meant with a chance of 1 − level.

    A layer of one seed is taken to vary from seed to seed as much as the one that varies most. Where all have one seed,
    p and intervals are about these very models, and no two layers are told apart.
    """
    _check(runs)
    draws = np.stack([run.replicates for layer in runs.values() for run in layer])
    valid = np.logical_and.reduce(np.isfinite(draws))
    if valid.sum() < 2:
        raise UserError("no two resamples in which every run has a figure: the test set holds too few events")
    layers = {name: _layer(some, valid) for name, some in runs.items()}
    ranked = sorted(layers, key=lambda name: (-layers[name].mean, name))
    fraction = all(0 <= run.value <= 1 for layer in runs.values() for run in layer)
    estimates = {}
    for name in ranked:
        layer = layers[name]
        seeds = [] if layer.seeds == 1 else [(layer.seed_variance, layer.seeds - 1)]
        error, freedom = _error(seeds, _blocks(layer.block_means, layer.double_counted))
        reach = quantile(level, freedom) * error
        low, high = layer.mean - reach, layer.mean + reach
        low, high = (max(low, 0.0), min(high, 1.0)) if fraction else (low, high)
        estimates[name] = Estimate(layer.mean, low, high, layer.seeds, tuple(run.value for run in runs[name]))
    differences = _holm([_difference(a, b, layers, level) for a, b in combinations(ranked, 2)], level)
    if all(layer.seeds == 1 for layer in layers.values()):
        differences = [one._replace(significant=False) for one in differences]
    return LayerComparison(estimates, differences, _groups(ranked, differences))


def _check(runs: Mapping[str, Sequence[SeedRun]]) -> None:
    if not runs:
        raise UserError("no layers to compare")
    sizes = {len(run.replicates) for some in runs.values() for run in some}
    if len(sizes) > 1:
        raise UserError(f"runs with {sorted(sizes)} resamples cannot be compared: theirs must be the same")
    for name, some in runs.items():
        if not some:
            raise UserError(f"layer {name} has no runs to compare")
        for number, run in enumerate(some, 1):
            if not math.isfinite(run.value):
                raise UserError(f"layer {name}, run {number} of {len(some)}: its figure is {run.value}")


def _layer(runs: Sequence[SeedRun], valid: np.ndarray) -> _Layer:
    values = np.array([run.value for run in runs])
    draws = np.stack([run.replicates[valid] for run in runs]).astype(np.float64)
    count, path = len(runs), draws.mean(0)
    if count == 1:
        return _Layer(float(values[0]), 1, path, math.nan, 0.0)
    alone = (draws - path).var(1, ddof=1).sum() / (count - 1)
    return _Layer(float(values.mean()), count, path, float(values.var(ddof=1)) / count, float(alone) / count)


def _blocks(path: np.ndarray, twice: float) -> tuple[float, int]:
    return max(float(path.var(ddof=1)) - twice, RESOLUTION**2), len(path) - 1


def _error(seeds: Sequence[tuple[float, int]], blocks: tuple[float, int]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of variances, each with its own."""
    weighed = [*((SEED_VARIANCE_WEIGHT * part, freedom) for part, freedom in seeds), blocks]
    doubt = sum(part**2 / freedom for part, freedom in weighed)
    return math.sqrt(sum(part for part, _ in seeds) + blocks[0]), sum(part for part, _ in weighed) ** 2 / doubt


def _difference(a: str, b: str, layers: Mapping[str, _Layer], level: float) -> Difference:
    first, second = layers[a], layers[b]
    several = [layer for layer in layers.values() if layer.seeds > 1]
    seeds = []
    for layer in (first, second):
        if layer.seeds > 1:
            seeds.append((layer.seed_variance, layer.seeds - 1))
        elif several:
            most = max(several, key=lambda one: one.seed_variance * one.seeds)
            seeds.append((most.seed_variance * most.seeds, most.seeds - 1))
    error, freedom = _error(
        seeds, _blocks(first.block_means - second.block_means, first.double_counted + second.double_counted)
    )
    mean, reach = first.mean - second.mean, quantile(level, freedom) * error
    return Difference(a, b, mean, mean - reach, mean + reach, tail(mean / error, freedom), 1.0, False)


def _holm(differences: Sequence[Difference], level: float) -> list[Difference]:
    """Holm (1979): the least p times the number of pairs, the next times one less, never falling."""
    adjusted, most = {}, 0.0
    order = sorted(range(len(differences)), key=lambda index: differences[index].p)
    for rank, index in enumerate(order):
        most = max(most, min(1.0, differences[index].p * (len(order) - rank)))
        adjusted[index] = most
    return [one._replace(adjusted=adjusted[i], significant=adjusted[i] <= level) for i, one in enumerate(differences)]


def _groups(ranked: Sequence[str], differences: Sequence[Difference]) -> list[tuple[str, ...]]:
    """Insert and absorb (Piepho 2004, J. Comput. Graph. Stat. 13:456): whatever holds two told apart is split."""
    groups = [frozenset(range(len(ranked)))]
    for a, b in ((ranked.index(one.first), ranked.index(one.second)) for one in differences if one.significant):
        parts = {part for group in groups for part in ((group - {a}, group - {b}) if {a, b} <= group else (group,))}
        groups = [part for part in parts if not any(part < other for other in parts)]
    return [tuple(ranked[index] for index in group) for group in sorted(map(sorted, groups))]
