"""One detector a layer, trained at 32,768 bases, on unseen E. coli in windows of 1 k to 2^20 bases.

python -m benchmarks.studies.very_long_windows [LAYER ...] [--steps 300] [--bases 1048576]

Mutations are simulated at the rates of a real strain (conf/experiment/very_long.yaml). A layer is trained at 1,024
bases first, then at 32,768: a length curriculum whose batches grow with the windows. Each training and each evaluation
has a process and a run folder of its own under --runs; a run that has its metrics.json is not repeated, so a benchmark
that was stopped goes on. At every length about --bases bases are tested. Times are those of scoring on one thread:
seconds of the processor, which other processes do not lengthen much, and seconds of the clock.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.measure import machine, today, versions
from benchmarks.studies.programs import command_line, run, set_otherwise
from genoattn.evaluation.report import Table

LAYERS = ("none", "window", "linear", "based", "hierarchical", "sparse", "delta")
LENGTHS = (2**10, 2**14, 2**17, 2**20)
DRIFTING = ("linear",)
"""Layers that are tested without the coarse alignment too, where windows are longer than its pieces."""
GENOME = "data/ecoli_MG1655.fa.gz"
COMMON = ("experiment=very_long", "control=null", "trainer.threads=1", "test.resamples=50")
SHORT = (
    *("data.length=1024", "data.batch=2", "data.validation_windows=64", "curriculum.length=null"),
    *("test.windows=64", "test.threshold_windows=128"),
)
"""Settings of the first training: short windows and small batches, many steps."""
LONG = (
    *("curriculum.rate=0.02", "curriculum.length=null", "optimizer.lr=0.001", "data.validation_windows=1"),
    *("test.windows=2", "test.threshold_windows=16"),
    *("test=real", "data.vcf=[]", "data.length=32768", "data.batch=1", "trainer.threads=1", "test.resamples=50"),
    *("curriculum.until=0.8", "curriculum.snv=0.7", "curriculum.insertion=0.15", "curriculum.deletion=0.15"),
)
"""Settings of the second training, which fine-tunes the model at 32,768 bases."""
KINDS = ("snv", "insertion", "deletion")


def _budget(steps: int) -> list[str]:
    """Steps of a training, which is validated once, at its end."""
    return [f"trainer.max_steps={steps}", f"trainer.validate_every={steps}"]


def evaluated(checkpoint: Path, folder: Path, length: int, bases: int) -> dict[str, Any]:
    """The metrics of a model in windows of one length."""
    windows = max(1, bases // length)
    words = [f"checkpoint={checkpoint}", f"data.fasta={GENOME}", f"data.length={length}"]
    words += ["test=real", f"test.windows={windows}"]
    return summary(run("evaluate", folder / f"{length}x{windows}", words)) | {"windows": windows}


def summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a run that rows.json keeps: AUPRC by kind with its interval, and the costs of scoring."""
    if "error" in metrics:
        return dict(metrics)
    kinds = {
        kind: {name: metrics[f"model/test/{kind}/{name}"] for name in ("events", "auprc", "auprc_low", "auprc_high")}
        | {"untrained": metrics.get(f"untrained/test/{kind}/auprc")}
        for kind in KINDS
        if f"model/test/{kind}/auprc" in metrics
    }
    costs = {key.removeprefix("cost/"): value for key, value in metrics.items() if key.startswith("cost/score")}
    return {"kinds": kinds, **costs}


def layer(name: str, home: Path, steps: int, bases: int) -> Iterator[dict[str, Any]]:
    """Train a layer and evaluate it at every length; yields its row after each evaluation."""
    first = run("train", home / "short", [*COMMON, f"attention={name}", *SHORT, *_budget(steps)])
    longer = [f"checkpoint={home / 'short'}", *LONG, *_budget(max(1, steps // 30))]
    trained = first if "error" in first else run("finetune", home / "train", longer)
    if "error" in trained:
        yield {"layer": name, "error": trained["error"]}
        return
    row: dict[str, Any] = {
        "layer": name,
        "steps": steps,
        "parameters": trained["cost/parameters"],
        "train_seconds": [first["cost/train_seconds"], trained["cost/train_seconds"]],
        "train_bases_per_second": trained["cost/bases_per_second"],
        "lengths": {},
    }
    for length in LENGTHS:
        row["lengths"][str(length)] = evaluated(home / "train", home, length, bases)
        yield row
    if name in DRIFTING:
        row["drifting"] = {}
        plain = set_otherwise(home / "train", home / "drifting", "realign_every", None)
        for length in LENGTHS[1:]:
            row["drifting"][str(length)] = evaluated(plain, plain, length, bases)
            yield row


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each layer and length."""
    lines = []
    for row in rows:
        for title, key in (("", "lengths"), (", no anchors", "drifting")):
            for length, metrics in row.get(key, {}).items():
                lines.append([row["layer"] + title, f"{int(length):,}", *_cells(metrics)])
        if "error" in row:
            lines.append([row["layer"], "training", row["error"], *[""] * (len(KINDS) + 2)])
    columns = ["attention", "window (bases)", *(f"{kind} AUPRC [95 %], of events" for kind in KINDS)]
    columns += ["scoring, processor s", "s", "thousand bases/s", "peak memory"]
    return Table("detectors trained at 32,768 bases, on unseen E. coli at the rates of a real strain", columns, lines)


def _cells(metrics: Mapping[str, Any]) -> list[str]:
    if "error" in metrics:
        return [metrics["error"], *[""] * (len(KINDS) + 3)]
    kinds = [metrics["kinds"].get(kind) for kind in KINDS]
    cells = [
        "–"
        if kind is None
        else f"{kind['auprc']:.3f} [{kind['auprc_low']:.3f}–{kind['auprc_high']:.3f}], {kind['events']:,}"
        for kind in kinds
    ]
    seconds, bases = metrics["score_cpu_seconds"], metrics["scored_bases"]
    peak = f"{metrics['score_peak_bytes'] / 2**30:.2f} GiB"
    return [*cells, f"{seconds:.1f}", f"{metrics['score_seconds']:.1f}", f"{bases / seconds / 1e3:.0f}", peak]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate, save the metrics after each evaluation, and print the table."""
    parser = command_line(__doc__, LAYERS, "very_long")
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
    table(saved["rows"]).print()


if __name__ == "__main__":
    main()
