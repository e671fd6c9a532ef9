"""Near-duplicates that differ in one base, by layer: trained at 512 bases, asked for at up to 16,384.

    python -m benchmarks.studies.recall [LAYER ...] [--steps 300] [--readme]

Every layer is trained by `genoattn train experiment=recall`, at one learning rate and from one seed: the curve shows
which layers find a needle at what distance, and no verdict is drawn from it. Then the same weights are asked in longer
windows; in the longest each doubling of the distance is as likely. Each training and each evaluation is a program of
its own with a run folder of its own under --runs; what has its metrics.json is not repeated.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.common.measure import machine, today, versions
from benchmarks.common.tables import Sheet, markdown, show, write_between
from benchmarks.studies.programs import command_line, run, set_otherwise
from genoattn.comparison.report.plot_style import look

CHECKOUT = Path(__file__).parents[2]
LAYERS = ("full", "sparse", "window", "linear", "hierarchical", "based", "none")
WINDOWS = {512: 100, 2048: 50, 16384: 40}
"""Windows that are tested at each length, four queries each."""
NEAREST = 160
"""Bases: the least distance from a query to its needle; the greatest is that of the window."""
FIGURES = ("queries", "exact", "exact_low", "exact_high", "accuracy", "misled")


def summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's metrics.json is kept: the figures of all queries, and by distance."""
    if "error" in figures:
        return dict(figures)
    found: dict[str, Any] = {name: figures[f"model/test/all/{name}"] for name in FIGURES}
    found["chance"] = figures["chance/test/all/exact"]
    prefix = "model/test/distance_"
    names = {key.split("/")[2].removeprefix("distance_").replace("_", "-") for key in figures if key.startswith(prefix)}
    found["distances"] = {
        name: {figure: figures[f"{prefix}{name.replace('-', '_')}/{figure}"] for figure in FIGURES}
        for name in sorted(names, key=_low)
    }
    return found


def _low(name: str) -> int:
    return int(name.partition("-")[0])


def layer(name: str, home: Path, steps: int) -> dict[str, Any]:
    """Train a layer at the shortest length, and ask it at every other."""
    words = ("experiment=recall", f"attention={name}", "control=null", "trainer.threads=1", "test.windows=1")
    budget = (f"trainer.max_steps={steps}", f"trainer.validate_every={steps}", "test.resamples=2")
    trained = run("train", home / "train", [*words, *budget])
    if "error" in trained:
        return {"layer": name, "error": trained["error"]}
    costs = {key: trained[f"cost/{key}"] for key in ("parameters", "train_seconds")}
    found = {"layer": name, "steps": steps, **costs, "lengths": {}}
    for length, windows in WINDOWS.items():
        folder, model = home / str(length), home / "train"
        if length == max(WINDOWS):
            model = set_otherwise(model, folder, "distance", [NEAREST, length])
        asked = (f"checkpoint={model}", "data.vcf=[]", f"data.length={length}", f"test.windows={windows}")
        found["lengths"][str(length)] = summary(run("evaluate", folder, asked))
    return found


def sheet(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    """A line a layer: exact match at each length, and at the longest by distance."""
    last = max(WINDOWS)
    names = next((list(found) for row in rows if (found := _far(row))), [])
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([f"`{row['layer']}`", row["error"], *[""] * (len(WINDOWS) + len(names) + 1)])
            continue
        cells = [_exact(row["lengths"].get(str(length), {})) for length in WINDOWS]
        cells += [_short(_far(row).get(name)) for name in names]
        lines.append([f"`{row['layer']}`", f"{row['parameters']:,}", f"{row['steps']:,}", *cells])
    columns = ["attention", "parameters", "steps", *(f"{length:,} bases" for length in WINDOWS)]
    columns += [f"{name.replace('-', '–')} away" for name in names]
    title = f"exact match of 8 bases, needle against near-duplicate; by distance in windows of {last:,}"
    return Sheet(title, columns, lines)


def _far(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was found at each distance in the longest windows."""
    return row.get("lengths", {}).get(str(max(WINDOWS)), {}).get("distances", {})


def _exact(found: Mapping[str, Any]) -> str:
    if "exact" not in found:
        return found.get("error", "")
    return f"{found['exact']:.3f} [{found['exact_low']:.3f}–{found['exact_high']:.3f}], {found['queries']:,}"


def _short(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{found['exact']:.2f}, {found['queries']}"


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Exact match against the distance from query to needle, in the longest windows; bars: 95 % over genomic blocks."""
    figure, panel = plt.subplots(figsize=(9, 4.2), layout="constrained")
    last = max(WINDOWS)
    known = [row for row in rows if _far(row)]
    names = {"layers": [str(number) for number in range(len(known))]}  # a layer may stand in two lines
    for number, row in enumerate(known):
        found = _far(row)
        # Layers are set a little apart, so that bars do not cover one another.
        places = [_low(name) * 2 ** (0.5 + 0.04 * (number - len(known) / 2)) for name in found]
        exact = [one["exact"] for one in found.values()]
        reach = [
            [max(0.0, one["exact"] - one["exact_low"]) for one in found.values()],
            [max(0.0, one["exact_high"] - one["exact"]) for one in found.values()],
        ]
        label = f"{row['layer']}, {row['steps']:,} steps"
        panel.errorbar(places, exact, reach, ms=5, lw=1, capsize=2, label=label, **look(names, str(number)))
    chance = [row["lengths"][str(last)]["chance"] for row in known]
    if chance:
        panel.axhline(chance[0], color="0.5", ls=":", label="needle or near-duplicate at random")
    panel.set_xscale("log", base=2)
    panel.set(xlabel="bases from query to needle", ylabel="exact match of 8 bases", ylim=(-0.03, 1.03))
    panel.set_title(f"One differing base, trained at 512 bases, asked in windows of {last:,}; one seed", fontsize=9)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, asks, saves the figures after each layer, and draws the table and the curve."""
    parser = command_line(__doc__, LAYERS, "recall")
    parser.add_argument("--steps", type=int, default=300, help="training steps of 8 windows of 512 bases")
    options = parser.parse_args(arguments)
    about = {"machine": machine(), "versions": versions(["torch"]), "date": today()}
    saved = json.loads(options.json.read_text("utf-8")) if options.json.is_file() else {**about, "rows": []}
    for name in () if options.table else options.layers or LAYERS:
        row = layer(name, options.runs.absolute() / f"{name}_{options.steps}", options.steps)
        others = [one for one in saved["rows"] if (one["layer"], one.get("steps")) != (name, row.get("steps"))]
        saved = {**about, "rows": sorted([*others, row], key=_order)}
        options.json.write_text(json.dumps(saved, indent=1) + "\n", "utf-8")
    plot(saved["rows"], options.json.with_suffix(".png"))
    show([sheet(saved["rows"])])
    if options.readme:
        write_between(CHECKOUT / "README.md", "benchmarks/recall", markdown(sheet(saved["rows"])))


def _order(row: Mapping[str, Any]) -> tuple[int, int]:
    return -row.get("steps", 0), LAYERS.index(row["layer"]) if row["layer"] in LAYERS else len(LAYERS)


if __name__ == "__main__":
    main()
