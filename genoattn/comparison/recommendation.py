"""The layer to take: the Pareto front of quality and cost, a layer within limits on cost, crossovers of cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genoattn.comparison.settings import NO_LIMIT, Cost, Number, Unit
from genoattn.comparison.statistics import LayerComparison

UNITS: tuple[Unit, ...] = ("seconds", "bytes")


@dataclass(frozen=True)
class Recommendation:
    """A layer within limits on cost, and the values that the decision rests on."""

    layer: str | None
    """None: no layer fits the limits, the best that fits does not differ significantly from a baseline layer, or a
    baseline without layers is ahead of all."""
    limit: Cost
    fitting: int
    """Number of layers within the limits."""
    best: str | None = None
    """The layer with the highest mean of those within the limits."""
    equivalent: tuple[str, ...] = ()
    """Layers within the limits that do not differ significantly from the best, the best first."""
    baseline: str | None = None
    """The first baseline layer among the equivalent ones."""
    cheapest: str | None = None
    """The layer nearest to the limits; None if the cost of no layer is known."""
    unit: Unit = "seconds"
    """The cost of the recommended layer, or of the cheapest, that takes the largest share of its limit."""
    amount: Number | None = None
    """That cost."""
    ahead: tuple[str, ...] = ()
    """Baselines without layers, such as an aligner, that are better than every layer, the best first."""


def pareto_front(points: Mapping[str, tuple[Number, Number]]) -> list[str]:
    """The names of the points (cost, quality) that no other point beats in one without losing in the other.

    Equal points do not beat each other; points with NaN are left out.

    Args:
        points: Cost and quality by name.

    Returns:
        Names on the front, cheapest first.
    """
    measured = {name: point for name, point in points.items() if not any(map(math.isnan, point))}

    def beaten(cost: Number, quality: Number) -> bool:
        others = measured.values()
        return any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in others)

    front = (name for name, point in measured.items() if not beaten(*point))
    return sorted(front, key=lambda name: (measured[name][0], name))


def recommend(
    comparison: LayerComparison,
    costs: Mapping[str, Cost],
    limit: Cost = NO_LIMIT,
    baseline_layers: Sequence[str] = (),
    ahead: Sequence[str] = (),
) -> Recommendation:
    """Recommend the cheapest layer within a limit that does not differ significantly from the best within it.

    The cheapest layer takes the smallest share of its scarcest limit. Without a limit it needs the least time to read.
    A layer with an unknown cost does not fit. No layer is recommended if the best one that fits does not differ
    significantly from a baseline layer, unless it is a baseline layer itself, or if baselines are ahead of all layers.

    Args:
        comparison: Estimates and significance of the layers.
        costs: Cost by layer; layers may be missing.
        limit: The most that a layer may cost.
        baseline_layers: Layers that a recommended layer has to beat.
        ahead: Baselines without layers, such as an aligner, that are better than every layer.

    Returns:
        The decision and its values.
    """
    shares = {name: _share(costs.get(name, Cost()), limit) for name in comparison.estimates}
    most = math.inf if limit == NO_LIMIT else 1.0
    fitting = [name for name, (share, _) in shares.items() if share <= most and share < math.inf]
    cheapest = min(fitting or shares, key=lambda name: shares[name][0])
    best = fitting[0] if fitting else None
    equivalent = tuple(name for name in fitting if best and not comparison.significant(name, best))
    baseline = next((name for name in equivalent if name in baseline_layers), None)
    layer = min(equivalent or [cheapest], key=lambda name: shares[name][0])  # the better of two at the same cost
    share, unit = shares[layer]
    return Recommendation(
        layer=layer if best and not ahead and (baseline is None or best in baseline_layers) else None,
        limit=limit,
        fitting=len(fitting),
        best=best,
        equivalent=equivalent,
        baseline=baseline,
        cheapest=cheapest if share < math.inf else None,
        unit=unit,
        amount=costs[layer].amount(unit) if share < math.inf else None,
        ahead=tuple(ahead),
    )


def crossover(lengths: Sequence[Number], first: Sequence[Number], second: Sequence[Number]) -> float | None:
    """The length from which the second of two layers is cheaper, at every longer measured length too.

    Between measured lengths both costs are interpolated as powers of the length. Lengths at which a cost was not
    measured (NaN) or is 0 are left out.

    Args:
        lengths: Measured lengths in bases.
        first: Cost of the first layer at each length.
        second: Cost of the second layer at each length.

    Returns:
        The length; None if the second is not cheaper at the longest one, or is cheaper at all.
    """
    rows = [row for row in sorted(zip(lengths, first, second, strict=True)) if row[1] > 0 and row[2] > 0]
    if not rows:
        return None
    length, first_cost, second_cost = np.array(rows, np.float64).T
    gap = np.log(second_cost) - np.log(first_cost)
    if gap[-1] >= 0 or (gap < 0).all():
        return None
    last = int(np.flatnonzero(gap >= 0)[-1])
    share = gap[last] / (gap[last] - gap[last + 1])
    return float(np.exp((1 - share) * np.log(length[last]) + share * np.log(length[last + 1])))


def _share(cost: Cost, limit: Cost) -> tuple[Number, Unit]:
    """The largest share of a limit that a cost takes, infinite if the cost is not known, and its unit.

    Without a limit the share is that of one second.
    """
    limit = Cost(seconds=1.0) if limit == NO_LIMIT else limit
    shares: list[tuple[Number, Unit]] = [
        (math.inf if (amount := cost.amount(unit)) is None else amount / (most or 1.0), unit)
        for unit in UNITS
        if (most := limit.amount(unit)) is not None
    ]
    return max(shares)
