"""The strand of windows of 1,024 to 16,384 bases, and broken reading frames, by layer: a long task and a local one.

    python -m benchmarks.studies.strand_frame [LAYER ...] [--steps 200] [--jobs 2]

Every layer is trained once on `task=strand`, on windows of mixed lengths from 256 to 16,384 bases of the E. coli that
comes along, and tested at three lengths; and once on `task=frame` on the S. aureus. One learning rate, one seed. Each
training and each evaluation has a process and a run folder of its own under --runs; a run that has its metrics.json is
not repeated.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common.measure import machine, today, versions
from benchmarks.studies.programs import command_line, run
from genoattn.evaluation.report import Table, with_interval

LAYERS = ("none", "conv", "window", "linear", "ssd", "full", "hierarchical")
WINDOWS = {1024: 400, 4096: 200, 16384: 100}
"""Windows that are tested at each length."""
FRAMES = ("all", "insertion", "deletion", "stop")
"""Subsets of the local task: all windows, and the broken ones of each kind beside all intact ones."""
BASELINES = {"gc_skew": "GC skew", "kmers_3": "3-mers", "codons_30": "codon model ±30", "codons_60": "codon model ±60"}
PAGE = Path(__file__).with_suffix(".md.j2")
"""The template of results/strand_frame/README.md, which is copied beside the first measurements."""


def auroc(metrics: Mapping[str, Any], candidate: str, subset: str = "all") -> list[float] | None:
    """AUROC and its interval of a candidate; None if the run lacks it."""
    keys = [f"{candidate}/test/{subset}/auroc{end}" for end in ("", "_low", "_high")]
    return [metrics[key] for key in keys] if keys[0] in metrics else None


def layer(name: str, home: Path, steps: int) -> dict[str, Any]:
    """Train a layer on both tasks and test it."""
    words = (f"attention={name}", "control=null", "trainer.threads=1", "trainer.memory_check=false")
    data = "data.fasta=data/ecoli_MG1655.fa.gz"
    long = (data, f"data.length={max(WINDOWS)}", "data.batch=1", "data.validation_windows=8", "test.windows=20")
    budget = (f"trainer.max_steps={steps}", f"trainer.validate_every={max(1, steps // 4)}")
    trained = run("train", home / "strand", ["experiment=strand", *words, *long, *budget])
    frame = run("train", home / "frame", ["experiment=frame", *words, f"trainer.max_steps={3 * steps}"])
    row: dict[str, Any] = {"layer": name, "steps": steps}
    for task, metrics in (("strand", trained), ("frame", frame)):
        if "error" in metrics:
            row[f"{task}_error"] = metrics["error"]
        else:
            row |= {f"{task}_{key}": metrics[f"cost/{key}"] for key in ("parameters", "train_seconds")}
    row["frame"] = _scores(frame, FRAMES)
    row["strand"] = {}
    for length, windows in WINDOWS.items() if "error" not in trained else ():
        overrides = (f"checkpoint={home / 'strand'}", data, f"data.length={length}", f"test.windows={windows}")
        row["strand"][str(length)] = _scores(run("evaluate", home / str(length), overrides), ["all"])
    return row


def _scores(metrics: Mapping[str, Any], subsets: Sequence[str]) -> dict[str, Any]:
    """AUROC with its interval, by candidate and subset."""
    found = {
        candidate: {subset: scores for subset in subsets if (scores := auroc(metrics, candidate, subset))}
        for candidate in ("model", "untrained", *BASELINES)
    }
    return {candidate: scores for candidate, scores in found.items() if scores} or dict(metrics)


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each layer and each baseline: AUROC of the strand at each length, and of broken frames."""
    lines = [_line(f"`{row['layer']}`", row, "model") for row in rows]
    if rows:
        lines += [_line(name, rows[0], key) for key, name in BASELINES.items()]
    columns = ["attention", *(f"strand, {length:,} bases" for length in WINDOWS), "frame", "of insertions"]
    columns += ["of deletions", "of stops", "seconds of training"]
    return Table("AUROC [95 %]", columns, lines)


def _line(name: str, row: Mapping[str, Any], candidate: str) -> list[str]:
    cells = [_cell(row["strand"].get(str(length), {}), candidate, "all") for length in WINDOWS]
    cells += [_cell(row["frame"], candidate, subset) for subset in FRAMES]
    seconds = [row.get(f"{task}_train_seconds") for task in ("strand", "frame")] if candidate == "model" else []
    known = [f"{value:,.0f}" for value in seconds if value is not None]
    return [name, *cells, " + ".join(known) or "–"]


def _cell(scores: Mapping[str, Any], candidate: str, subset: str) -> str:
    found = scores.get(candidate, {})
    return with_interval(*found[subset]) if subset in found else scores.get("error", "–")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, test, save the measurements after each layer, and print the table."""
    parser = command_line(__doc__, LAYERS, "strand_frame")
    parser.add_argument("--steps", type=int, default=200, help="training steps of 16,384 bases; three times for frames")
    parser.add_argument("--jobs", type=int, default=2, help="layers at the same time")
    options = parser.parse_args(arguments)
    about = {"machine": machine(), "versions": versions(["torch"]), "date": today()}
    rows = {row["layer"]: row for row in _saved(options.json)}
    with ThreadPoolExecutor(options.jobs) as pool:
        asked = () if options.table else options.layers or LAYERS
        homes = [options.runs.absolute() / f"{name}_{options.steps}" for name in asked]
        for row in pool.map(layer, asked, homes, [options.steps] * len(homes)):
            rows[row["layer"]] = row
            ordered = sorted(rows.values(), key=lambda row: [*LAYERS, row["layer"]].index(row["layer"]))
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps({**about, "rows": ordered}, indent=1) + "\n", "utf-8")
    page = options.json.with_name("README.md.j2")
    if options.json.is_file() and not page.is_file():
        shutil.copyfile(PAGE, page)
    table(_saved(options.json)).print()


def _saved(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text("utf-8"))["rows"] if file.is_file() else []


if __name__ == "__main__":
    main()
