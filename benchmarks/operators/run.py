"""Attention operators against the packages that a user would install instead: time, memory, and the goals.

pip install -e '.[bench]'
python -m benchmarks.operators.run [WORD ...] [--size quick|usual|all]

WORDs pick among the groups of the size, each by a layer, kind, shape of heads, length or mode, with commas between
alternatives: `window,linear causal 64k forward`. Operators are measured in turn, A B A B, each time in a process of
its own and at a quiet moment; ratios are those of their shortest times. `--table` prints saved measurements.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks.common.measure import BUSY, apart, machine, preload, today, versions, wait_quiet
from benchmarks.common.tables import cases, cell, folded, goals
from benchmarks.operators.cases import HEADS, MOST_GIB, Group, Row, chosen, refusal
from benchmarks.operators.measure_operator import MODULES, OPERATORS, PACKAGES, measured

ROWS = Path(__file__).parents[2] / "results" / "operators" / "rows.json"
LONGEST = 240.0
"""Seconds after which a process is ended."""
PATIENCE = 10.0
"""Longest first call in seconds that is followed by more calls; the first call allocates memory and is slower."""


class Pace(NamedTuple):
    """Least number of measurements of each operator, and seconds to wait for a quiet machine before each."""

    rounds: int = 2
    wait: float = 20.0


def measure_group(group: Group, operators: Sequence[str], known: Sequence[Row], pace: Pace) -> list[Row]:
    """Rows of a group, measured in turn; operators disturbed in every run are measured up to twice as often."""
    why = {name: refusal(group, name, known) for name in operators}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in operators if why[name] is None}
    for turn in range(2 * pace.rounds if pace.wait else pace.rounds):
        again = [name for name, before in runs.items() if turn < pace.rounds or _disturbed(before)]
        for name in again:
            if not any("error" in run for run in runs[name]):
                wait_quiet(pace.wait)
                seconds = 0.5 if group.length < 2**16 else 1.5
                case = (group.layer, name, *group[1:], seconds, PATIENCE)
                runs[name].append(apart(measured, *case, seconds=LONGEST, gib=MOST_GIB + 3))
    return [_row(group, name, why[name], runs.get(name, [])) for name in operators]


def _disturbed(runs: Sequence[dict[str, Any]]) -> bool:
    """True if other processes used the machine in every run."""
    return not any("error" in run or (run["foreign"] or 0) < BUSY for run in runs)


def _row(group: Group, name: str, why: str | None, runs: list[dict[str, Any]]) -> Row:
    """Saved row of a case: its shortest time, the median of the median run, and its highest memory."""
    row: Row = {**group._asdict(), "operator": name, "date": today()}
    errors = [run["error"] for run in runs if "error" in run]
    if why is not None:
        return row | {"status": "listed", "why": why}
    if errors:
        status = "missing" if errors[0].startswith(("ModuleNotFoundError", "ImportError")) else "refused"
        return row | {"status": status, "why": errors[0]}
    return row | {
        "status": "measured",
        "least": min(run["least"] for run in runs),
        "median": sorted(run["median"] for run in runs)[len(runs) // 2],
        "above_mib": max(run["above_mib"] for run in runs),
        "peak_mib": max(run["peak_mib"] for run in runs),
        "disturbed": _disturbed(runs),
        "cold": all(run["cold"] for run in runs),
        "runs": runs,
    }


def run(size: str, words: Sequence[str], pace: Pace, path: Path, keep: bool) -> dict[str, Any]:
    """Measure, saving after each group; with `keep` the groups of the file that are not measured now stay in it."""
    preload(MODULES)
    about = {"machine": machine(), "versions": versions(PACKAGES), "date": today()}
    saved = json.loads(path.read_text()) if keep and path.is_file() else about | {"rows": []}
    if any(saved[key] != about[key] for key in ("machine", "versions")):
        raise SystemExit(f"{path} was measured on another machine or with other versions: take --json or leave --keep")
    rows: list[Row] = saved["rows"]
    groups = chosen(size, words)
    if not groups:
        raise SystemExit(f"no group of the size {size} matches {' '.join(words)}")
    for at, (group, operators) in enumerate(groups, 1):
        others = [row for row in rows if tuple(row[field] for field in Group._fields) != group]
        new = measure_group(group, operators, others, pace)
        rows = others + new
        rows.sort(key=_order)
        path.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
        ours = next((row for row in new if row["operator"] == operators[0]), None)
        summary = "; ".join(f"{row['operator']} {cell(row, ours)}" for row in new)
        Console(width=200).print(f"{at}/{len(groups)} {' '.join(group.words)}: {summary}", highlight=False)
    return about | {"rows": rows}


def _order(row: Row) -> tuple:
    layers = list(OPERATORS)
    names = list(OPERATORS[row["layer"]])
    place = layers.index(row["layer"]), row["kind"], row["heads"], row["mode"] == "f+b"
    return (*place, names.index(row["operator"]), row["length"])


def rendered(saved: dict[str, Any]) -> str:
    """Markdown for results/operators: the goals, and every case in folded tables."""
    place, versions = saved["machine"], saved["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    head = f"{place['cores']} cores ({place['cpu']}, {place['gib']} GiB), {saved['date']}; {packages}."
    head += " `~`: others used the machine in every run; `¹`: a first call alone, too long to be repeated."
    tables = [folded(cases(saved["rows"], heads)) for heads in _shapes(saved)]
    return "\n\n".join([head, goals(saved["rows"]).markdown().rstrip(), *tables])


def _shapes(saved: dict[str, Any]) -> list[str]:
    return [heads for heads in HEADS if any(row["heads"] == heads for row in saved["rows"])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, save the measurements and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="measure only groups with these words")
    parser.add_argument(
        "--size", choices=("quick", "usual", "all"), default="usual", help="see benchmarks/operators/cases.py"
    )
    parser.add_argument("--rounds", type=int, default=Pace().rounds, help="how often each operator is measured")
    parser.add_argument("--wait", type=float, default=Pace().wait, help="seconds to wait for others to be quiet")
    parser.add_argument("--json", type=Path, default=ROWS, help="where the measurements are saved")
    parser.add_argument("--keep", action="store_true", help="keep the saved measurements of other groups")
    parser.add_argument("--list", action="store_true", help="list the cases without measuring them")
    parser.add_argument(
        "--table", action="store_true", help="print the tables of the saved measurements without measuring"
    )
    options = parser.parse_args(arguments)
    if options.list:
        for group, operators in chosen(options.size, options.words):
            print(*group.words, "·", ", ".join(operators))
        return
    if options.table:
        saved = json.loads(options.json.read_text())
    else:
        pace = Pace(options.rounds, options.wait)
        saved = run(options.size, options.words, pace, options.json, options.keep)
    for table in (*(cases(saved["rows"], heads) for heads in _shapes(saved)), goals(saved["rows"])):
        table.print()


if __name__ == "__main__":
    main()
