"""What a comparison says in words, and what to take: the quality–cost front, a layer for a budget, crossovers."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from genoattn.comparison.statistics import LayerComparison
from genoattn.errors import UserError


class Recommendation(NamedTuple):
    """A layer for a budget, None where none fits, and why."""

    layer: str | None
    why: str


class Crossover(NamedTuple):
    """The length from which on the second is cheaper, None outside of what was measured, and how that reads."""

    length: float | None
    words: str


def describe_groups(verdict: LayerComparison) -> str:
    """Who is not told apart from whom and who is ahead, such as: a and b are not told apart; both are ahead of c."""
    ranked = list(verdict.estimates)
    if len(ranked) == 1:
        return f"{ranked[0]} alone was run"
    ahead: dict[tuple[str, ...], tuple[str, ...]] = {}  # by those behind them
    for place, name in enumerate(ranked):
        behind = tuple(other for other in ranked[place + 1 :] if verdict.significant(name, other))
        if behind:
            ahead[behind] = (*ahead.get(behind, ()), name)
    clauses = []
    for group in verdict.groups:
        if len(group) > 1:
            clauses.append(f"{_listed(group)} are not told apart")
        for behind in [behind for behind, names in ahead.items() if names == group]:
            who = {1: f"{_listed(group)} is", 2: "both are"}.get(len(group), "all are")
            clauses.append(f"{who} ahead of {_listed(behind)}")
            del ahead[behind]
    for behind, names in ahead.items():
        clauses.append(f"{_listed(names)} {'is' if len(names) == 1 else 'are'} ahead of {_listed(behind)}")
    return "; ".join([*clauses, *_lone(verdict)])


def _lone(verdict: LayerComparison) -> list[str]:
    lone = [name for name, one in verdict.estimates.items() if one.seeds == 1]
    if not lone:
        return []
    if len(lone) == len(verdict.estimates):
        return ["with one seed each, nothing says how far another seed would move them"]
    has = "has one seed and is" if len(lone) == 1 else "have one seed and are"
    return [f"{_listed(lone)} {has} taken to vary from seed to seed as much as the layer that varies most"]


def pareto_front(points: Mapping[str, tuple[int | float, int | float]]) -> list[str]:
    """Of points (cost, quality) those that no other beats in one without losing in the other, cheapest first.

    Equals do not beat each other; a point with NaN is left out.
    """
    measured = {name: point for name, point in points.items() if not any(map(math.isnan, point))}

    def beaten(cost: int | float, quality: int | float) -> bool:
        others = measured.values()
        return any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in others)

    return sorted((name for name, point in measured.items() if not beaten(*point)), key=lambda n: (measured[n][0], n))


def recommend(
    verdict: LayerComparison,
    costs: Mapping[str, Mapping[str, int | float]],
    budget: Mapping[str, int | float],
    baselines: Sequence[str] = (),
) -> Recommendation:
    """The cheapest layer within the budget that is not told apart from the best within it.

    None where that best is not told apart from one of the `baselines` either: nothing speaks for any layer then. Where
    the best is a baseline itself the words say so.

    `costs` are by layer and name, such as seconds or bytes, and `budget` names the most of some of them. The cheapest
    takes the smallest share of its scarcest; a layer whose cost is not known does not fit. Without a budget the
    cheapest is that of the first cost, and no layer is too dear.
    """
    if not budget:
        first = next(iter(next(iter(costs.values()))))
        most = max(one.get(first, 0.0) for one in costs.values())
        found = recommend(verdict, costs, {first: most}, baselines)
        return found._replace(why=found.why.replace(f" within {first} of at most {_plain(most)}", ""))
    for key, most in budget.items():
        if not any(key in costs.get(name, {}) for name in verdict.estimates):
            known = sorted({key for costs_of_one in costs.values() for key in costs_of_one})
            raise UserError(f"budget names {key}, which no layer's costs hold: they are {', '.join(known)}")
        if not most > 0:
            raise UserError(f"budget: {key} must be above 0, got {most}")
    shares = {name: _share(costs.get(name, {}), budget) for name in verdict.estimates}
    limits = _listed([f"{key} of at most {_plain(most)}" for key, most in budget.items()])
    fits = [name for name in verdict.estimates if shares[name][0] <= 1]
    if not fits:
        least = min(shares, key=lambda name: shares[name][0])
        if shares[least][0] == math.inf:
            return Recommendation(None, f"no layer is known to fit {limits}: none has all of these costs measured")
        needs = _listed([f"{_plain(costs[least][key])} {key}" for key in budget])
        return Recommendation(None, f"no layer fits {limits}; the least is {least} with {needs}")
    return _of_those(fits, verdict, costs, shares, limits, baselines)


def _of_those(
    fits: Sequence[str],
    verdict: LayerComparison,
    costs: Mapping[str, Mapping[str, int | float]],
    shares: Mapping[str, tuple[float, str]],
    limits: str,
    baselines: Sequence[str],
) -> Recommendation:
    """The cheapest of the layers that fit, the best first, that equals the best of them."""
    best = fits[0]
    equals = [name for name in fits if not verdict.significant(name, best)]
    baseline = next((name for name in equals if name in baselines and best not in baselines), None)
    if baseline is not None:
        means = f"{verdict.estimates[best].mean:.3f} against {verdict.estimates[baseline].mean:.3f}"
        return Recommendation(
            None,
            f"the best of {len(fits)} within {limits}, {best}, is not told apart from the baseline {baseline}"
            f" ({means}); more seeds or a larger budget of training would tell",
        )
    layer = min(equals, key=lambda name: shares[name][0])  # the better of two that cost the same
    key = shares[layer][1]
    price = f"{_plain(costs[layer][key])} {key}"
    one_of = f"of {len(fits)} within {limits}" if len(fits) > 1 else f"alone within {limits}"
    mean = verdict.estimates[best].mean
    if layer == best:
        others = ", and of those not told apart from it the cheapest" if len(equals) > 1 else ""
        why = f"{layer}: {one_of}, the best ({mean:.3f}){others}: {price}"
    else:
        means = f"{verdict.estimates[layer].mean:.3f} against {mean:.3f}"
        why = f"{layer}: {one_of}, the cheapest ({price}) that is not told apart from the best, {best} ({means})"
    if best in baselines:
        why += "; the best is a baseline: attention gains nothing here, or a larger budget of training would tell"
    return Recommendation(layer, why)


def crossover(lengths: Sequence[int | float], first: Sequence[int | float], second: Sequence[int | float]) -> Crossover:
    """The length from which on the second is cheaper than the first, at every longer one measured too.

    Between measured lengths both are straight lines of logarithms, as powers of the length are; beyond them nothing is
    said. Lengths at which either was not measured (NaN) or costs nothing are left out.
    """
    rows = [row for row in sorted(zip(lengths, first, second, strict=True)) if row[1] > 0 and row[2] > 0]
    if not rows:
        return Crossover(None, "not measured at any length for both")
    length, one, other = np.array(rows, np.float64).T
    gap = np.log(other) - np.log(one)
    if gap[-1] >= 0:
        return Crossover(None, f"above {_plain(length[-1])}, if at all")
    if (gap < 0).all():
        return Crossover(None, f"below {_plain(length[0])}, if at all")
    last = int(np.flatnonzero(gap >= 0)[-1])
    part = gap[last] / (gap[last] - gap[last + 1])
    found = float(np.exp((1 - part) * np.log(length[last]) + part * np.log(length[last + 1])))
    return Crossover(found, f"at {_plain(found)}")


def _share(costs: Mapping[str, int | float], budget: Mapping[str, int | float]) -> tuple[float, str]:
    """The largest share of a limit that a layer takes, infinite where a cost is not known, and which limit that is."""
    shares = [(costs.get(key, math.nan) / most, key) for key, most in budget.items()]
    return max((math.inf if math.isnan(share) else share, key) for share, key in shares)


def _plain(value: int | float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
