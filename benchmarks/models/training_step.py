"""A training step at 256k bases that keeps little, and what keeping little costs at 16k.

python -m benchmarks.models.training_step [--long 262144] [--short 16384]

6 layers of linear attention, dim 128, 4 heads, float32: forward, cross-entropy at every token, backward, a step of
AdamW. Each case in a process of its own; at 16k with and without recomputation in turn, the shortest times compared.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common.measure import Foreign, Memory, apart, machine, timed, today, versions, wait_quiet
from benchmarks.models.models import PLAIN, RECOMPUTED, VOCABULARY, model
from genoattn.evaluation.report import Table

ROWS = Path(__file__).parents[2] / "results" / "training_step" / "rows.json"
DEPTH = 6
MOST_GIB, MOST_SLOWER = 8.0, 1.1
LONGEST = 500.0
"""Seconds after which a process is ended."""


def measured(length: int, recompute: bool | str, seconds: float) -> dict[str, Any]:
    """Training steps of one model; run in a process of its own."""
    torch.manual_seed(0)
    network = model("linear", DEPTH, recompute).train()
    optimizer = torch.optim.AdamW(network.parameters())
    ids, targets = (torch.randint(VOCABULARY, (1, length)) for _ in range(2))

    def step(ids: torch.Tensor, targets: torch.Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(ids)["token"].flatten(0, 1), targets.flatten()).backward()
        optimizer.step()

    step(ids[:, :1024], targets[:, :1024])  # what is loaded and made once is not counted
    with Foreign() as foreign, Memory() as memory:
        timing = timed(lambda: step(ids, targets), seconds, patience=seconds)
    peak = {"peak_gib": memory.peak / 2**10, "above_gib": memory.above / 2**10, "foreign": foreign.cores}
    return timing._asdict() | peak


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for each case, and the goals beside the figures that they are about."""
    plain = next((_least(row) for row in rows if not row["recompute"]), None)
    long = max(row["length"] for row in rows)
    lines = []
    for row in rows:
        kept = "recomputed" if row["recompute"] else "kept"
        least, errors = _least(row), [run["error"] for run in row["runs"] if "error" in run]
        if least is None:
            lines.append([f"{row['length'] // 1024}k", kept, errors[0], "", "", ""])
            continue
        slower = ""
        if row["recompute"] and plain is not None and row["length"] < long:
            got = least / plain
            slower = f"{got:.2f}× (≤ {MOST_SLOWER}×: {_word(got, MOST_SLOWER)})"
        gib = max(run["peak_gib"] for run in row["runs"])
        memory = f"{gib:.2f} GiB"
        if row["length"] == long:
            memory += f" (≤ {MOST_GIB:g} GiB: {_word(gib, MOST_GIB)})"
        rate = row["length"] / least / 1e3
        lines.append([f"{row['length'] // 1024}k", kept, f"{least:.2f}", f"{rate:.1f}", memory, slower])
    columns = ["tokens", "token-wise parts", "s a step", "thousand tokens/s", "peak memory", "over kept"]
    return Table("a training step: 6 layers of linear attention, dim 128", columns, lines)


def _least(row: dict[str, Any]) -> float | None:
    """The shortest step of all runs, or None where one failed."""
    failed = any("error" in run for run in row["runs"])
    return None if failed else min(run["least"] for run in row["runs"])


def _word(got: float, most: float) -> str:
    return "reached" if got <= most else f"over by {got / most - 1:.0%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, saves the measurements, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", type=int, default=2**18, help="tokens of the step whose memory counts")
    parser.add_argument("--short", type=int, default=2**14, help="tokens of the steps whose times are compared")
    parser.add_argument("--rounds", type=int, default=3, help="how often each of those is measured")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for others to be quiet")
    parser.add_argument("--json", type=Path, default=ROWS, help="where the measurements are saved")
    parser.add_argument(
        "--table", action="store_true", help="print the table of the saved measurements without measuring"
    )
    options = parser.parse_args(arguments)
    if options.table:
        saved = json.loads(options.json.read_text())
    else:
        cases = [(options.short, PLAIN), (options.short, RECOMPUTED), (options.long, RECOMPUTED)]
        rows = [{"length": length, "recompute": recompute, "runs": []} for length, recompute in cases]
        for turn in range(options.rounds):
            for row in rows[:2] if turn else rows:
                wait_quiet(options.wait)
                run = apart(measured, row["length"], row["recompute"], 5.0, seconds=LONGEST, gib=20)
                row["runs"].append(run)
        saved = {"machine": machine(), "versions": versions(["torch"]), "date": today(), "rows": rows}
        options.json.write_text(json.dumps(saved, indent=1) + "\n")
    table(saved["rows"]).print()


if __name__ == "__main__":
    main()
