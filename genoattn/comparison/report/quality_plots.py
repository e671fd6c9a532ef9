"""Plots of quality: by layer, by subgroup of the test set, beyond the trained length, against cost."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from genoattn.comparison.recommendation import pareto_front
from genoattn.comparison.record import Comparison, LengthResult, SubgroupEstimate
from genoattn.comparison.report.style import POINTS, Plot, amount_axis, length_axis, look, shifted, small_multiples
from genoattn.comparison.report.tables import MEBI
from genoattn.comparison.report.text import INTERVAL, basis
from genoattn.comparison.settings import Number
from genoattn.comparison.statistics import Estimate

COSTS: tuple[tuple[str, str, Number], ...] = (
    ("seconds to read a million bases", "cost.seconds", 1),
    ("seconds a step of training", "seconds_per_step", 1),
    ("memory of training (MiB)", "training_memory", MEBI),
)
"""Label, attribute of `LayerCost` and unit of the costs that quality is drawn against."""


def quality(comparison: Comparison) -> Plot | None:
    """Mean and interval of every layer, its seeds as dots, the baselines as lines."""
    results = [result for result in comparison.results if result.estimates]
    ranked = [layer.layer for result in results[:1] for layer in result.layers]
    order = [*(name for name in comparison.layers if name not in ranked), *reversed(ranked)]
    names = list(dict.fromkeys(name for result in results for name in result.baselines))
    styles = {name: {"color": "#555555", "lw": 1, "ls": ("-", "--", ":", "-.")[n % 4]} for n, name in enumerate(names)}

    def draw(result: LengthResult, axis: Axes) -> None:
        for place, layer in enumerate(order):
            estimate, style = result.estimates.get(layer), look(comparison, layer)
            if estimate is None:
                axis.plot([0.02], [place], "x", color="#999999", transform=axis.get_yaxis_transform())
                continue
            values = estimate.values
            axis.plot(values, [place + 0.22] * len(values), "o", ms=4, mfc="none", mec=style["color"])
            axis.plot([estimate.low, estimate.high], [place] * 2, "-", color=style["color"], lw=2.5, alpha=0.6)
            axis.plot([estimate.mean], [place], style["marker"], color=style["color"], ms=8, mec="white")
        for name, baseline in result.baselines.items():
            axis.axvline(baseline.mean, zorder=0, **styles[name])
        axis.set_yticks(range(len(order)), order)
        axis.set(ylim=(-0.6, len(order) - 0.4), xlabel=comparison.metric)

    panels = [(f"{result.length:,} bases", partial(draw, result)) for result in results]
    lines = [Line2D([], [], label=f"{name} (baseline)", **style) for name, style in styles.items()]
    caption = "Mark: mean; bar: interval; each hollow dot: one seed. A cross at the left: no final run that learned."
    about = ("quality", f"{comparison.metric} by layer", caption, f"{basis(comparison)}; {INTERVAL}")
    return small_multiples(comparison, about, [panels], "", lines, 1.0 + 0.3 * len(order))


def subgroups(comparison: Comparison, by: str) -> Plot | None:
    """Quality by a property of the events or queries, a panel for each length and kind of mutation."""
    panels: dict[int, dict[str, dict[str, list[SubgroupEstimate]]]] = {}  # by length, kind and layer
    counts = []
    for result, layer in comparison.layer_results:
        for group in layer.subgroups:
            if group.by == by:
                kinds = panels.setdefault(result.length, {})
                layers = kinds.setdefault("" if group.kind == group.name else group.kind, {})
                layers.setdefault(layer.layer, []).append(group)
                counts.append(group.count)
    rows = [
        [
            (f"{length:,} bases{', ' * bool(kind)}{kind}", partial(_by_subgroup, comparison, by, layers))
            for kind, layers in kinds.items()
        ]
        for length, kinds in panels.items()
    ]
    span = " to ".join(f"{count:,}" for count in dict.fromkeys([min(counts), max(counts)]))
    caption = f"One point a subgroup of the test set, bars: interval. Layers are moved a little apart along {by}."
    rest = f"{basis(comparison)}; {span} events a point; {INTERVAL}"
    about = (f"by_{by}", f"{comparison.metric} by {by}", caption, rest)
    return small_multiples(comparison, about, rows, comparison.metric, height=2.6)


def _by_subgroup(comparison: Comparison, by: str, groups: Mapping[str, Sequence[SubgroupEstimate]], axis: Axes) -> None:
    """Lines over a logarithmic axis if the subgroups are ranges, else marks over their names."""
    every = [group for own in groups.values() for group in own]
    names = list(dict.fromkeys(group.name for group in every))
    ranges = all(group.low is not None for group in every)
    for place, (layer, own) in enumerate(groups.items()):
        if ranges:
            own = sorted(own, key=lambda group: _bounds(group)[0])
            across = [shifted(math.sqrt(math.prod(_bounds(group))), place, len(groups)) for group in own]
        else:
            across = [names.index(group.name) + 0.6 * ((place + 0.5) / len(groups) - 0.5) for group in own]
        _bars(axis, across, [group.estimate for group in own], look(comparison, layer), joined=ranges)
    if ranges:
        length_axis(axis, [edge for group in every for edge in _bounds(group)], f"{by} (bases)")
    else:
        axis.set_xticks(range(len(names)), names)
        axis.set_xlabel(by)


def _bounds(group: SubgroupEstimate) -> tuple[Number, Number]:
    """The bounds of a range for a logarithmic axis: at least 1, and twice as far if it is open."""
    low = max(group.low or 1, 1)
    return low, 2 * low if group.high is None else group.high


def _bars(
    axis: Axes, across: Sequence[Number], estimates: Sequence[Estimate], style: Mapping[str, Any], joined: bool = True
) -> None:
    style = {**style, "linestyle": style["linestyle"] if joined else "none"}
    axis.plot(across, [estimate.mean for estimate in estimates], **POINTS, **style)
    for at, estimate in zip(across, estimates, strict=True):
        axis.plot([at, at], [estimate.low, estimate.high], "-", color=style["color"], lw=1, alpha=0.6)


def lengths(comparison: Comparison) -> Plot | None:
    """Quality by length of the test windows; a ladder has a plot of its own."""
    results = [result for result in comparison.results if any(layer.by_length for layer in result.layers)]
    if comparison.ladder:
        return None

    def draw(result: LengthResult, axis: Axes) -> None:
        layers = [layer for layer in result.layers if layer.by_length]
        for place, layer in enumerate(layers):
            tested = sorted(layer.by_length)
            across = [shifted(length, place, len(layers)) for length in tested]
            style = look(comparison, layer.layer)
            _bars(axis, across, [layer.by_length[length] for length in tested], style)
        axis.axvline(result.length, color="#555555", ls=":", lw=1, zorder=0)
        tested = {length for layer in layers for length in layer.by_length}
        length_axis(axis, [result.length, *tested], "tested length (bases)")

    panels = [(f"trained at {result.length:,} bases", partial(draw, result)) for result in results]
    caption = "Dotted: the trained length. Layers are moved a little apart."
    title = f"{comparison.metric} by length of the test windows"
    about = ("lengths", title, caption, f"{basis(comparison)}; {INTERVAL}")
    return small_multiples(comparison, about, [panels], comparison.metric)


def tradeoff(comparison: Comparison) -> Plot | None:
    """Quality against three costs, a row a length, with the Pareto front."""

    def points(result: LengthResult, attribute: str, unit: Number) -> dict[str, Number]:
        amounts = {layer: attrgetter(attribute)(comparison.cost(layer, result.length)) for layer in result.estimates}
        return {layer: amount / unit for layer, amount in amounts.items() if amount is not None}

    def draw(result: LengthResult, label: str, attribute: str, unit: Number, axis: Axes) -> None:
        across = points(result, attribute, unit)
        for layer, value in across.items():
            _bars(axis, [value], [result.estimates[layer]], look(comparison, layer), joined=False)
        front = pareto_front({layer: (value, result.estimates[layer].mean) for layer, value in across.items()})
        means = [result.estimates[layer].mean for layer in front]
        axis.step([across[layer] for layer in front], means, where="post", color="#888888", lw=1, zorder=0)
        amount_axis(axis, "x", [*across.values()])
        axis.set_xlabel(label)

    rows = [
        [(f"{result.length:,} bases", partial(draw, result, *cost)) for cost in COSTS]
        for result in comparison.results
        if any(points(result, attribute, unit) for _, attribute, unit in COSTS)
    ]
    caption = "Grey: the Pareto front; no layer on it is beaten both in mean quality and in that panel's cost."
    caption += " Memory: what training adds to the process."
    title, rest = f"{comparison.metric} against cost", f"{basis(comparison)}; {INTERVAL}; costs measured once"
    return small_multiples(comparison, ("tradeoff", title, caption, rest), rows, comparison.metric)
