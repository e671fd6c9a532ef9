"""The tables of the operator benchmark."""

from collections.abc import Sequence

from benchmarks.operators.cases import HEADS, Row
from benchmarks.operators.goals import GoalResult, goal_results, short
from benchmarks.operators.measure_operator import OURS
from genoattn.evaluation.report import Table


def goals(rows: Sequence[Row]) -> Table:
    """Every goal and its measurement, a pair of columns for each measured shape of heads."""
    shapes = [heads for heads in HEADS if any(row["heads"] == heads for row in rows)]
    columns = ["goal", "at least, at most", "aim"]
    columns += [column for heads in shapes for column in (heads.replace("x", "×"), "")]
    lines = []
    for goal in zip(*(goal_results(rows, heads) for heads in shapes), strict=True):
        cells = [cell for result in goal for cell in (_times(result), result.outcome)]
        lines.append([goal[0].goal, goal[0].limit, goal[0].aim, *cells])
    return Table("goals and measurements (ratios of the shortest times)", columns, lines, texts=len(columns))


def _times(result: GoalResult) -> str:
    return "" if result.measured is None else f"{result.measured:.3g}×"


def cases(rows: Sequence[Row], heads: str) -> Table:
    """Every operator by length: seconds, and the memory that a call needs beyond its inputs."""
    own = [row for row in rows if row["heads"] == heads]
    lengths = sorted({row["length"] for row in own})
    by_case = {(row["layer"], row["kind"], row["mode"], row["operator"], row["length"]): row for row in own}
    lines = []
    for key in dict.fromkeys(key[:-1] for key in by_case):
        layer, kind, mode, operator = key
        cells = [cell(by_case.get((*key, length)), by_case.get((*key[:-1], OURS, length))) for length in lengths]
        lines.append([f"{layer}, {kind}", mode, operator, *cells])
    title = f"heads {heads.replace('x', '×')}: seconds, (times ours), memory above the inputs"
    return Table(title, ["layer", "", "operator", *map(short, lengths)], lines, texts=3)


def cell(row: Row | None, ours: Row | None) -> str:
    """Cell of one case; `~`: other processes used the machine in every run; `¹`: measured on first calls only."""
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
