"""The report of a comparison: one page, plots, and the tables as csv and in the terminal."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from genoattn.comparison.record import Comparison
from genoattn.comparison.report import cost_plots, ladder_plots, quality_plots, tables, text
from genoattn.comparison.report.html_page import page
from genoattn.comparison.report.style import Plot
from genoattn.comparison.settings import Number
from genoattn.files import save_figure, write_text


def write(folder: Path, comparison: Comparison) -> None:
    """Write comparison.csv, plots/*.png and comparison.html into a folder."""
    columns, rows = tables.summary(comparison)
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([columns, *rows])
    write_text(folder / "comparison.csv", lines.getvalue())
    plots = draw(comparison)
    for plot in plots:
        save_figure(plot.figure, folder / "plots" / f"{plot.name}.png")
    pictures = {plot.name: (folder / "plots" / f"{plot.name}.png").read_bytes() for plot in plots}
    write_text(folder / "comparison.html", page(comparison, plots, pictures))


def draw(comparison: Comparison) -> list[Plot]:
    """All plots with something to show."""
    makers = (
        *(quality_plots.quality, quality_plots.tradeoff, quality_plots.lengths),
        *(ladder_plots.accuracy, ladder_plots.solved, ladder_plots.time_to_learn, ladder_plots.quality_cost),
        *(cost_plots.memory, cost_plots.speed, cost_plots.context, cost_plots.learning, cost_plots.sweep),
    )
    groupings = dict.fromkeys(group.by for _, layer in comparison.layer_results for group in layer.subgroups)
    plots = [*(maker(comparison) for maker in makers), *(quality_plots.subgroups(comparison, by) for by in groupings)]
    return [plot for plot in plots if plot is not None]


def print_results(comparison: Comparison) -> None:
    """Print the table of results and the answer at each length."""
    tables.results(comparison).print()
    if comparison.ladder:
        tables.ladder(comparison).print()
    for result in comparison.results:
        for sentence in text.answer(comparison, result):
            print(f"{result.length:,} bases: {sentence}")


def metrics(comparison: Comparison) -> Mapping[str, Number]:
    """Quality and costs for a logger, by keys such as 512/full/mean."""
    columns, rows = tables.summary(comparison)
    return {
        f"{row[0]}/{row[1]}/{name}": value
        for row in rows
        for name, value in zip(columns[2:], row[2:], strict=True)
        if isinstance(value, int | float)
    }
