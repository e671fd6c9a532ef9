"""What a run has to say: tables in the terminal, metrics.json, plots, and the same for Weights & Biases."""

import csv
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
WIDTH = 1000
"""Columns a table may take where there is no terminal to say so; it takes what it needs."""


@dataclass(frozen=True)
class Sheet:
    """A table: columns, the first `texts` of them words and the others figures, and rows of cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    numbers: tuple[Sequence[str], Sequence[Sequence[object]]] | None = None
    """The same as columns and rows of plain numbers, for programs; None: the cells are all there is."""

    def print(self) -> None:
        """To the terminal, at its full width where that is unknown."""
        console = Console()
        Console(width=None if console.is_terminal else WIDTH).print(self._table())

    def _table(self) -> Table:
        whole = Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            whole.add_column(column, justify="left" if number < self.texts else "right", overflow="fold")
        before = ""
        for first, *cells in self.rows:
            if self.texts > 1 and before not in ("", first):
                whole.add_section()
            whole.add_row("" if self.texts > 1 and first == before else first, *cells)
            before = first
        return whole

    def markdown(self) -> str:
        """The same table for a page."""
        lines = [self.columns, ["---"] * self.texts + ["---:"] * (len(self.columns) - self.texts), *self.rows]
        return "".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |\n" for line in lines)


def publish(
    folder: Path, sheets: Sequence[Sheet], figures: Mapping[str, object], plots: Mapping[str, Callable[[Path], None]]
) -> None:
    """Leave metrics.json, report.md and the plots in a run folder, and print the tables."""
    write_metrics(folder / "metrics.json", figures)
    pages = [sheet.markdown() for sheet in sheets]
    titles = [f"{sheet.title}\n\n" if len(sheets) > 1 else "" for sheet in sheets]
    write_text(folder / "report.md", "\n".join(title + page for title, page in zip(titles, pages, strict=True)))
    for name, draw in plots.items():
        draw(folder / "plots" / f"{name}.png")
    for sheet in sheets:
        sheet.print()


def write_metrics(file: Path, figures: Mapping[str, object]) -> None:
    """Write metrics.json, whole or not at all; what is not a number becomes null."""
    plain = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in figures.items()}
    write_json(file, plain, indent=2)


def write_json(file: Path, value: object, indent: int | None = None) -> None:
    """Write a file of json, whole or not at all."""
    write_text(file, json.dumps(value, indent=indent) + "\n")


def plot_training(metrics: Path, file: Path) -> None:
    """Loss and curriculum against bases seen, from the run's metrics.csv."""
    with metrics.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    seen = 0.0
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        seen = float(row.get("bases_seen") or seen)
        for name in ("loss", "validation/loss", "curriculum/rate", "curriculum/length"):
            if row.get(name):
                points.setdefault(name, []).append((seen, float(row[name])))
    for name, style in (("loss", "-"), ("validation/loss", "o-")):
        if name in points:
            above.semilogy(*zip(*points[name], strict=True), style, label=name, lw=1)
    above.set_ylabel("loss (nats a base)")
    above.legend()
    if "curriculum/rate" in points:
        below.plot(*zip(*points["curriculum/rate"], strict=True), label="mutations a base")
    below.set_xlabel("bases seen")
    below.set_ylabel("mutations a base", color="C0")
    if "curriculum/length" in points:
        beside = below.twinx()
        beside.plot(*zip(*points["curriculum/length"], strict=True), "C1--", label="length")
        beside.set_ylabel("window (bases)", color="C1")
    save_figure(figure, file)


def send(loggers: Sequence[Logger], figures: Mapping[str, int | float], sheets: Sequence[Sheet], plots: Path) -> None:
    """Give figures, tables and plots to Weights & Biases, where it is among the loggers, and end its run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for number, sheet in enumerate(sheets):
                columns, rows = sheet.numbers or (sheet.columns, sheet.rows)
                plain = [column.replace("\n", " ") for column in columns]
                logger.log_table(f"report{number or ''}", plain, [list(row) for row in rows])
            for plot in sorted(plots.glob("*.png")):
                logger.log_image(f"plots/{plot.stem}", [str(plot)])
            logger.experiment.summary.update(dict(figures))
            logger.experiment.finish()


def write_text(file: Path, text: str) -> None:
    """Write a file of words, whole or not at all."""
    half = file.with_name(f".{file.name}.part")
    half.write_text(text, "utf-8")
    os.replace(half, file)


def save_figure(figure: Figure, file: Path) -> None:
    """Write a picture, whole or not at all, and close it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}")
    figure.savefig(half, dpi=120, format="png")
    os.replace(half, file)
    plt.close(figure)
