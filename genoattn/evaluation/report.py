"""What a run has to say: tables in the terminal, metrics.json, plots, and the same for Weights & Biases."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.table import Table as RichTable

from genoattn.files import write_json, write_text

mpl.use("Agg")


WIDTH = 1000
"""Columns a table may take where there is no terminal to say so; it takes what it needs."""


@dataclass(frozen=True)
class Table:
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

    def _table(self) -> RichTable:
        whole = RichTable(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            whole.add_column(column, justify="left" if number < self.texts else "right", overflow="fold")
        before = ""
        for first, *cells in self.rows:
            if self.texts > 1 and before not in ("", first):
                whole.add_section()
            whole.add_row("" if self.texts > 1 and first == before else first, *cells)
            before = first
        return whole

    @property
    def plain(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Columns and rows for programs: plain numbers where there are any."""
        return self.numbers or (self.columns, self.rows)

    def markdown(self) -> str:
        """The same table for a page."""
        lines = [self.columns, ["---"] * self.texts + ["---:"] * (len(self.columns) - self.texts), *self.rows]
        return "".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |\n" for line in lines)


def write_report(
    folder: Path, tables: Sequence[Table], metrics: Mapping[str, object], plots: Mapping[str, Callable[[Path], None]]
) -> None:
    """Leave metrics.json, report.md and the plots in a run folder, and print the tables."""
    write_metrics(folder / "metrics.json", metrics)
    pages = [sheet.markdown() for sheet in tables]
    titles = [f"{sheet.title}\n\n" if len(tables) > 1 else "" for sheet in tables]
    write_text(folder / "report.md", "\n".join(title + page for title, page in zip(titles, pages, strict=True)))
    for name, draw in plots.items():
        draw(folder / "plots" / f"{name}.png")
    for sheet in tables:
        sheet.print()


def write_metrics(file: Path, figures: Mapping[str, object]) -> None:
    """Write metrics.json, whole or not at all; what is not a number becomes null."""
    plain = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in figures.items()}
    write_json(file, plain, indent=2)
