"""Exact match among near-duplicates that differ in one base, by layer: trained at 512 bases, tested at up to 65,536.

    python -m benchmarks.studies.recall [LAYER ...] [--steps 300]

Every layer is trained by `genoattn train experiment=recall`, at one learning rate and from one seed: the curve shows
which layers find a needle at which distance, and is no comparison. Then the same weights are tested in longer windows;
in the longest each doubling of the distance is as likely. Each training and each evaluation has a process and a run
folder of its own under --runs; a run that has its metrics.json is not repeated.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.common.measure import machine, today, versions
from benchmarks.studies.programs import command_line, run, set_otherwise
from genoattn.comparison.report.style import COLOURS, LINES, MARKS
from genoattn.evaluation.report import Table

LAYERS = ("full", "sparse", "sparse_1", "window", "linear", "hierarchical", "none")
SETTINGS = {"sparse_1": ("attention=sparse", "attention.pool=1")}
"""Layers with settings of their own: every pair of tokens is scored, instead of means of eight."""
WINDOWS = {512: 100, 2048: 50, 16384: 40, 65536: 25}
"""Windows that are tested at each length, four queries each."""
BY_DISTANCE = 16384
"""The length at which exact match is told by distance."""
TOO_LONG = {"full": 16384}
"""The longest windows of a layer whose time grows with the square of the length."""
NEAREST = 160
"""Bases: the least distance from a query to its needle; the greatest is that of the window."""
METRICS = ("queries", "exact", "exact_low", "exact_high", "accuracy", "misled")


def summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a run that rows.json keeps: those of all queries, and by distance."""
    if "error" in metrics:
        return dict(metrics)
    kept: dict[str, Any] = {name: metrics[f"model/test/all/{name}"] for name in METRICS}
    kept["chance"] = metrics["chance/test/all/exact"]
    subsets = {key.split("/")[2] for key in metrics if key.startswith("model/test/distance_")}
    names = sorted((subset.removeprefix("distance_").replace("_", "-") for subset in subsets), key=_low)
    kept["distances"] = {
        name: {metric: metrics[f"model/test/distance_{name.replace('-', '_')}/{metric}"] for metric in METRICS}
        for name in names
    }
    return kept


def _low(name: str) -> int:
    return int(name.partition("-")[0])


def layer(name: str, home: Path, steps: int) -> dict[str, Any]:
    """Train a layer at the shortest length and test it at every length."""
    attention = SETTINGS.get(name, (f"attention={name}",))
    words = ("experiment=recall", *attention, "control=null", "trainer.threads=1", "test.windows=1")
    budget = (f"trainer.max_steps={steps}", f"trainer.validate_every={steps}", "test.resamples=2")
    trained = run("train", home / "train", [*words, *budget])
    if "error" in trained:
        return {"layer": name, "error": trained["error"]}
    costs = {key: trained[f"cost/{key}"] for key in ("parameters", "train_seconds")}
    row: dict[str, Any] = {"layer": name, "steps": steps, **costs, "lengths": {}}
    for length, windows in WINDOWS.items():
        if length > TOO_LONG.get(name, length):
            continue
        folder, model = home / str(length), home / "train"
        if length >= BY_DISTANCE:
            model = set_otherwise(model, home / f"far_{length}", "distance", [NEAREST, length])
        overrides = (f"checkpoint={model}", "data.vcf=[]", f"data.length={length}", f"test.windows={windows}")
        row["lengths"][str(length)] = summary(run("evaluate", folder, overrides))
    return row


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each layer: exact match at each length, and at the longest by distance."""
    lengths = [length for length in WINDOWS if any(str(length) in row.get("lengths", {}) for row in rows)]
    names = next((list(distances) for row in rows if (distances := _far(row))), [])
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([f"`{row['layer']}`", row["error"], *[""] * (len(lengths) + len(names) + 1)])
            continue
        cells = [_exact(row["lengths"].get(str(length), {})) for length in lengths]
        cells += [_short(_far(row).get(name)) for name in names]
        lines.append([f"`{row['layer']}`", f"{row['parameters']:,}", f"{row['steps']:,}", *cells])
    columns = ["attention", "parameters", "steps", *(f"{length:,} bases" for length in lengths)]
    columns += [f"{name.replace('-', '–')} away" for name in names]
    title = f"exact match of 8 bases, needle against near-duplicate; by distance in windows of {BY_DISTANCE:,}"
    return Table(title, columns, lines)


def _far(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics at each distance in windows of BY_DISTANCE bases."""
    return row.get("lengths", {}).get(str(BY_DISTANCE), {}).get("distances", {})


