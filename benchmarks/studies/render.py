"""The pages of results/: each README.md is made from README.md.j2 and the data in its folder.

    python -m benchmarks.studies.render [STUDY ...] [--plots]

Templates call the functions below: `table("file.csv")`, `measured("recall")`, `answers()`, `layers(512)`.
"""

import argparse
import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.counts import run as counts
from benchmarks.models import memory_estimate, streaming, training_step
from benchmarks.operators import run as operators
from benchmarks.studies import (
    capacity,
    conditional,
    detection,
    recall,
    strand_frame,
    variants_report,
    very_long_windows,
)
from genoattn.comparison.record import Comparison, LayerResult, LengthResult
from genoattn.comparison.report import draw, tables, text
from genoattn.comparison.report.ladder_text import growth
from genoattn.comparison.report.tables import MEBI, interval, number
from genoattn.evaluation.report import Table
from genoattn.files import save_figure, write_text

RESULTS = Path(__file__).parents[2] / "results"
SUBSETS = ("snv", "insertion", "deletion")
PLOTS = ("quality", "tradeoff", "ladder", "solved", "quality_cost")
"""Plots of a comparison that are committed; `genoattn compare report=results/STUDY` makes all of them."""
TABLES = {
    "capacity": capacity.table,
    "detection": detection.table,
    "memory": memory_estimate.table,
    "recall": recall.table,
    "strand_frame": strand_frame.table,
    "streaming": streaming.table,
    "training_step": training_step.table,
    "very_long": very_long_windows.table,
}


class Study(NamedTuple):
    """A rendered study and its row in results/README.md."""

    name: str
    page: str
    question: str
    result: str
    date: str


def studies() -> list[str]:
    """Names of all studies."""
    return sorted(file.parent.name for file in RESULTS.glob("*/README.md.j2"))


def render(name: str) -> Study:
    """A study from the files of its folder."""
    folder = RESULTS / name
    about = json.loads((folder / "environment.json").read_text("utf-8"))
    templates = Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    template = templates.get_template("README.md.j2")
    values = {
        "command": "```bash\n" + (folder / "command.txt").read_text("utf-8") + "```",
        "environment": environment(about) if "commit" in about else "",
        "least": lambda *case: counts.least(_rows(folder)["rows"], *case),
        "table": lambda file, texts=1: read_table(folder / file, texts).markdown(),
        "measured": lambda struck=(): measured(folder, struck),
        "strains": lambda layout: conditional.table(_rows(folder)["rows"], layout).markdown(),
        "best": lambda layout: conditional.best(_rows(folder)["rows"], layout),
        "reliability": lambda: detection.reliability_table(_rows(folder)["reliability"]).markdown(),
        "answers": lambda: answers(Comparison.read(folder)),
        "layers": lambda length: layers(Comparison.read(folder), length).markdown(),
        "ladder": lambda: tables.ladder(Comparison.read(folder)).markdown(),
        "growth": lambda: _growth(Comparison.read(folder)),
    }
    module = template.make_module(values | _variants(folder))
    return Study(name, str(module).strip() + "\n", module.question, module.result, about["date"])


