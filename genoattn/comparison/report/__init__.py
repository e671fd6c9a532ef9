"""The report of a comparison of layers: json, csv, pictures, one page, and tables for the terminal."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from genoattn import files
from genoattn.comparison.report import cost_plots, quality_plots
from genoattn.comparison.report.html_page import page
from genoattn.comparison.report.plot_style import Plot
from genoattn.comparison.report.record import lengths, of, plain
from genoattn.comparison.report.tables import every, records, results
from genoattn.evaluation import report

DRAWINGS: tuple[Callable[[Mapping], Plot | None], ...] = (
    quality_plots.quality,
    quality_plots.tradeoff,
    cost_plots.memory,
    cost_plots.speed,
    cost_plots.context,
    quality_plots.extrapolation,
    cost_plots.learning,
    cost_plots.sweep,
)


def write(folder: Path, comparison: Mapping) -> None:
    """Leave comparison.json, comparison.csv, plots/*.png and comparison.html in a folder."""
    comparison = plain(comparison)
    files.write_json(folder / "comparison.json", comparison, indent=2)
    _write_csv(folder / "comparison.csv", records(comparison))
    plots = draw(comparison)
    for plot in plots:
        files.save_figure(plot.figure, folder / "plots" / f"{plot.name}.png")
    pictures = {plot.name: (folder / "plots" / f"{plot.name}.png").read_bytes() for plot in plots}
    files.write_text(folder / "comparison.html", page(comparison, plots, pictures))


def draw(comparison: Mapping) -> list[Plot]:
    """Every plot that there is something for."""
    found = [one for at in lengths(comparison) for parts in of(comparison, "strata", at).values() for one in parts]
    made = [make(comparison) for make in DRAWINGS]
    made += [quality_plots.strata(comparison, by) for by in dict.fromkeys(one["by"] for one in found)]
    return [plot for plot in made if plot is not None]


def sheets(comparison: Mapping) -> list[report.Table]:
    """What is printed: the results, the best layer of each length first."""
    return [results(plain(comparison))]


def tables(comparison: Mapping) -> list[report.Table]:
    """Every table of the page, for `report.send`."""
    return [*every(plain(comparison)).values()]


def figures(comparison: Mapping) -> dict[str, int | float]:
    """Quality and costs under flat keys such as 512/full/mean, for `report.send`."""
    return {
        f"{record['length']}/{record['layer']}/{key}": value
        for record in records(plain(comparison))
        for key, value in record.items()
        if isinstance(value, int | float) and key != "length"
    }


def _write_csv(file: Path, rows: Sequence[Mapping]) -> None:
    held = io.StringIO()
    if rows:
        writer = csv.DictWriter(held, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    files.write_text(file, held.getvalue())
