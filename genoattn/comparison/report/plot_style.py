"""How the plots of a comparison look: a colour, a mark and a line for every layer, the same in all of them."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from genoattn.comparison.report.record import layers

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A800")
"""Okabe and Ito (2008), told apart by colour-blind readers too; their yellow is darkened for a white page."""


PLAIN = ("#000000", "#7F7F7F")
"""Of the baselines."""


MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")


LINES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)))


@dataclass(frozen=True)
class Plot:
    """A drawn figure and its words."""

    name: str
    title: str
    caption: str
    """How to read it."""
    basis: str
    """What it rests on: n, seeds, interval."""
    figure: Figure


def look(comparison: Mapping, layer: str) -> dict[str, Any]:
    """Colour, mark and line of a layer; baselines are black and grey, and dotted."""
    plain = list(comparison.get("baseline_layers") or [])
    place = layers(comparison).index(layer)
    if layer in plain:
        return {"color": PLAIN[plain.index(layer) % 2], "marker": MARKS[-1 - plain.index(layer) % 2], "linestyle": ":"}
    # 7 colours and 11 marks: 77 layers before two look alike.
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKS[place % len(MARKS)],
        "linestyle": LINES[place % len(LINES)],
    }


def panels(titles: Sequence[Sequence[str]], wide: float = 4.6, high: float = 3.4) -> tuple[Figure, list[list[Axes]]]:
    """Panels in rows under their titles, with room for a title above and words below."""
    rows, columns = len(titles), max(map(len, titles))
    size = (max(wide * columns, 7.0) + 1.4, high * rows + 1.0)
    figure = Figure(figsize=size, layout="constrained")  # not of pyplot, which would keep it
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, named in zip(axes, titles, strict=True):
        for panel, title in zip(row, [*named, *[""] * (columns - len(named))], strict=True):
            panel.set_title(title, fontsize=10)
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
    return figure, axes.tolist()


def finish(
    figure: Figure,
    comparison: Mapping,
    shown: Sequence[str],
    plot: tuple[str, str, str, str],
    others: Sequence[Line2D] = (),
) -> Plot:
    """Put the legend beside the panels, the title above and the words below."""
    name, title, caption, basis = plot
    handles = [Line2D([], [], label=layer, **look(comparison, layer)) for layer in layers(comparison) if layer in shown]
    if handles or others:
        figure.legend(handles=[*handles, *others], loc="outside right upper", frameon=False, fontsize=9, handlelength=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    words = textwrap.fill(f"{caption} {basis}.", int(17 * figure.get_figwidth()))
    figure.supxlabel(words, x=0.01, ha="left", fontsize=8, color="#444444")
    return Plot(name, title, caption, basis, figure)


def dodge(values: Sequence[int | float], place: int, places: int) -> list[float]:
    """Values on a logarithmic axis, moved by a little, so that the bars of several layers stand side by side."""
    return [value * 1.03 ** (place - (places - 1) / 2) for value in values]


def length_axis(panel: Axes, values: Sequence[int | float], word: str) -> None:
    """A logarithmic axis of bases, its ticks at the lengths themselves."""
    panel.set_xscale("log", base=2)
    ticks = sorted(set(values))
    ticks = ticks[:: -(-len(ticks) // 8)]
    panel.set_xticks(ticks, [short(tick) for tick in ticks])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(word)


def cost_axis(panel: Axes, values: Sequence[int | float], word: str) -> None:
    """An axis of costs: logarithmic where they span a decade."""
    if values and max(values) >= 10 * min(values) > 0:
        panel.set_xscale("log")
    else:
        panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.set_xlabel(word)


def short(value: int | float) -> str:
    """A length in few characters: 512, 32,768, 128Ki, 1Mi, 3M."""
    for size, letter in ((2**20, "Mi"), (2**10, "Ki")):
        if value >= max(size, 1e5) and value % size == 0:
            return f"{value / size:g}{letter}"
    return f"{value / 1e6:.3g}M" if value >= 1e6 else f"{value:,.6g}"
