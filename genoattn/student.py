"""Student's t: how likely a ratio of a figure to its standard error is by chance, and which ratio is as unlikely."""

import math
from statistics import NormalDist

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