def _exact(metrics: Mapping[str, Any]) -> str:
    if "exact" not in metrics:
        return metrics.get("error", "")
    return f"{metrics['exact']:.3f} [{metrics['exact_low']:.3f}–{metrics['exact_high']:.3f}], {metrics['queries']:,}"


def _short(metrics: Mapping[str, Any] | None) -> str:
    return "" if metrics is None else f"{metrics['exact']:.2f}, {metrics['queries']}"


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Exact match against the distance from query to needle, in the longest windows; bars: 95 % over genomic blocks."""
    figure, panel = plt.subplots(figsize=(9, 4.2), layout="constrained")
    known = [row for row in rows if _far(row)]
    for number, row in enumerate(known):
        distances = _far(row)
        # Layers are set a little apart, so that bars do not cover one another.
        places = [_low(name) * 2 ** (0.5 + 0.04 * (number - len(known) / 2)) for name in distances]
        exact = [metrics["exact"] for metrics in distances.values()]
        bars = [
            [max(0.0, metrics["exact"] - metrics["exact_low"]) for metrics in distances.values()],
            [max(0.0, metrics["exact_high"] - metrics["exact"]) for metrics in distances.values()],
        ]
        label = f"{row['layer']}, {row['steps']:,} steps"  # a layer may stand in two lines
        look = {"color": COLOURS[number], "marker": MARKS[number], "linestyle": LINES[number % len(LINES)]}
        panel.errorbar(places, exact, bars, ms=5, lw=1, capsize=2, label=label, **look)
    chance = [row["lengths"][str(BY_DISTANCE)]["chance"] for row in known]
    if chance:
        panel.axhline(chance[0], color="0.5", ls=":", label="needle or near-duplicate at random")
    panel.set_xscale("log", base=2)
    panel.set(xlabel="bases from query to needle", ylabel="exact match of 8 bases", ylim=(-0.03, 1.03))
    panel.set_title(
        f"One differing base, trained at 512 bases, tested in windows of {BY_DISTANCE:,}; one seed", fontsize=9
    )
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, test, save the metrics after each layer, and print the table and draw the curve."""
    parser = command_line(__doc__, LAYERS, "recall")
    parser.add_argument("--steps", type=int, default=300, help="training steps of 8 windows of 512 bases")
    options = parser.parse_args(arguments)
    about = {"machine": machine(), "versions": versions(["torch"]), "date": today()}
    saved = json.loads(options.json.read_text("utf-8")) if options.json.is_file() else {**about, "rows": []}
    for name in () if options.table else options.layers or LAYERS:
        row = layer(name, options.runs.absolute() / f"{name}_{options.steps}", options.steps)
        others = [other for other in saved["rows"] if (other["layer"], other.get("steps")) != (name, row.get("steps"))]
        saved = {**about, "rows": sorted([*others, row], key=_order)}
        options.json.write_text(json.dumps(saved, indent=1) + "\n", "utf-8")
    plot(saved["rows"], options.json.with_name("recall.png"))
    table(saved["rows"]).print()


def _order(row: Mapping[str, Any]) -> tuple[int, int]:
    return -row.get("steps", 0), LAYERS.index(row["layer"]) if row["layer"] in LAYERS else len(LAYERS)


if __name__ == "__main__":
    main()
