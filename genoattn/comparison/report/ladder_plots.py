"""Plots of a ladder: accuracy against length, solved length against state, time to learn, quality against cost."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from genoattn.comparison.ladder import Crossing, Ladder, LadderRow, median, solved_length
from genoattn.comparison.recommendation import pareto_front
from genoattn.comparison.record import Comparison
from genoattn.comparison.report.style import POINTS, Plot, amount_axis, length_axis, look, shifted, small_multiples
from genoattn.comparison.report.tables import longest_first
from genoattn.comparison.report.text import basis
from genoattn.comparison.settings import Number

PANELS = 8
"""Most panels of accuracy against length; more layers share them."""

KNOWN, CENSORED = "o", {"below": "v", "above": "^"}
"""Marks of a value, and of values beyond an end."""

COSTS: tuple[tuple[str, str, Number], ...] = (
    ("attention state (KiB)", "state_bytes", 1024),
    ("FLOPs of training (TFLOP)", "flops", 1e12),
    ("seconds of training", "seconds", 1),
)
"""Label, attribute of `LadderRow` and unit of the costs that n50 is drawn against."""


def accuracy(comparison: Comparison) -> Plot | None:
    """Accuracy against length, with the range of the seeds, and the capacity of the layers dotted."""
    ladder = comparison.ladder
    if ladder is None:
        return None
    runs = {row.layer: comparison.runs_of("final", ladder.lengths[-1], row.layer) for row in ladder.rows}

    def draw(rows: Sequence[LadderRow], axis: Axes) -> None:
        for row in rows:
            style = look(comparison, row.layer)
            lengths = sorted({length for run in runs[row.layer] for length in run.by_length})
            seeds = [
                [run.by_length[length] for run in runs[row.layer] if length in run.by_length] for length in lengths
            ]
            axis.plot(lengths, [sum(own) / len(own) for own in seeds], **POINTS, **style)
            axis.fill_between(lengths, [min(own) for own in seeds], [max(own) for own in seeds], **_shade(style))
            keys = sorted(row.capacity)
            axis.plot(keys, [row.capacity[key] for key in keys], ":", color=style["color"], lw=1.4)
        axis.plot([*ladder.floor], [*ladder.floor.values()], "-", color="#999999", lw=1, zorder=0)
        axis.set_ylim(0, 1.03)
        length_axis(axis, _lengths(comparison, ladder), "tested length (bases)")

    rows = [row for row in sorted(ladder.rows, key=longest_first) if row.layer != "none"]
    groups = [rows[start :: min(PANELS, len(rows))] for start in range(min(PANELS, len(rows)))]
    panels = [(", ".join(row.layer for row in group), partial(draw, group)) for group in groups]
    caption = (
        "Line: mean of the seeds; shade: from the lowest seed to the highest. Dotted: letters that an ideal reader"
    )
    caption += " tells from one untrained layer that stores as many random keys. Grey: none."
    lines = [Line2D([], [], color="#999999", lw=1, label="none")]
    if any(row.capacity for row in rows):
        lines.append(Line2D([], [], ls=":", color="black", lw=1.4, label="before training"))
    about = (
        "ladder",
        f"Accuracy ({ladder.metric}) against length",
        caption,
        f"{basis(comparison)}; no interval, a range",
    )
    return small_multiples(comparison, about, [panels], ladder.metric, lines)


def solved(comparison: Comparison) -> Plot | None:
    """n90 and n50 of every seed against the state of the layer, with the line of the exponent."""
    ladder = comparison.ladder
    if ladder is None or not any(row.state_bytes for row in ladder.rows):
        return None
    told = {row.layer: _told(row) for row in ladder.rows}

    def draw(name: str, axis: Axes) -> None:
        rows = [row for row in ladder.rows if row.state_bytes]
        states = [(row.state_bytes or 0) / 1024 for row in rows]
        for place, (row, state) in enumerate(zip(rows, states, strict=True)):
            across, style = shifted(state, place, len(rows)), look(comparison, row.layer)
            _crossings(axis, across, row.solved[name], style)
            if (capacity := told[row.layer]) is not None:
                axis.plot([across], [capacity], "_", ms=14, mew=2, color=style["color"])
        if name == "n50" and (fit := ladder.exponent):
            ends = np.array([state for row, state in zip(rows, states, strict=True) if row.layer in fit.layers])
            ends = np.array([ends.min(), ends.max()])
            axis.plot(ends, np.exp(fit.intercept) * (ends * 1024) ** fit.slope, "--", color="#888888", lw=1, zorder=0)
        amount_axis(axis, "x", states)
        axis.set_xlabel("attention state (KiB)")
        axis.set_yscale("log", base=2)
        axis.set_yticks(ladder.lengths, [f"{length:,}" for length in ladder.lengths])

    panels = [(name, partial(draw, name)) for name in ("n90", "n50")]
    caption = (
        "A mark a seed; triangles: beyond the ladder. Bars: the number of keys of which an ideal reader tells half of"
    )
    caption += " the letters above guessing, before training. Dashed: the exponent. Layers are moved a little apart."
    about = ("solved", "Solved length against state", caption, f"{basis(comparison)}; no interval, every seed is drawn")
    return small_multiples(comparison, about, [panels], "solved length (bases)")


def time_to_learn(comparison: Comparison) -> Plot | None:
    """The tokens and seconds after which each seed of a layer had begun to learn."""
    ladder = comparison.ladder
    if ladder is None or not any(row.tokens_to_learn for row in ladder.rows):
        return None
    rows = sorted(ladder.rows, key=_first_to_learn, reverse=True)

    def draw(values: Callable[[LadderRow], Sequence[Crossing]], label: str, axis: Axes) -> None:
        for place, row in enumerate(rows):
            style = look(comparison, row.layer)
            for crossing in values(row):
                mark = {"below": "<", "": KNOWN, "above": ">"}[crossing.censored]
                face = "none" if crossing.censored else style["color"]
                axis.plot([crossing.value], [place], mark, ms=7, mfc=face, mec=style["color"])
            if (middle := median(values(row))) is not None and not middle.censored:
                axis.plot([middle.value], [place], "|", ms=16, mew=2, color=style["color"])
        axis.set_xlim(left=0)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_yticks(range(len(rows)), [row.layer for row in rows])
        axis.set_xlabel(label)

    panels = [
        ("tokens", partial(draw, attrgetter("tokens_to_learn"), "tokens until the level")),
        ("seconds", partial(draw, attrgetter("seconds_to_learn"), "seconds until the level")),
    ]
    level = comparison.settings.take_off
    caption = f"When the validation accuracy at {level.length or ladder.lengths[0]} bases reached {level.accuracy:g}."
    caption += " A mark a seed, a bar their median; hollow triangles to the right: not by the end of the training."
    about = ("time_to_learn", "Time to learn", caption, f"{basis(comparison)}; no interval, every seed is drawn")
    return small_multiples(comparison, about, [panels], "", height=1.0 + 0.25 * len(rows))


def quality_cost(comparison: Comparison) -> Plot | None:
    """The mean accuracy of the ladder against what the same tokens cost, with the Pareto front."""
    ladder = comparison.ladder
    if ladder is None:
        return None
    length = ladder.lengths[-1]
    values = {row.layer: [run.value for run in comparison.runs_of("final", length, row.layer)] for row in ladder.rows}
    means = {
        layer: sum(known) / len(known) for layer, own in values.items() if (known := [v for v in own if v is not None])
    }

    def points(attribute: str, unit: Number) -> dict[str, tuple[Number, Number]]:
        costs = {row.layer: attrgetter(attribute)(row) for row in ladder.rows if row.layer in means}
        return {layer: (cost / unit, means[layer]) for layer, cost in costs.items() if cost}

    def draw(label: str, attribute: str, unit: Number, axis: Axes) -> None:
        across = points(attribute, unit)
        for layer, (cost, mean) in across.items():
            own = [value for value in values[layer] if value is not None]
            style: dict[str, Any] = {**look(comparison, layer), "linestyle": "none"}
            axis.plot([cost], [mean], ms=7, **style)
            axis.plot([cost, cost], [min(own), max(own)], "-", color=style["color"], lw=1, alpha=0.6)
        front = [across[layer] for layer in pareto_front(across)]
        axis.step(
            [cost for cost, _ in front], [mean for _, mean in front], where="post", color="#888888", lw=1, zorder=0
        )
        amount_axis(axis, "x", [cost for cost, _ in across.values()])
        axis.set_xlabel(label)

    panels = [
        (label.partition(" (")[0], partial(draw, label, attribute, unit))
        for label, attribute, unit in COSTS
        if points(attribute, unit)
    ]
    caption = "Bar: from the lowest seed to the highest. Grey: the Pareto front of that panel."
    title = f"{comparison.metric} against cost at equal tokens"
    about = ("quality_cost", title, caption, f"{basis(comparison)}; no interval, a range")
    return small_multiples(comparison, about, [panels], comparison.metric)


def _crossings(axis: Axes, across: Number, values: Sequence[Crossing], style: dict) -> None:
    for crossing in values:
        mark = CENSORED.get(crossing.censored, KNOWN)
        face = "none" if crossing.censored else style["color"]
        axis.plot([across], [crossing.value], mark, ms=7, mfc=face, mec=style["color"], label=style["label"])


def _shade(style: dict) -> dict:
    return {"color": style["color"], "alpha": 0.15, "lw": 0}


def _told(row: LadderRow) -> float | None:
    """The number of keys of which an ideal reader tells half of the letters above guessing; None if beyond all."""
    crossing = solved_length(row.capacity, dict.fromkeys(row.capacity, 0.25), 1.0, 0.5)
    return None if crossing is None or crossing.censored else float(crossing.value)


def _first_to_learn(row: LadderRow) -> float:
    middle = median(row.tokens_to_learn)
    return float("inf") if middle is None else middle.rank


def _lengths(comparison: Comparison, ladder: Ladder) -> list[int]:
    tested = {length for run in comparison.runs for length in run.by_length}
    return sorted({*ladder.lengths, *tested})
