"""One detector a layer, trained at 32,768 bases, on unseen E. coli in windows of 1 k to 2^20 bases.

python -m benchmarks.studies.very_long_windows [LAYER ...] [--steps 300] [--bases 1048576] [--readme]

Mutations are planted at the rates of a real strain (conf/experiment/long.yaml). A layer is trained at 1,024 bases first
and then goes on at 32,768, which is a length curriculum whose batches grow with the windows. Each training and each
evaluation is a program of its own with a run folder of its own under --runs; what has its metrics.json is not repeated,
so that a benchmark that was stopped goes on. At every length about --bases bases are tested. Times are those of scoring
on one thread: seconds of the processor, which other processes do not lengthen much, and seconds of the clock.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.measure import machine, today, versions
from benchmarks.common.tables import Sheet, markdown, show, write_between
from benchmarks.studies.programs import command_line, run, set_otherwise

CHECKOUT = Path(__file__).parents[2]
LAYERS = ("none", "window", "linear", "based", "hierarchical", "sparse", "delta")
LENGTHS = (2**10, 2**14, 2**17, 2**20)
DRIFTING = ("linear",)
"""Layers that are tested without the coarse alignment too, where windows are longer than its pieces."""
GENOME = "data/ecoli_MG1655.fa.gz"
COMMON = ("experiment=long", "control=null", "trainer.threads=1", "test.resamples=50")
SHORT = (
    *("data.length=1024", "data.batch=2", "data.validation_windows=64", "curriculum.length=null"),
    *("test.windows=64", "test.threshold_windows=128"),
)
"""Of the first training: short windows and small batches, many steps."""
LONG = (
    *("curriculum.rate=0.02", "curriculum.length=null", "optimizer.lr=0.001", "data.validation_windows=1"),
    *("test.windows=2", "test.threshold_windows=16"),
)
"""Of the second, which goes on with its weights at 32,768 bases."""
KINDS = ("snv", "insertion", "deletion")


def _budget(steps: int) -> list[str]:
    """Steps of a training, which is validated once, at its end."""
    return [f"trainer.max_steps={steps}", f"trainer.validate_every={steps}"]


def evaluated(checkpoint: Path, folder: Path, length: int, bases: int) -> dict[str, Any]:
    """What a model makes of windows of one length."""
    windows = max(1, bases // length)
    words = [f"checkpoint={checkpoint}", f"data.fasta={GENOME}", f"data.length={length}"]
    words += ["test=real", f"test.windows={windows}"]
    return summary(run("evaluate", folder / f"{length}x{windows}", words)) | {"windows": windows}


def summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's metrics.json is kept: AUPRC by kind with its interval, and what scoring took."""
    if "error" in figures:
        return dict(figures)
    kinds = {
        kind: {name: figures[f"model/test/{kind}/{name}"] for name in ("events", "auprc", "auprc_low", "auprc_high")}
        | {"untrained": figures.get(f"untrained/test/{kind}/auprc")}
        for kind in KINDS
        if f"model/test/{kind}/auprc" in figures
    }
    costs = {key.removeprefix("cost/"): value for key, value in figures.items() if key.startswith("cost/score")}
    return {"kinds": kinds, **costs}


def layer(name: str, home: Path, steps: int, bases: int) -> Iterator[dict[str, Any]]:
    """Train a layer, and evaluate it at every length; what is known so far, after each evaluation."""
    first = run("train", home / "short", [*COMMON, f"attention={name}", *SHORT, *_budget(steps)])
    longer = [*COMMON, f"checkpoint={home / 'short'}", *LONG, *_budget(max(1, steps // 30))]
    trained = first if "error" in first else run("train", home / "train", longer)
    if "error" in trained:
        yield {"layer": name, "error": trained["error"]}
        return
    found: dict[str, Any] = {
        "layer": name,
        "steps": steps,
        "parameters": trained["cost/parameters"],
        "train_seconds": [first["cost/train_seconds"], trained["cost/train_seconds"]],
        "train_bases_per_second": trained["cost/bases_per_second"],
        "lengths": {},
    }
    for length in LENGTHS:
        found["lengths"][str(length)] = evaluated(home / "train", home, length, bases)
        yield found
    if name in DRIFTING:
        found["drifting"] = {}
        plain = set_otherwise(home / "train", home / "drifting", "anchor", None)
        for length in LENGTHS[1:]:
            found["drifting"][str(length)] = evaluated(plain, plain, length, bases)
            yield found


def sheet(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    """A line for each layer and length."""
    lines = []
    for row in rows:
        for title, key in (("", "lengths"), (", no anchors", "drifting")):
            for length, found in row.get(key, {}).items():
                lines.append([row["layer"] + title, f"{int(length):,}", *_cells(found)])
        if "error" in row:
            lines.append([row["layer"], "training", row["error"], *[""] * (len(KINDS) + 2)])
    columns = ["attention", "window (bases)", *(f"{kind} AUPRC [95 %], of events" for kind in KINDS)]
    columns += ["scoring, processor s", "s", "thousand bases/s", "peak memory"]
    return Sheet("detectors trained at 32,768 bases, on unseen E. coli at the rates of a real strain", columns, lines)


def _cells(found: Mapping[str, Any]) -> list[str]:
    if "error" in found:
        return [found["error"], *[""] * (len(KINDS) + 3)]
    kinds = [found["kinds"].get(kind) for kind in KINDS]
    cells = [
        "–"
        if one is None
        else f"{one['auprc']:.3f} [{one['auprc_low']:.3f}–{one['auprc_high']:.3f}], {one['events']:,}"
        for one in kinds
    ]
    taken, bases = found["score_cpu_seconds"], found["scored_bases"]
    peak = f"{found['score_peak_bytes'] / 2**30:.2f} GiB"
    return [*cells, f"{taken:.1f}", f"{found['score_seconds']:.1f}", f"{bases / taken / 1e3:.0f}", peak]


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, evaluates, saves the figures after each evaluation, and draws the table."""
    parser = command_line(__doc__, LAYERS, "long")
    parser.add_argument(
        "--steps", type=int, default=300, help="training steps of 2 x 1,024 bases, and a thirtieth of them of 32,768"
    )
    parser.add_argument("--bases", type=int, default=2**20, help="bases tested at every length, about")
    options = parser.parse_args(arguments)
    if options.table:
        saved = json.loads(options.json.read_text("utf-8"))
    else:
        saved = {"machine": machine(), "versions": versions(["torch"]), "date": today(), "rows": []}
        for name in options.layers or LAYERS:
            home = options.runs.absolute() / f"{name}_{options.steps}"
            saved["rows"].append({"layer": name})
            for row in layer(name, home, options.steps, options.bases):
                saved["rows"][-1] = row
                options.json.write_text(json.dumps(saved, indent=1) + "\n", "utf-8")
    show([sheet(saved["rows"])])
    if options.readme:
        write_between(CHECKOUT / "README.md", "benchmarks/long", markdown(sheet(saved["rows"])))


if __name__ == "__main__":
    main()