def environment(about: dict) -> str:
    """A line on date, code and machine."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    threads = text.plural(about["threads"], "thread")
    return f"Measured {about['date']}, commit {about['commit']}; {about['processor']}, {threads} a process; {versions}."


def read_table(file: Path, texts: int = 1) -> Table:
    """A table from a csv file whose first `texts` columns are words."""
    with file.open(newline="", encoding="utf-8") as lines:
        columns, *rows = csv.reader(lines)
    return Table(file.stem, columns, rows, texts)


def measured(folder: Path, struck: Sequence[str] = ()) -> str:
    """The tables of a benchmark program from rows.json; rows that begin with a name in `struck` are struck out."""
    saved = _rows(folder)
    if folder.name == "operators":
        return operators.rendered(saved)
    if folder.name == "gpu":
        return counts.rendered(saved["rows"])
    table = TABLES[folder.name](saved["rows"])
    rows = [[f"~~{cell}~~" for cell in row] if row[0].strip("`") in struck else row for row in table.rows]
    return replace(table, rows=rows).markdown()


def _rows(folder: Path) -> dict:
    return json.loads(_saved(folder))


def _saved(folder: Path) -> bytes:
    packed = folder / "rows.json.gz"
    return gzip.decompress(packed.read_bytes()) if packed.is_file() else (folder / "rows.json").read_bytes()


def _variants(folder: Path) -> dict[str, Any]:
    """The functions that the template of `variants` calls."""
    return variants_report.values(json.loads(_saved(folder))) if folder.name == "variants" else {}


def _growth(comparison: Comparison) -> str:
    return growth(comparison.ladder) if comparison.ladder else ""


def answers(comparison: Comparison) -> str:
    """The answer of a comparison at each length."""
    return "\n".join(
        f"- **{result.length:,} bases.** {' '.join(text.answer(comparison, result))}" for result in comparison.results
    )


def layers(comparison: Comparison, length: int) -> Table:
    """A row for each layer of a comparison at a length, the best first, then the baselines."""
    result = next(result for result in comparison.results if result.length == length)
    columns = ["attention", "group", f"{comparison.metric} [95 %]", *SUBSETS, "learning rate", "steps", "parameters"]
    columns += ["bases/s, training", "bases/s, forward", "MiB, training", "effective context"]
    rows = [_layer(comparison, result, layer) for layer in result.layers]
    for name, estimate in result.baselines.items():
        rows.append([f"`{name}` (baseline)", "–", interval(estimate), *["–"] * (len(columns) - 3)])
    return Table(f"{length:,} bases", columns, rows)


def _layer(comparison: Comparison, result: LengthResult, layer: LayerResult) -> list[str]:
    cost = comparison.cost(layer.layer, result.length)
    runs = comparison.runs_of("final", result.length, layer.layer)
    return [
        *(
            f"`{layer.layer}`",
            ", ".join(map(str, result.ranks(layer.layer))),
            interval(result.estimates.get(layer.layer)),
        ),
        *(interval(layer.metrics.get(f"model/test/{subset}/auprc")) for subset in SUBSETS),
        *(number(layer.learning_rate, "g"), number(runs[0].steps), number(cost.parameters)),
        *(number(cost.training_bases_per_second), number(cost.forward_bases_per_second)),
        *(number(cost.training_memory, ",.0f", MEBI), number(layer.context.effective if layer.context else None)),
    ]


def overview(rendered: Sequence[Study]) -> str:
    """results/README.md: a row for each study."""
    rows = [[f"[{study.name}]({study.name}/README.md)", study.question, study.result, study.date] for study in rendered]
    table = Table("Results", ["study", "question", "result", "date"], rows, texts=4).markdown()
    head = (RESULTS / "README.md.j2").read_text("utf-8")
    return f"{head}\n{table}"


def draw_plots(name: str) -> None:
    """Draw the committed plots of a comparison again."""
    comparison = Comparison.read(RESULTS / name)
    for plot in draw(comparison):
        if plot.name in PLOTS:
            save_figure(plot.figure, RESULTS / name / f"{plot.name}.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages of the named studies, or of all, and the overview."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(studies()))
    parser.add_argument("--plots", action="store_true", help="draw the plots of comparisons again")
    options = parser.parse_args(arguments)
    rendered = [render(name) for name in studies()]
    for study in rendered:
        if study.name in (options.studies or studies()):
            write_text(RESULTS / study.name / "README.md", study.page)
            if options.plots and (RESULTS / study.name / "comparison.json.gz").is_file():
                draw_plots(study.name)
    write_text(RESULTS / "README.md", overview(rendered))


if __name__ == "__main__":
    main()
