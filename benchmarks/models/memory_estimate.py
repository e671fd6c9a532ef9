"""The peak memory that `genoattn plan` predicts beside what is measured, for every layer, in training and in answering.

    python -m benchmarks.models.memory_estimate

Each case is `genoattn plan … measure=true` in a process of its own: task paired, two segments of `length` bases each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.measure import machine, today, versions
from genoattn.evaluation.report import Table

CHECKOUT = Path(__file__).parents[2]
ROWS = CHECKOUT / "results" / "memory" / "rows.json"
CASES = ((512, 4), (4096, 6))
"""Lengths in bases and windows a step; topk scores every pair and has the half of it."""
WITHIN = 0.25
"""How far from what is measured a prediction may be."""
PEAKS = ("training_peak_bytes", "forward_peak_bytes")


def layers() -> list[str]:
    """Every choice of attention."""
    return sorted(file.stem for file in (CHECKOUT / "conf" / "attention").glob("*.yaml"))


def planned(layer: str, length: int, batch: int) -> dict[str, Any]:
    """What was predicted and what was measured for one layer at one size."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "experiment=paired_long", f"attention={layer}", f"data.length={length}", f"data.batch={batch}",
            "curriculum.length=null", "control=null", "trainer.threads=1", "measure=true", f"hydra.run.dir={folder}",
        ]  # fmt: skip
        command = [sys.executable, "-m", "genoattn", "plan", *words]
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")
        found = json.loads((Path(folder) / "plan.json").read_text())
    return {"layer": layer, "length": length, "batch": batch, **{key: found[key] for key in ("predicted", "measured")}}


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line a case: mebibytes, and by how much the prediction is off."""
    lines = []
    for row in rows:
        cells = [f"`{row['layer']}`", f"2 × {row['length']:,}", str(row["batch"])]
        for key in PEAKS:
            told, got = row["predicted"][key], row["measured"][key]
            cells += [f"{told / 2**20:,.0f}", f"{got / 2**20:,.0f}", f"{told / got - 1:+.0%}"]
        lines.append(cells)
    worst = max(abs(row["predicted"][key] / row["measured"][key] - 1) for row in rows for key in PEAKS)
    told = f"the whole process, MiB; the furthest off is {worst:.0%} (asked: at most {WITHIN:.0%})"
    columns = ["attention", "bases", "batch"]
    columns += [f"{what}, {word}" for what in ("training", "answering") for word in ("predicted", "measured", "off")]
    return Table(told, columns, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Plans, saves the figures, and draws the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=ROWS, help="where the measurements are saved")
    parser.add_argument("--table", action="store_true", help="draw what the file holds, and measure nothing")
    options = parser.parse_args(arguments)
    if options.table:
        saved = json.loads(options.json.read_text())
    else:
        rows = []
        for length, batch in CASES:
            for layer in layers():
                least = layer == "topk" and length > 512
                rows.append(planned(layer, length // 2 if least else length, batch))
                print(f"{layer} {length}", flush=True)
        saved = {"machine": machine(), "versions": versions(["torch"]), "date": today(), "rows": rows}
        options.json.write_text(json.dumps(saved, indent=1) + "\n")
    table(saved["rows"]).print()


if __name__ == "__main__":
    main()
