"""Plots of training and cost: learning curves, the sweep, memory and speed against length, effective context."""

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullFormatter

from genoattn.comparison.record import Comparison
from genoattn.comparison.report.style import POINTS, Plot, amount_axis, length_axis, look, small_multiples
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
    curves = {place: own for place, own in curves.items() if own}

    def draw(length: int, axis: Axes) -> None:
        for (at, layer), own in curves.items():
            if at == length:
                _curve(axis, own, look(comparison, layer))
        axis.set_xlabel("bases seen in training")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))

    panels = [(f"{length:,} bases", partial(draw, length)) for length in dict.fromkeys(length for length, _ in curves)]
    caption = "Line: mean of the seeds, as far as all of them went; shade: from the lowest seed to the highest."
    about = ("learning", "Learning curves", caption, f"{basis(comparison)}; no interval, the shade is a range")
    return small_multiples(comparison, about, [panels], "validation loss")


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
    rates = sorted({rate for _, _, rate in losses})

    def draw(length: int, axis: Axes) -> None:
        for layer in comparison.layers:
            own = {rate: loss for (at, name, rate), loss in losses.items() if (at, name) == (length, layer)}
            style, best = look(comparison, layer), comparison.learning_rates.get((layer, length))
            if own:
                axis.plot([*own], [*own.values()], **POINTS, **style)
            if best in own:
                axis.plot([best], [own[best]], "o", ms=12, mfc="none", mec=style["color"], mew=1.5)
        axis.set(xscale="log", xlabel="learning rate")
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.xaxis.set_minor_formatter(NullFormatter())

    panels = [
        (f"{length:,} bases", partial(draw, length)) for length in dict.fromkeys(length for length, _, _ in losses)
    ]
    caption = "Ringed: the rate of the final runs. A ring at an end: a wider sweep may find a better rate."
    about = ("sweep", "Learning rates", caption, f"{basis(comparison, 'sweep')}; {NO_INTERVAL}")
    return small_multiples(comparison, about, [panels], "validation loss")


def memory(comparison: Comparison) -> Plot | None:
    """Memory above the process against length, in training and forward."""
    caption = "Peak memory minus that of the process before the first batch. The horizontal axis is logarithmic."
    about = ("memory", "Memory against length", caption)
    return _scaling(comparison, about, "MiB above the process", "memory", MEBI)


def speed(comparison: Comparison) -> Plot | None:
    """Bases a second against length, in training and forward."""
    caption = "The horizontal axis is logarithmic. Lengths at which two layers cross are in the table of crossovers."
    return _scaling(comparison, ("speed", "Speed against length", caption), "bases a second", "bases_per_second")


def _scaling(
    comparison: Comparison, about: tuple[str, str, str], label: str, field: str, unit: Number = 1
) -> Plot | None:
    """A field of the costs against length, a panel for training and one for the forward pass."""
    lengths = sorted({cost.length for cost in comparison.costs})

    def draw(stage: str, axis: Axes) -> None:
        value, drawn = attrgetter(f"{stage}_{field}"), []
        for layer in comparison.layers:
            amounts = {length: value(comparison.cost(layer, length)) for length in lengths}
            amounts = {length: amount / unit for length, amount in amounts.items() if amount is not None}
            if amounts:
                axis.plot([*amounts], [*amounts.values()], **POINTS, **look(comparison, layer))
            drawn += amounts.values()
        amount_axis(axis, "y", drawn)
        length_axis(axis, lengths, "length (bases)")

    stages = ("training", "forward")
    known = any(attrgetter(f"{stage}_{field}")(cost) for stage in stages for cost in comparison.costs)
    panels = [(stage, partial(draw, stage)) for stage in stages if known]
    basis_ = f"n = 1 measurement a point, one seed; {NO_INTERVAL}"
    return small_multiples(comparison, (*about, basis_), [panels], label)


def context(comparison: Comparison) -> Plot | None:
    """Change of the answers against the distance of the changed base."""
    contexts = [(at.length, layer.layer, layer.context) for at, layer in comparison.layer_results if layer.context]
    contexts = [(at, layer, context) for at, layer, context in contexts if any(row[0] > 0 for row in context.curve)]

    def draw(length: int, axis: Axes) -> None:
        farthest = 1.0
        for layer, context in ((layer, context) for at, layer, context in contexts if at == length):
            style = look(comparison, layer)
            distance, effect, *band = np.array([row for row in context.curve if row[0] > 0], float).T
            # No effect, as beyond a window, has no place on a logarithmic axis.
            axis.plot(distance, np.where(effect > 0, effect, np.nan), ms=4, lw=1.4, **style)
            if len(band) == 2:
                axis.fill_between(distance, *band, where=band[0] > 0, color=style["color"], alpha=0.12, lw=0)
            if context.effective:
                axis.axvline(context.effective, ymax=0.06, color=style["color"], lw=3)
            farthest = max(farthest, distance.max())
        axis.set_yscale("log")
        length_axis(axis, [2.0**power for power in range(int(np.log2(farthest)) + 1)], "distance (bases)")

    lengths = dict.fromkeys(at for at, _, _ in contexts)
    panels = [(f"trained at {length:,} bases", partial(draw, length)) for length in lengths]
    caption = "Effect of changing one base on the answers, by its distance. Marks at the foot: effective context."
    caption += " Without an effect there is no line."
    rest = "n = 1 model a layer and length, of one seed; shade: 95 % interval over windows"
    about = ("context", "Effective context", caption, rest)
    return small_multiples(comparison, about, [panels], "change of the answers")
