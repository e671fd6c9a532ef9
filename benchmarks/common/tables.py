"""The figures as tables, on a terminal and as Markdown between two marks in the README."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.operators.cases import HEADS, Row
from benchmarks.operators.goals import Verdict, short, verdicts
from benchmarks.operators.measure_operator import OURS


class Sheet(NamedTuple):
    """A table: its title, the heads of its columns, and its lines."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]


def goals(rows: Sequence[Row]) -> Sheet:
    """Every goal beside what was got, one pair of columns for each shape of heads that was measured."""
    shapes = [heads for heads in HEADS if any(row["heads"] == heads for row in rows)]
    columns = ["goal", "at least, at most", "aim"]
    columns += [column for heads in shapes for column in (heads.replace("x", "×"), "")]
    lines = []
    for several in zip(*(verdicts(rows, heads) for heads in shapes), strict=True):
        cells = [cell for one in several for cell in (_times(one), one.word)]
        lines.append([several[0].what, several[0].asked, several[0].aim, *cells])
    return Sheet("what was asked, and what was got (ratios of the shortest times)", columns, lines)


def _times(verdict: Verdict) -> str:
    return "" if verdict.got is None else f"{verdict.got:.3g}×"


def cases(rows: Sequence[Row], heads: str) -> Sheet:
    """Every operator over the lengths: seconds, and the memory that a call needs beyond its inputs."""
    own = [row for row in rows if row["heads"] == heads]
    lengths = sorted({row["length"] for row in own})
    found = {(row["layer"], row["kind"], row["mode"], row["operator"], row["length"]): row for row in own}
    lines = []
    for key in dict.fromkeys(key[:-1] for key in found):
        layer, kind, mode, operator = key
        cells = [cell(found.get((*key, length)), found.get((*key[:-1], OURS, length))) for length in lengths]
        lines.append([f"{layer}, {kind}", mode, operator, *cells])
    title = f"heads {heads.replace('x', '×')}: seconds, (times ours), memory above the inputs"
    return Sheet(title, ["layer", "", "operator", *map(short, lengths)], lines)


def cell(row: Row | None, ours: Row | None) -> str:
    """One case in a few words; `~`: others used the machine in its every run; `¹`: of first calls alone."""
    if row is None:
        return ""
    if row["status"] != "measured":
        return row["why"] if row["status"] == "listed" else row["status"]
    times = ""
    if ours is not None and ours is not row and ours["status"] == "measured":
        times = f" ({row['least'] / ours['least']:.1f}×)"
    memory = row["above_mib"]
    size = f"{memory:.0f} MiB" if memory < 1024 else f"{memory / 1024:.1f} GiB"
    return f"{'~' * row['disturbed']}{row['least']:.3g} s{'¹' * row['cold']}{times}, {size}"


def show(sheets: Iterable[Sheet]) -> None:
    """On the terminal, as wide as it needs."""
    console = Console(width=None if Console().is_terminal else 200)
    for sheet in sheets:
        table = Table(*sheet.columns, title=sheet.title)
        for line in sheet.lines:
            table.add_row(*line)
        console.print(table)


def markdown(sheet: Sheet) -> str:
    """As a table of Markdown."""
    head = [sheet.columns, ["---"] * len(sheet.columns)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*head, *sheet.lines])


def folded(sheet: Sheet) -> str:
    """As Markdown that stays closed until it is clicked."""
    return f"<details><summary>{sheet.title}</summary>\n\n{markdown(sheet)}\n\n</details>"


def write_between(path: Path, mark: str, text: str) -> None:
    """Put `text` into a file between `<!-- mark -->` and `<!-- /mark -->`."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, found, rest = path.read_text("utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path} has no lines {begin} and {end} to write between")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")
