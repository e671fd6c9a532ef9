"""Plots of how layers train and scale: learning curves, the sweep, memory and speed against length, context."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullFormatter

from genoattn.comparison.report.plot_style import Plot, finish, length_axis, look, panels
from genoattn.comparison.report.record import layers, lengths, of, runs
from genoattn.comparison.report.tables import MEBI
from genoattn.comparison.report.text import NO_INTERVAL, basis

CROSSED = {"to read": "forward_bases_per_second", "to train on": "training_bases_per_second"}
"""The cost that a crossover is in."""


def learning(comparison: Mapping) -> Plot | None:
    """Validation loss against bases, of the final runs."""
    curves = {
        (length, layer): [
            points
            for one in runs(comparison, "final", length, layer)
            if (points := np.array([p for p in one.get("curve") or [] if None not in p], float)).size
        ]
        for length in lengths(comparison)
        for layer in layers(comparison)
    }
    shown = [length for length in lengths(comparison) if any(curves[length, layer] for layer in layers(comparison))]
    if not shown:
        return None
    figure, (row,) = panels([[f"{length:,} bases" for length in shown]])
    for panel, length in zip(row, shown, strict=True):
        for layer in layers(comparison):
            if curves[length, layer]:
                _curve(panel, curves[length, layer], look(comparison, layer))
        panel.set_xlabel("bases seen in training")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    row[0].set_ylabel("validation loss")
    present = [layer for layer in layers(comparison) if any(curves[length, layer] for length in shown)]
    words = "Line: mean of the seeds, as far as all of them went; shade: from the lowest seed to the highest."
    rest = f"{basis(comparison)}; no interval, the shade is a range"
    return finish(figure, comparison, present, ("learning", "Learning curves", words, rest))


def _curve(panel: Axes, curves: list[np.ndarray], style: Mapping[str, Any]) -> None:
    """Seeds that ran for seconds stop at different bases: all are read at the bases of the one that stopped first."""
    shortest = min(curves, key=lambda points: points[-1, 0])
    start = max(points[0, 0] for points in curves)
    grid = shortest[shortest[:, 0] >= start, 0]
    values = np.stack([np.interp(grid, points[:, 0], points[:, 1]) for points in curves])
    panel.plot(grid, values.mean(0), ms=4, lw=1.4, markevery=max(1, len(grid) // 6), **style)
    panel.fill_between(grid, values.min(0), values.max(0), color=style["color"], alpha=0.15, lw=0)


def sweep(comparison: Mapping) -> Plot | None:
    """Validation loss against learning rate; the chosen one is ringed."""
    shown = [
        length
        for length in lengths(comparison)
        if any(_losses(comparison, length, layer) for layer in layers(comparison))
    ]
    if not shown:
        return None
    figure, (row,) = panels([[f"{length:,} bases" for length in shown]])
    for panel, length in zip(row, shown, strict=True):
        rates = set()
        for layer in layers(comparison):
            losses = _losses(comparison, length, layer)
            panel.plot([*losses], [*losses.values()], ms=5, lw=1.4, **look(comparison, layer))
            best = of(comparison, "chosen", length).get(layer)
            if best in losses:
                colour = look(comparison, layer)["color"]
                panel.plot([best], [losses[best]], "o", ms=12, mfc="none", mec=colour, mew=1.5)
            rates |= {*losses}
        panel.set(xscale="log", xlabel="learning rate")
        panel.set_xticks(sorted(rates), [f"{rate:g}" for rate in sorted(rates)])
        panel.xaxis.set_minor_formatter(NullFormatter())
    row[0].set_ylabel("validation loss")
    present = [layer for layer in layers(comparison) if any(_losses(comparison, length, layer) for length in shown)]
    rest = f"{basis(comparison, 'sweep')}; {NO_INTERVAL}"
    about = ("sweep", "Learning rates", "Ringed: the rate that the final runs took.", rest)
    return finish(figure, comparison, present, about)


def _losses(comparison: Mapping, length: int, layer: str) -> dict[int | float, float]:
    """By learning rate, the mean validation loss over the sweep's seeds."""
    found: dict[int | float, list[float]] = {}
    for one in runs(comparison, "sweep", length, layer):
        if one.get("validation_loss") is not None:
            found.setdefault(one["lr"], []).append(one["validation_loss"])
    return {rate: sum(found[rate]) / len(found[rate]) for rate in sorted(found)}


