"""The comparisons that are kept in benchmarks/results, as tables and words in the README.

    python -m benchmarks.studies.comparisons --readme

Each folder there was left by `genoattn compare` with the command that its comparison.json states.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.tables import Sheet, markdown, show, write_between
from genoattn.comparison.report.tables import interval, records
from genoattn.comparison.report.text import answers

CHECKOUT = Path(__file__).parents[2]
PARTS = ("snv", "insertion", "deletion")
"""Figures beside the headline, where a comparison has them."""


def sheet(found: Mapping[str, Any], length: int) -> Sheet:
    """A line a layer, the best first."""
    measures = found["measures"].get(str(length), {})
    parts = [part for part in PARTS if any(f"test/{part}/auprc" in one for one in measures.values())]
    lines = []
    for record in records(found):
        if record["length"] != length:
            continue
        own = measures.get(record["layer"], {})
        lines.append(
            [
                f"`{record['layer']}`", str(record["ranks"]).replace(" ", ", "), interval(record),
                *(interval(own.get(f"test/{part}/auprc")) for part in parts),
                f"{record['learning_rate']:g}", _count(record["mean_steps"]), _count(record["parameters"]),
                _count(record["training_bases_per_second"]), _count(record["forward_bases_per_second"]),
                _mebi(record["training_peak_bytes"]), _context(record),
            ]
        )  # fmt: skip
    columns = ["attention", "group", f"{found['measure']} [95 %]", *parts, "learning rate", "steps", "parameters"]
    columns += ["bases/s, training", "bases/s, reading", "peak memory, training", "effective context"]
    return Sheet(f"{length:,} bases", columns, lines)


def words(found: Mapping[str, Any]) -> str:
    """The command, and what it found in words, as Markdown."""
    said = [f"- **{head}** {' '.join(sentences)}" for head, sentences in answers(found)]
    return "\n".join([f"`{found['command']}`", "", *said, ""])


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _mebi(value: float | None) -> str:
    return "" if value is None else f"{value / 2**20:,.0f} MiB"


def _context(record: Mapping[str, Any]) -> str:
    return "" if record["effective_context"] is None else f"{record['effective_context']:,}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the tables of every comparison that is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="write the tables into README.md too")
    options = parser.parse_args(arguments)
    for file in sorted((CHECKOUT / "benchmarks" / "results").glob("*/comparison.json")):
        found = json.loads(file.read_text("utf-8"))
        sheets = [sheet(found, length) for length in found["lengths"] if str(length) in found["verdicts"]]
        show(sheets)
        if options.readme:
            pages = "\n\n".join(f"**{one.title}**\n\n{markdown(one)}" for one in sheets)
            mark = f"benchmarks/results/{file.parent.name}"
            write_between(CHECKOUT / "README.md", mark, f"{words(found)}\n{pages}")


if __name__ == "__main__":
    main()
