"""The report of a run: tables for a terminal of any width and for Markdown, metrics.json and plots."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from genoattn.evaluation.metrics import Metrics
from genoattn.files import save_figure, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE_WIDTH = 1000
"""Characters of a line if the output is not a terminal, so that nothing is left out."""

FRAME, GAP = 3, 2
"""Characters between the columns of a framed table, and of a narrow one without a frame."""


@dataclass(frozen=True)
class Table:
    """A table of text cells; the first `texts` columns are words, the others are numbers."""

    title: str
    columns: Sequence[str]
    """Headings; a line break begins a second line."""
    rows: Sequence[Sequence[str]]
    texts: int = 1
    numbers: tuple[Sequence[str], Sequence[Sequence[object]]] | None = None
    """The same content as columns and rows of plain numbers, for programs; None: the cells are the content."""
    notes: Sequence[str] = ()
    """Sentences below the table."""
    optional: Sequence[str] = ()
    """Columns that a narrow terminal leaves out, in this order, until each row fits on one line."""
    secondary: Sequence[str] = ()
    """Columns that are left out next, if wrapped rows do not fit either."""

    def __post_init__(self) -> None:
        """Control characters in names of a user's files would reach the terminal and act there: they are escaped."""
        object.__setattr__(self, "title", visible(self.title))
        object.__setattr__(self, "rows", [list(map(visible, row)) for row in self.rows])
        for words in ("columns", "notes", "optional", "secondary"):
            object.__setattr__(self, words, [visible(word) for word in getattr(self, words)])

    def print(self) -> None:
        """Print the table in the widest form that the terminal can show without breaking a word."""
        terminal = Console()
        width = terminal.width if terminal.is_terminal else FILE_WIDTH
        columns, widths = self._layout(width)
        console = Console(width=max(width, sum(widths) + GAP * len(widths)))
        console.print(self.render(width))
        missing = [_one_line(column) for number, column in enumerate(self.columns) if number not in columns]
        hidden = [f"Left out to fit {width} columns: {', '.join(missing)}; report.md has them."] if missing else []
        for note in (*self.notes, *hidden):
            console.print(Text(note))

    def render(self, width: int) -> RichTable:
        """The table as rich draws it, for a terminal of `width` characters."""
        columns, widths = self._layout(width)
        drawn = RichTable(title=Text(self.title), title_justify="left")
        if not self._framed(width):
            drawn.box, drawn.show_edge, drawn.pad_edge, drawn.padding = (
                box.SIMPLE_HEAD,
                False,
                False,
                (0, GAP - 1, 0, 0),
            )
        for number, size in zip(columns, widths, strict=True):
            justify = "left" if number < self.texts else "right"
            drawn.add_column(Text(self.columns[number]), justify=justify, width=size)
        before, grouped = "", self.texts > 1
        for first, *cells in self.rows:
            if grouped and before not in ("", first):
                drawn.add_section()
            row = ["" if grouped and first == before else first, *cells]
            drawn.add_row(*(Text(row[number]) for number in columns))
            before = first
        return drawn

    def _framed(self, width: int) -> bool:
        """True if the whole table fits in its frame."""
        return sum(map(max, self._sizes())) + FRAME * len(self.columns) + 1 <= width

    def _layout(self, width: int) -> tuple[list[int], list[int]]:
        """The numbers of the printed columns and the width of each."""
        sizes = self._sizes()
        columns = list(range(len(self.columns)))
        if self._framed(width):
            return columns, [full for full, _ in sizes]
        wrapped = False
        for column in (*self.optional, None, *self.secondary, None):
            widths = [sizes[number][0] for number in columns]
            if wrapped:
                _shrink(widths, [sizes[number][1] for number in columns], width)
            if _total(widths) <= width:
                break
            wrapped = wrapped or column is None
            columns = [number for number in columns if self.columns[number] != column]
        return columns, widths

    def _sizes(self) -> list[tuple[int, int]]:
        """For each column the characters of its longest line and of its longest word."""
        cells = [[heading, *column] for heading, *column in zip(self.columns, *self.rows, strict=True)]
        return [
            (
                max(cell_len(line) for cell in column for line in cell.split("\n")),
                max((cell_len(word) for cell in column for word in cell.split()), default=0),
            )
            for column in cells
        ]

    @property
    def plain(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Columns and rows for programs: plain numbers where the table has them."""
        return self.numbers or (self.columns, self.rows)

    def markdown(self) -> str:
        """The table and its notes as Markdown."""
        lines = [self.columns, ["---"] * self.texts + ["---:"] * (len(self.columns) - self.texts), *self.rows]
        table = "".join(
            f"| {' | '.join(_one_line(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
        )
        return table + "".join(f"\n{note}\n" for note in self.notes)


def visible(text: str) -> str:
    """A text with its control characters escaped, line breaks apart."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """A cell with a value and its 95 % interval."""
    return f"{value:.{digits}f} [{low:.{digits}f}–{high:.{digits}f}]"


@contextmanager
def panel_in(file: Path, width: float, height: float) -> Iterator["Axes"]:
    """A panel to draw on, of a size in inches; at the end of the block it gets its legend and is saved as PNG."""
    from matplotlib.figure import Figure  # late: a table alone needs no plots

    figure = Figure(figsize=(width, height), layout="constrained")
    panel = figure.subplots()
    yield panel
    panel.legend(fontsize=8)
    save_figure(figure, file)


def _one_line(cell: str) -> str:
    return cell.replace("\n", " ")


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _shrink(widths: list[int], words: Sequence[int], width: int) -> None:
    """Narrow the columns with the longest cells, to their longest word at most, until the table fits."""
    while (excess := _total(widths) - width) > 0:
        slack = [size - word for size, word in zip(widths, words, strict=True)]
        widest = slack.index(max(slack))
        if slack[widest] <= 0:
            return
        widths[widest] -= min(excess, slack[widest])


def write_report(
    folder: Path, tables: Sequence[Table], metrics: Metrics, plots: Mapping[str, Callable[[Path], None]]
) -> None:
    """Write metrics.json, report.md and the plots into a run folder, and print the tables."""
    metrics.write(folder)
    titles = [f"{table.title}\n\n" if len(tables) > 1 else "" for table in tables]
    pages = [title + table.markdown() for title, table in zip(titles, tables, strict=True)]
    write_text(folder / "report.md", "\n".join(pages))
    for name, draw in plots.items():
        draw(folder / "plots" / f"{name}.png")
    for table in tables:
        table.print()


def read_report(text: str) -> list[Table]:
    """The tables of a report.md, as `write_report` wrote it; a title is the paragraph before its table."""
    tables: list[Table] = []
    title, notes = "", []
    for part in text.strip().split("\n\n"):
        if not part.startswith("| "):
            notes.append(part)
            continue
        lines = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in part.strip().split("\n")]
        columns, marks, *rows = [[cell.replace(chr(92) + "|", "|") for cell in line] for line in lines]
        title = notes.pop() if notes else ""
        if tables:
            tables[-1] = replace(tables[-1], notes=notes)
        tables.append(Table(title, columns, rows, texts=marks.count("---")))
        notes = []
    return [*tables[:-1], replace(tables[-1], notes=notes)] if tables else []