def memory(comparison: Mapping) -> Plot | None:
    """Peak memory against length, in training and forward."""
    keys = {"training_peak_bytes": "training", "forward_peak_bytes": "forward"}
    return _scaling(comparison, ("memory", "Peak memory against length"), keys, "peak memory (MiB)", MEBI)


def speed(comparison: Mapping) -> Plot | None:
    """Bases a second against length, in training and forward."""
    keys = {"training_bases_per_second": "training", "forward_bases_per_second": "forward"}
    return _scaling(comparison, ("speed", "Speed against length"), keys, "bases a second", 1)


def _scaling(
    comparison: Mapping, about: tuple[str, str], keys: Mapping[str, str], word: str, scale: int
) -> Plot | None:
    measured = sorted(map(int, comparison.get("costs") or {}))
    lines = {
        (key, layer): {
            at: costs[key] / scale
            for at in measured
            if (costs := of(comparison, "costs", at).get(layer) or {}).get(key) is not None
        }
        for key in keys
        for layer in layers(comparison)
    }
    keys = {key: name for key, name in keys.items() if any(lines[key, layer] for layer in layers(comparison))}
    if not keys:
        return None
    figure, (row,) = panels([[*keys.values()]])
    for panel, key in zip(row, keys, strict=True):
        for layer in layers(comparison):
            panel.plot([*lines[key, layer]], [*lines[key, layer].values()], ms=5, lw=1.4, **look(comparison, layer))
        for one in comparison.get("crossovers") or []:
            line = lines.get((key, one["cheaper"]))
            if CROSSED.get(one["what"]) == key and line and one.get("length"):
                height = np.exp(np.interp(np.log(one["length"]), np.log([*line]), np.log([*line.values()])))
                panel.plot([one["length"]], [height], "*", ms=13, color="black", mec="white", zorder=9)
        panel.set_yscale("log")
        length_axis(panel, measured, "length (bases)")
        panel.set_ylabel(word)
    present = [layer for layer in layers(comparison) if any(lines[key, layer] for key in keys)]
    words = "Both axes are logarithmic."
    if {*keys} & {*CROSSED.values()} and comparison.get("crossovers"):
        words += " A star: the length from which one layer is faster than another, told in the table of crossovers."
    basis_ = f"n = 1 measurement a point, one seed; {NO_INTERVAL}"
    return finish(figure, comparison, present, (*about, words, basis_))


def context(comparison: Mapping) -> Plot | None:
    """Change of the output against the distance of the changed base."""
    shown = [
        length
        for length in lengths(comparison)
        if any(found.get("curve") for found in of(comparison, "context", length).values())
    ]
    if not shown:
        return None
    figure, (row,) = panels([[f"trained at {length:,} bases" for length in shown]])
    for panel, length in zip(row, shown, strict=True):
        reached = []
        for layer in layers(comparison):
            found = of(comparison, "context", length).get(layer) or {}
            rows = [row for row in found.get("curve") or [] if row[0] > 0]
            style = look(comparison, layer)
            # Nothing at all, as beyond a window's reach, has no place on a logarithmic axis.
            across, up, *band = (np.array(part, float) for part in zip(*rows, strict=True)) if rows else ([], [])
            panel.plot(across, np.where(np.array(up) > 0, up, np.nan), ms=4, lw=1.4, **style)
            if len(band) == 2:
                panel.fill_between(across, *band, where=band[0] > 0, color=style["color"], alpha=0.12, lw=0)
            reached += list(across)
            if found.get("effective"):
                panel.axvline(found["effective"], ymax=0.06, color=style["color"], lw=3)
        panel.set_yscale("log")
        length_axis(panel, [2.0**power for power in range(int(np.log2(max([1, *reached]))) + 1)], "distance (bases)")
    row[0].set_ylabel("change of the answers")
    present = [layer for layer in layers(comparison) if any(of(comparison, "context", at).get(layer) for at in shown)]
    words = "What changing one base does to the answers, by its distance. Ticks at the foot: effective context. "
    words += "Where nothing changes there is no line."
    rest = "n = 1 model a layer and length, of one seed; shade: 95 % interval over windows, where there are several"
    return finish(figure, comparison, present, ("context", "Effective context", words, rest))
