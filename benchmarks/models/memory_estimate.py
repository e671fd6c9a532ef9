"""Peak memory predicted by `genoattn plan` and measured, for every layer, in training and in inference.

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
"""Lengths in bases and windows of a step; topk, which scores every pair, gets half the length."""
WITHIN = 0.25
"""Largest allowed relative error of a prediction."""
PEAKS = ("training_peak_bytes", "forward_peak_bytes")


def layers() -> list[str]:
    """Names of all attention layers."""
    return sorted(file.stem for file in (CHECKOUT / "conf" / "attention").glob("*.yaml"))


def planned(layer: str, length: int, batch: int) -> dict[str, Any]:
    """Predicted and measured memory of one layer at one size."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "experiment=paired_long",
            f"attention={layer}",
            f"data.length={length}",
            f"data.batch={batch}",
            "curriculum.length=null",
            "control=null",
            "trainer.threads=1",
            "measure=true",
            f"hydra.run.dir={folder}",
        ]
        command = [sys.executable, "-m", "genoattn", "plan", *words]
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")
        plan = json.loads((Path(folder) / "plan.json").read_text())
    return {"layer": layer, "length": length, "batch": batch, **{key: plan[key] for key in ("predicted", "measured")}}


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table with a row for each case: MiB, and the relative error of the prediction."""
    lines = []
    for row in rows:
        cells = [f"`{row['layer']}`", f"2 × {row['length']:,}", str(row["batch"])]
        for key in PEAKS:
            predicted, measured = row["predicted"][key], row["measured"][key]
            cells += [f"{predicted / 2**20:,.0f}", f"{measured / 2**20:,.0f}", f"{predicted / measured - 1:+.0%}"]
        lines.append(cells)
    worst = max(abs(row["predicted"][key] / row["measured"][key] - 1) for row in rows for key in PEAKS)
    title = f"the whole process, MiB; the furthest off is {worst:.0%} (asked: at most {WITHIN:.0%})"
    columns = ["attention", "bases", "batch"]
    columns += [
        f"{pass_name}, {word}" for pass_name in ("training", "answering") for word in ("predicted", "measured", "off")
    ]
    return Table(title, columns, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Plans, saves the measurements, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=ROWS, help="where the measurements are saved")
    parser.add_argument(
        "--table", action="store_true", help="print the table of the saved measurements without measuring"
    )
    options = parser.parse_args(arguments)
    if options.table:
        saved = json.loads(options.json.read_text())
    else:
        rows = []
        for length, batch in CASES:
            for layer in layers():
                halved = layer == "topk" and length > 512
                rows.append(planned(layer, length // 2 if halved else length, batch))
                print(f"{layer} {length}", flush=True)
        saved = {"machine": machine(), "versions": versions(["torch"]), "date": today(), "rows": rows}
        options.json.write_text(json.dumps(saved, indent=1) + "\n")
    table(saved["rows"]).print()


if __name__ == "__main__":
    main()
