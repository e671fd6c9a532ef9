"""The look of the plots: one colour, mark and line for each layer in every comparison, and panels of equal width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from genoattn.comparison.record import BASELINE_LAYERS, Comparison
from genoattn.comparison.settings import Number

LAYERS = ("full", "window", "linear", "hierarchical", "sparse", "delta", "based", "topk", "gated", "hybrid", "pyramid")
LAYERS += ("flash", "hyena", "striped", "ssd", "nsa")
"""Layers in the order of their colours; other layers take the colours after them."""


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A800", "#8C564B", "#882255")
COLOURS += ("#44AA99", "#332288", "#6A3D9A", "#AA4499", "#117733", "#661100", "#6699CC", "#AA4466")
COLOURS += ("#999933", "#DDCC77", "#CC6677", "#4D9221", "#B15928", "#1B7F9E", "#FB8072")
"""Okabe and Ito (2008) and Tol's muted scheme: readers with a colour vision deficiency can tell them apart."""


MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "d", "H", "8")
MARKS += ((4, 1, 0), (4, 1, 45), (6, 1, 0), (8, 1, 0), "p", "h")  # stars of four, six and eight rays


LINES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)))


WIDTH, COLUMNS = 11.0, 4
"""Width of every figure in inches, and the most panels in a row."""


@dataclass(frozen=True)
class Plot:
    """A figure and its caption."""

    name: str
    title: str
    caption: str
    """Instructions for the reader."""
    basis: str
    """Number of runs, seeds and kind of interval."""
    figure: Figure

    @property
    def description(self) -> str:
        """Title, caption and basis as sentences."""
        return f"{self.title}. {self.caption} {self.basis}."


Panel: TypeAlias = tuple[str, Callable[[Axes], None]]
"""Title of a panel, and the function that draws it."""


POINTS = {"ms": 5, "lw": 1.4}
"""Size of marks and lines."""


def look(comparison: Comparison, layer: str) -> dict[str, Any]:
    """Name, colour, mark and line of a layer."""
    if layer in BASELINE_LAYERS:
        number = BASELINE_LAYERS.index(layer)
        colour, mark, line = ("#000000", "#7F7F7F")[number], MARKS[-1 - number], ":"
    else:
        order = [*LAYERS, *(name for name in comparison.layers if name not in (*LAYERS, *BASELINE_LAYERS))]
        number = order.index(layer)
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % (len(MARKS) - 2)]
        line = LINES[number % len(LINES)]
    return {"label": layer, "color": colour, "marker": mark, "linestyle": line}


def small_multiples(
    comparison: Comparison,
    about: tuple[str, str, str, str],
    rows: Sequence[Sequence[Panel]],
    label: str,
    lines: Sequence[Line2D] = (),
    height: float = 3.0,
) -> Plot | None:
    """Panels in rows, with a legend beside them of the layers whose lines have the `look` of a layer.

    Args:
        comparison: The comparison that the layers belong to.
        about: Name, title, caption and basis of the plot.
        rows: Panels by row; a single long row is broken.
        label: Label of the vertical axis of the first panel in each row.
        lines: More entries of the legend.
        height: Height of a row in inches.

    Returns:
        The plot, as wide as every other; None if there are no panels.
    """
    if not any(rows):
        return None
    if len(rows) == 1:
        rows = [rows[0][start : start + COLUMNS] for start in range(0, len(rows[0]), COLUMNS)]
    figure = Figure(figsize=(WIDTH, height * len(rows) + 0.5), layout="constrained")  # pyplot would keep it open
    axes = figure.subplots(len(rows), max(map(len, rows)), squeeze=False)
    for panels, row in zip(axes, rows, strict=True):
        for axis in panels[len(row) :]:
            axis.set_axis_off()
        for axis, (title, draw) in zip(panels, row, strict=False):
            axis.set_title(title, fontsize=10)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            draw(axis)
        panels[0].set_ylabel(label)
    labels = {line.get_label() for axis in figure.axes for line in axis.lines}
    handles = [Line2D([], [], **look(comparison, name)) for name in comparison.layers if name in labels]
    if handles := [*handles, *lines]:
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, handlelength=3)
    return Plot(*about, figure)


def length_axis(axis: Axes, lengths: Sequence[Number], label: str) -> None:
    """A logarithmic axis of bases with ticks at the lengths themselves, at most eight."""
    axis.set_xscale("log", base=2)
    ticks = sorted(set(lengths))
    ticks = ticks[:: -(-len(ticks) // 8)]
    axis.set_xticks(ticks, [short_length(tick) for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(label)


def amount_axis(axis: Axes, which: str, values: Sequence[Number]) -> None:
    """An axis of amounts with plain numbers as ticks, logarithmic if they span a decade."""
    scale = axis.xaxis if which == "x" else axis.yaxis
    if values and max(values) >= 10 * min(values) > 0:
        axis.set(**{f"{which}scale": "log"})
        scale.set_minor_locator(NullLocator())
    else:
        scale.set_major_locator(MaxNLocator(5))
    scale.set_major_formatter(EngFormatter(sep="") if values and max(values) >= 1e4 else FuncFormatter(_plain))


def _plain(value: Number, _: object) -> str:
    return f"{value:,.6g}"


def shifted(value: Number, place: int, places: int) -> Number:
    """A value on a logarithmic axis, moved a little so that the bars of several layers stand side by side."""
    return value * 1.03 ** (place - (places - 1) / 2)


def short_length(value: Number) -> str:
    """A length in few characters: 512, 32,768, 128Ki, 1Mi, 3M."""
    for size, letter in ((2**20, "Mi"), (2**10, "Ki")):
        if value >= max(size, 1e5) and value % size == 0:
            return f"{value / size:g}{letter}"
    return f"{value / 1e6:.3g}M" if value >= 1e6 else f"{value:,.6g}"
