"""Plots of quality: by layer, by part of the test set, beyond the trained length, against cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from genoattn.comparison.recommendation import pareto_front
from genoattn.comparison.report.plot_style import Plot, cost_axis, dodge, finish, length_axis, look, panels
from genoattn.comparison.report.record import estimates, layers, lengths, measure, of, ranked, runs
from genoattn.comparison.report.tables import MEBI
from genoattn.comparison.report.text import INTERVAL, basis

PRICES: Mapping[str, Callable[[Mapping], float | None]] = {
    "seconds to read a million bases": lambda cost: (
        1e6 / speed if (speed := cost.get("forward_bases_per_second")) else None
    ),
    "seconds a step of training": lambda cost: cost.get("seconds_per_step"),
    "peak memory in training (MiB)": lambda cost: peak / MEBI if (peak := cost.get("training_peak_bytes")) else None,
}
"""What a layer costs at a length, by the words of an axis."""


GREYS = ("-", "--", ":", "-.")


def quality(comparison: Mapping) -> Plot | None:
    """Mean and interval of every layer, its seeds as dots, the references as lines."""
    shown = [length for length in lengths(comparison) if estimates(comparison, length)]
    if not shown:
        return None
    order = ranked(comparison, shown[0])[::-1]
    figure, (row,) = panels([[f"{length:,} bases" for length in shown]], high=1.2 + 0.34 * len(order))
    names = dict.fromkeys(name for length in shown for name in of(comparison, "baselines", length))
    references = {
        name: {"color": "#555555", "lw": 1, "linestyle": GREYS[place % len(GREYS)]} for place, name in enumerate(names)
    }
    for panel, length in zip(row, shown, strict=True):
        for place, layer in enumerate(order):
            _estimate(panel, place, estimates(comparison, length).get(layer), look(comparison, layer))
        for name, found in of(comparison, "baselines", length).items():
            if (found or {}).get("mean") is not None:
                panel.axvline(found["mean"], zorder=0, **references[name])
        panel.set_yticks(range(len(order)), order)
        panel.set_ylim(-0.6, len(order) - 0.4)
        panel.set_xlabel(measure(comparison))
    words = "Mark: mean; bar: interval; each hollow dot: one seed. A cross on the left: no final run."
    about = ("quality", f"{measure(comparison)} by layer", words, f"{basis(comparison)}; {INTERVAL}")
    lines = [Line2D([], [], label=f"{name} (reference)", **style) for name, style in references.items()]
    return finish(figure, comparison, [], about, lines)


def _estimate(panel: Axes, place: int, found: Mapping | None, style: Mapping[str, Any]) -> None:
    if not found or found.get("mean") is None:
        panel.plot([0.02], [place], "x", color="#999999", transform=panel.get_yaxis_transform())
        return
    values = [value for value in found.get("values") or [] if value is not None]
    panel.plot(values, [place + 0.22] * len(values), "o", ms=4, mfc="none", mec=style["color"])
    if found.get("low") is not None and found.get("high") is not None:
        panel.plot([found["low"], found["high"]], [place, place], "-", color=style["color"], lw=2.5, alpha=0.6)
    panel.plot([found["mean"]], [place], style["marker"], color=style["color"], ms=8, mec="white")


def strata(comparison: Mapping, by: str) -> Plot | None:
    """Quality against a property of the questions, a panel a length and kind of mutation."""
    parts = {
        (length, layer): [one for one in found if one["by"] == by and one.get("mean") is not None]
        for length in lengths(comparison)
        for layer, found in of(comparison, "strata", length).items()
    }
    shown = [at for at in lengths(comparison) if any(parts.get((at, layer)) for layer in layers(comparison))]
    kinds = list(dict.fromkeys(_kind(one) for found in parts.values() for one in found))
    if not shown:
        return None
    figure, rows = panels([[f"{at:,} bases" + f", {kind}" * bool(kind) for kind in kinds] for at in shown])
    present = [name for name in layers(comparison) if any(parts.get((at, name)) for at in shown)]
    for row, length in zip(rows, shown, strict=True):
        for panel, kind in zip(row, kinds, strict=True):
            mine = {layer: [one for one in parts.get((length, layer), []) if _kind(one) == kind] for layer in present}
            _against(panel, by, {layer: found for layer, found in mine.items() if found}, comparison)
        row[0].set_ylabel(measure(comparison))
    counts = [one["count"] for found in parts.values() for one in found if one.get("count") is not None]
    span = " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)})) if counts else "unknown"
    words = f"One point a part of the test set, bars: interval. Layers are set a little apart along {by}."
    about = (
        f"by_{by}",
        f"{measure(comparison)} against {by}",
        words,
        f"{basis(comparison)}; {span} questions a point; {INTERVAL}",
    )
    return finish(figure, comparison, present, about)


def _kind(one: Mapping) -> str:
    """The kind of mutation that a part is of, where it is not the part itself."""
    return "" if one.get("kind") == one["name"] else one.get("kind") or ""


def _span(one: Mapping) -> tuple[int | float, int | float]:
    """The bounds of a part for a logarithmic axis: at least 1, and where it is open, as far again."""
    low = max(one["low"], 1)
    return low, one["high"] if one.get("high") is not None else 2 * low


def _against(panel: Axes, by: str, found: Mapping[str, Sequence[Mapping]], comparison: Mapping) -> None:
    """Lines over a logarithmic axis where the parts are ranges, else over their names."""
    every = [one for parts in found.values() for one in parts]
    ranges = all(one.get("low") is not None for one in every)
    names = list(dict.fromkeys(one["name"] for one in every))
    for place, (layer, parts) in enumerate(found.items()):
        if ranges:
            parts = sorted(parts, key=lambda one: one["low"])
            across = dodge([math.sqrt(math.prod(_span(one))) for one in parts], place, len(found))
        else:
            across = [names.index(one["name"]) + 0.6 * ((place + 0.5) / len(found) - 0.5) for one in parts]
        _bars(panel, across, parts, look(comparison, layer), "ci_low", "ci_high", joined=ranges)
    if every and ranges:
        edges = [edge for one in every for edge in _span(one)]
        length_axis(panel, edges, f"{by} (bases)" if by in ("distance", "length") else by)
    else:
        panel.set_xticks(range(len(names)), names)
        panel.set_xlabel(by)


def _bars(
    panel: Axes,
    across: Sequence,
    found: Sequence[Mapping],
    style: Mapping[str, Any],
    low: str,
    high: str,
    joined: bool = True,
) -> None:
    style = {**style, "linestyle": style["linestyle"] if joined else "none"}
    panel.plot(across, [one["mean"] for one in found], ms=5, lw=1.4, **style)
    for at, one in zip(across, found, strict=True):
        if one.get(low) is not None and one.get(high) is not None:
            panel.plot([at, at], [one[low], one[high]], "-", color=style["color"], lw=1, alpha=0.6)


def extrapolation(comparison: Mapping) -> Plot | None:
    """Quality at lengths beyond the trained one."""
    shown = [length for length in lengths(comparison) if of(comparison, "extrapolation", length)]
    if not shown:
        return None
    figure, (row,) = panels([[f"trained at {length:,} bases" for length in shown]])
    present = [
        name for name in layers(comparison) if any(of(comparison, "extrapolation", at).get(name) for at in shown)
    ]
    seed = next(iter(comparison.get("seeds") or []), None)
    for panel, length in zip(row, shown, strict=True):
        ticks = [length]
        for place, layer in enumerate(present):
            found = of(comparison, "extrapolation", length).get(layer) or []
            found = sorted((one for one in found if one.get("mean") is not None), key=lambda one: one["length"])
            first = [one for one in runs(comparison, "final", length, layer) if one.get("seed") == seed]
            if found and found[0]["length"] > length and first and first[0].get("value") is not None:
                found = [{"length": length, "mean": first[0]["value"]}, *found]
            across = dodge([one["length"] for one in found], place, len(present))
            _bars(panel, across, found, look(comparison, layer), "low", "high")
            ticks += [one["length"] for one in found]
        panel.axvline(length, color="#555555", ls=":", lw=1, zorder=0)
        length_axis(panel, ticks, "length evaluated at (bases)")
    row[0].set_ylabel(measure(comparison))
    words = "Dotted: the trained length, at which the same model is shown. Layers are set a little apart."
    title = f"{measure(comparison)} beyond the trained length"
    rest = f"n = 1 model a layer and length, of seed {'unknown' if seed is None else seed}; 95 % interval over blocks"
    about = ("extrapolation", title, words, rest)
    return finish(figure, comparison, present, about)


def tradeoff(comparison: Mapping) -> Plot | None:
    """Quality against three costs, a row a length, with the front that nothing beats in both."""
    found = {
        (length, word): {
            layer: (cost, one)
            for layer in layers(comparison)
            if (one := estimates(comparison, length).get(layer) or {}).get("mean") is not None
            and (cost := price(of(comparison, "costs", length).get(layer) or {})) is not None
        }
        for length in lengths(comparison)
        for word, price in PRICES.items()
    }
    shown = [length for length in lengths(comparison) if any(found[length, word] for word in PRICES)]
    if not shown:
        return None
    figure, rows = panels([[f"{length:,} bases"] * len(PRICES) for length in shown], wide=3.8)
    for row, length in zip(rows, shown, strict=True):
        for panel, word in zip(row, PRICES, strict=True):
            for layer, (cost, one) in found[length, word].items():
                _bars(panel, [cost], [one], look(comparison, layer), "low", "high", joined=False)
            line = pareto_front({layer: (cost, one["mean"]) for layer, (cost, one) in found[length, word].items()})
            across, up = (
                [[found[length, word][layer][0] for layer in line]],
                [found[length, word][layer] for layer in line],
            )
            panel.step(across[0], [one["mean"] for _, one in up], where="post", color="#888888", lw=1, zorder=0)
            cost_axis(panel, [cost for cost, _ in found[length, word].values()], word)
        row[0].set_ylabel(measure(comparison))
    present = {layer for length in shown for word in PRICES for layer in found[length, word]}
    words = "Grey: the front; no layer on or above it is beaten both in mean quality and in that panel's cost."
    rest = f"{basis(comparison)}; {INTERVAL}; costs measured once"
    return finish(figure, comparison, [*present], ("tradeoff", f"{measure(comparison)} against cost", words, rest))
