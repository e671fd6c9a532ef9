"""The tables of the operator benchmark."""

from collections.abc import Sequence

from benchmarks.operators.cases import HEADS, Row
from benchmarks.operators.goals import Verdict, short, verdicts
from benchmarks.operators.measure_operator import OURS
from genoattn.evaluation.report import Table


def goals(rows: Sequence[Row]) -> Table:
    """Every goal beside what was got, one pair of columns for each shape of heads that was measured."""
    shapes = [heads for heads in HEADS if any(row["heads"] == heads for row in rows)]
    columns = ["goal", "at least, at most", "aim"]
    columns += [column for heads in shapes for column in (heads.replace("x", "×"), "")]
    lines = []
    for several in zip(*(verdicts(rows, heads) for heads in shapes), strict=True):
        cells = [cell for one in several for cell in (_times(one), one.word)]
        lines.append([several[0].what, several[0].asked, several[0].aim, *cells])
    return Table("goals and measurements (ratios of the shortest times)", columns, lines, texts=len(columns))


def _times(verdict: Verdict) -> str:
    return "" if verdict.got is None else f"{verdict.got:.3g}×"


def cases(rows: Sequence[Row], heads: str) -> Table:
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
    return Table(title, ["layer", "", "operator", *map(short, lengths)], lines, texts=3)


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


def folded(table: Table) -> str:
    """A table as Markdown that stays closed until it is clicked."""
    return f"<details><summary>{table.title}</summary>\n\n{table.markdown()}\n</details>"
