"""Plots of training and cost: learning curves, the sweep, memory and speed against length, effective context."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullFormatter

from genoattn.comparison.record import Comparison, LayerCost, LengthResult
from genoattn.comparison.report.style import Plot, amount_axis, length_axis, look, small_multiples
from genoattn.comparison.report.tables import MEBI
from genoattn.comparison.report.text import NO_INTERVAL, basis
from genoattn.comparison.settings import Number


def learning(comparison: Comparison) -> Plot | None:
    """Validation loss against bases, of the final runs."""
    curves = {
        (length, layer): [np.array(run.curve) for run in comparison.runs_of("final", length, layer) if run.curve]
        for length in comparison.settings.lengths
        for layer in comparison.layers
    }
    lengths = [length for length in comparison.settings.lengths if any(curves[length, n] for n in comparison.layers)]
    if not lengths:
        return None

    def draw(length: int, axis: Axes) -> None:
        for layer in comparison.layers:
            if curves[length, layer]:
                _curve(axis, curves[length, layer], look(comparison, layer))
        axis.set_xlabel("bases seen in training")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))

    panels = [(f"{length:,} bases", partial(draw, length)) for length in lengths]
    caption = "Line: mean of the seeds, as far as all of them went; shade: from the lowest seed to the highest."
    rest = f"{basis(comparison)}; no interval, the shade is a range"
    present = [layer for (_, layer), own in curves.items() if own]
    about = ("learning", "Learning curves", caption, rest)
    return small_multiples(comparison, about, [panels], "validation loss", present)


def _curve(axis: Axes, curves: Sequence[np.ndarray], style: Mapping[str, Any]) -> None:
    """Seeds may stop at different bases: all curves are read at the bases of the one that stopped first."""
    shortest = min(curves, key=lambda points: points[-1, 0])
    start = max(points[0, 0] for points in curves)
    grid = shortest[shortest[:, 0] >= start, 0]
    values = np.stack([np.interp(grid, points[:, 0], points[:, 1]) for points in curves])
    axis.plot(grid, values.mean(0), ms=4, lw=1.4, markevery=max(1, len(grid) // 6), **style)
    axis.fill_between(grid, values.min(0), values.max(0), color=style["color"], alpha=0.15, lw=0)


def sweep(comparison: Comparison) -> Plot | None:
    """Validation loss against learning rate; the chosen rate is ringed."""
    runs = [run for run in comparison.runs if run.stage == "sweep"]
    losses = {
        (run.length, run.layer, run.learning_rate): run.validation_loss
        for run in sorted(runs, key=lambda run: run.learning_rate)
        if run.validation_loss is not None
    }
    if not losses:
        return None
    chosen = {
        (result.length, layer.layer): layer.learning_rate for result in comparison.results for layer in result.layers
    }

    def draw(length: int, axis: Axes) -> None:
        for layer in comparison.layers:
            own = {rate: loss for (at, name, rate), loss in losses.items() if (at, name) == (length, layer)}
            style, best = look(comparison, layer), chosen.get((length, layer))
            axis.plot([*own], [*own.values()], ms=5, lw=1.4, **style)
            if best in own:
                axis.plot([best], [own[best]], "o", ms=12, mfc="none", mec=style["color"], mew=1.5)
        rates = sorted({run.learning_rate for run in runs})
        axis.set(xscale="log", xlabel="learning rate")
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.xaxis.set_minor_formatter(NullFormatter())

    panels = [(f"{length:,} bases", partial(draw, length)) for length in dict.fromkeys(run.length for run in runs)]
    caption = "Ringed: the rate of the final runs. A ring at an end: a wider sweep may find a better rate."
    about = ("sweep", "Learning rates", caption, f"{basis(comparison, 'sweep')}; {NO_INTERVAL}")
    return small_multiples(comparison, about, [panels], "validation loss", [run.layer for run in runs])


def memory(comparison: Comparison) -> Plot | None:
    """Memory above the process against length, in training and forward."""
    caption = "Peak memory minus that of the process before the first batch. The horizontal axis is logarithmic."
    return _scaling(
        comparison,
        ("memory", "Memory against length", caption),
        "MiB above the process",
        {
            "training": lambda cost: None if cost.training_memory is None else cost.training_memory / MEBI,
            "forward": lambda cost: None if cost.forward_memory is None else cost.forward_memory / MEBI,
        },
    )


def speed(comparison: Comparison) -> Plot | None:
    """Bases a second against length, in training and forward."""
    caption = "The horizontal axis is logarithmic. Lengths at which two layers cross are in the table of crossovers."
    return _scaling(
        comparison,
        ("speed", "Speed against length", caption),
        "bases a second",
        {
            "training": lambda cost: cost.training_bases_per_second,
            "forward": lambda cost: cost.forward_bases_per_second,
        },
    )


def _scaling(
    comparison: Comparison,
    about: tuple[str, str, str],
    label: str,
    values: Mapping[str, Callable[[LayerCost], Number | None]],
) -> Plot | None:
    lengths = sorted({cost.length for cost in comparison.costs})
    layers = [layer for layer in comparison.layers if any(cost.layer == layer for cost in comparison.costs)]

    def draw(value: Callable[[LayerCost], Number | None], axis: Axes) -> None:
        drawn = []
        for layer in layers:
            points = [(length, y) for length in lengths if (y := value(comparison.cost(layer, length))) is not None]
            axis.plot([x for x, _ in points], [y for _, y in points], ms=5, lw=1.4, **look(comparison, layer))
            drawn += [y for _, y in points]
        amount_axis(axis, "y", drawn)
        length_axis(axis, lengths, "length (bases)")

    if not any(value(cost) for value in values.values() for cost in comparison.costs):
        return None
    panels = [(name, partial(draw, value)) for name, value in values.items()]
    basis_ = f"n = 1 measurement a point, one seed; {NO_INTERVAL}"
    return small_multiples(comparison, (*about, basis_), [panels], label, layers)


def context(comparison: Comparison) -> Plot | None:
    """Change of the answers against the distance of the changed base."""
    results = [
        result for result in comparison.results if any(layer.context and layer.context.curve for layer in result.layers)
    ]
    if not results:
        return None

    def draw(result: LengthResult, axis: Axes) -> None:
        farthest = 1.0
        for layer in result.layers:
            rows = [row for row in (layer.context.curve if layer.context else ()) if row[0] > 0]
            if not rows or layer.context is None:
                continue
            style = look(comparison, layer.layer)
            distance, effect, *band = np.array(rows, float).T
            # No effect, as beyond a window, has no place on a logarithmic axis.
            axis.plot(distance, np.where(effect > 0, effect, np.nan), ms=4, lw=1.4, **style)
            if len(band) == 2:
                axis.fill_between(distance, *band, where=band[0] > 0, color=style["color"], alpha=0.12, lw=0)
            if layer.context.effective:
                axis.axvline(layer.context.effective, ymax=0.06, color=style["color"], lw=3)
            farthest = max(farthest, distance.max())
        axis.set_yscale("log")
        length_axis(axis, [2.0**power for power in range(int(np.log2(farthest)) + 1)], "distance (bases)")

    panels = [(f"trained at {result.length:,} bases", partial(draw, result)) for result in results]
    caption = "Effect of changing one base on the answers, by its distance. Marks at the foot: effective context."
    caption += " Without an effect there is no line."
    rest = "n = 1 model a layer and length, of one seed; shade: 95 % interval over windows"
    present = [layer.layer for result in results for layer in result.layers if layer.context]
    about = ("context", "Effective context", caption, rest)
    return small_multiples(comparison, about, [panels], "change of the answers", present)
