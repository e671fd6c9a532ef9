"""A million bases through a model, layer by layer, in segments: seconds, share of the matrix peak, memory.

python -m benchmarks.models.streaming [LAYER ...] [--length 1048576]

Each layer in a process of its own. The peak is that of products of matrices of 2048, in float32, measured in the same
process before and after. Memory is what the call needs above what the process held. At 64k the outputs are compared
with those of the plain forward pass.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.measure import Foreign, Memory, apart, machine, timed, today, versions, wait_quiet
from benchmarks.models.models import VOCABULARY, model, useful_flops
from benchmarks.operators.goals import at_least, at_most
from genoattn.evaluation.report import Table

ROWS = Path(__file__).parents[2] / "results" / "streaming" / "rows.json"
DEPTH, SEGMENT, COMPARED = 4, 4096, 2**16
MOST_ABOVE_GIB, MOST_DIFFERENCE = 0.65, 1e-5
LONGEST = 400.0
"""Seconds after which a process is ended."""


SHARES = {"linear": 0.40, "window": 0.36, "hierarchical": None, "delta": None, "ssd": None, "hyena": None}
"""Goal for the share of the matrix peak by layer (None: no goal)."""


def matrix_peak(size: int = 2048, calls: int = 12) -> float:
    """The most FLOP/s of a product of two square matrices."""
    a, b, c = (torch.randn(size, size) for _ in range(3))
    return 2 * size**3 / timed(lambda: torch.mm(a, b, out=c), seconds=3.0, patience=9.0, most=calls).least


@torch.inference_mode()
def measured(attention: str, length: int, calls: int) -> dict[str, Any]:
    """Measure one layer in its own process; the shortest of `calls` counts."""
    torch.manual_seed(0)
    network = model(attention, DEPTH).eval()
    ids = torch.randint(VOCABULARY, (1, length))
    network.forward_chunked(ids[:, : 2 * SEGMENT], chunk=SEGMENT)  # what is loaded and made once is not counted
    peak = matrix_peak()
    with Foreign() as foreign, Memory() as memory:
        taken = [
            timed(lambda: network.forward_chunked(ids, chunk=SEGMENT), 0.0, patience=0.0).least for _ in range(calls)
        ]
    peak = max(peak, matrix_peak())
    compared = ids[:, :COMPARED]
    pieces, whole = network.forward_chunked(compared, chunk=SEGMENT), network(compared)
    flops = useful_flops(attention, DEPTH, length)
    return {
        "seconds": min(taken),
        "all_seconds": taken,
        "flops": flops,
        "peak_flops": peak,
        "share": flops / min(taken) / peak,
        "above_gib": memory.above / 2**10,
        "peak_gib": memory.peak / 2**10,
        "difference": max(float((pieces[name] - whole[name]).abs().max()) for name in whole),
        "foreign": foreign.cores,
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Table with a row for each layer and the outcomes of the goals."""
    lines = []
    for row in rows:
        figures = row["figures"]
        if "error" in figures:
            lines.append([row["layer"], str(figures["error"]), *[""] * 6])
            continue
        goal = SHARES[row["layer"]]
        share = f"{figures['share']:.0%}"
        if goal is not None:
            share += f" (≥ {goal:.0%}: {at_least(figures['share'], goal)})"
        above = f"{figures['above_gib']:.2f} GiB"
        above += f" (≤ {MOST_ABOVE_GIB}: {at_most(figures['above_gib'], MOST_ABOVE_GIB)})"
        equal = "equal" if figures["difference"] <= MOST_DIFFERENCE else "NOT equal"
        rate, peak = row["length"] / figures["seconds"] / 1e3, figures["peak_flops"] / 1e9
        lines.append(
            [
                row["layer"],
                f"{figures['seconds']:.1f}",
                f"{rate:,.0f}",
                share,
                f"{peak:.0f}",
                above,
                f"{equal} ({figures['difference']:.0e})",
                f"{figures['foreign']}",
            ]
        )
    columns = [
        "attention",
        "s",
        "thousand tokens/s",
        "of the matrix peak",
        "peak GFLOP/s",
        "memory above",
        f"to the plain forward at {COMPARED // 1024}k",
        "foreign cores",
    ]
    return Table("forward through 4 layers of dim 128 with 4 heads, in segments", columns, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, saves the measurements, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=", ".join(SHARES))
    parser.add_argument("--length", type=int, default=2**20, help="tokens")
    parser.add_argument("--calls", type=int, default=1, help="calls of each layer, of which the shortest counts")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for others to be quiet")
    parser.add_argument("--json", type=Path, default=ROWS, help="where the measurements are saved")
    parser.add_argument(
        "--table", action="store_true", help="print the table of the saved measurements without measuring"
    )
    options = parser.parse_args(arguments)
    if options.table:
        saved = json.loads(options.json.read_text())
    else:
        saved = {"machine": machine(), "versions": versions(["torch"]), "date": today(), "rows": []}
        for layer in options.layers or SHARES:
            wait_quiet(options.wait)
            figures = apart(measured, layer, options.length, options.calls, seconds=LONGEST, gib=12)
            saved["rows"].append({"layer": layer, "length": options.length, "figures": figures})
            options.json.write_text(json.dumps(saved, indent=1) + "\n")
    table(saved["rows"]).print()


if __name__ == "__main__":
    main()
