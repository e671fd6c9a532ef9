"""Launches, waits, bytes and FLOPs of every layer on a GPU, and the time that an H100 would need at least.

    python -m benchmarks.counts.run [--name after] [--lengths 65536 1048576] [--json FILE]

Nothing is run on a GPU and nothing is timed. The rows of other names in the file are kept, so that one command in an
older checkout and one in this one give "before" and "after".
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.counts.counter import Counts
from benchmarks.counts.layers import CASES, DIM, HEADS, Case, count
from genoattn.evaluation.report import Table
from genoattn.files import write_text

ROWS = Path(__file__).parents[2] / "results" / "gpu" / "rows.json"

BYTES_A_SECOND = 3.35e12
FLOPS_A_SECOND = {"bfloat16": 989e12, "float32": 67e12}
"""Of an H100 SXM, dense; float32 without TF32, as torch computes by default."""
SECONDS_A_LAUNCH = 5e-6

FORWARD_PRODUCTS, BACKWARD_PRODUCTS = 2, 7
"""Products of a pair of a query and a key in the softmax kernels: the backward pass has two kernels of its own."""


def counted(name: str, case: Case, length: int) -> dict[str, Any]:
    """The row of a layer at a length."""
    forward, backward = count(case, length)
    return {"layer": name, "length": length, "forward": _saved(forward), "backward": _saved(backward)}


def _saved(counts: Counts) -> dict[str, Any]:
    return {name: value for name, value in vars(counts).items() if name != "names"}


def kernel_flops(case: Case, length: int) -> tuple[float, float]:
    """FLOPs of a layer's Triton kernels, forward and backward."""
    scores, sums = 2 * case.pairs(length) * DIM * length, 2 * case.sums * HEADS * length
    return FORWARD_PRODUCTS * scores + sums, BACKWARD_PRODUCTS * scores + 2.5 * sums


def predicted(row: dict[str, Any]) -> tuple[float, float]:
    """Least seconds of the device and of its launches, forward and backward; they overlap.

    Operations that are no products are bound by memory; products, and kernels, by memory or by their FLOPs.
    """
    device, launches = 0.0, 0
    flops = kernel_flops(CASES[row["layer"]], row["length"])
    for counts, of_kernels in zip((row["forward"], row["backward"]), flops, strict=True):
        products = sum(number / FLOPS_A_SECOND[dtype] for dtype, number in counts["flops"].items())
        device += counts["bytes"] / BYTES_A_SECOND + max(products, counts["product_bytes"] / BYTES_A_SECOND)
        if counts["kernels"]:
            device += max(of_kernels / FLOPS_A_SECOND["bfloat16"], counts["kernel_bytes"] / BYTES_A_SECOND)
        launches += counts["launches"]
    return device, launches * SECONDS_A_LAUNCH


def table(rows: Sequence[dict[str, Any]], length: int) -> Table:
    """A row for each layer at a length: before → after."""
    by_name = {name: {row["layer"]: row for row in rows if row["name"] == name and row["length"] == length}
               for name in ("before", "after")}  # fmt: skip
    columns = ["layer", "launches, forward", "launches, backward", "waits", "GiB moved", "TFLOP", "device, ms"]
    columns += ["launches, ms", "least time, ms", "ratio"]
    lines = []
    for layer in CASES:
        pair = [by_name[name].get(layer) for name in ("before", "after")]
        if pair[1] is not None:
            lines.append(
                [f"`{layer}`", *(_joined(cells) for cells in zip(*map(_cells, pair), strict=True)), _ratio(pair)]
            )
    return Table(f"{length:,} tokens", columns, lines)


def rendered(rows: Sequence[dict[str, Any]]) -> str:
    """The tables of all lengths."""
    return "\n".join(table(rows, length).markdown() for length in sorted({row["length"] for row in rows}))


def least(rows: Sequence[dict[str, Any]], layer: str, length: int, name: str = "after") -> str:
    """The least milliseconds of a layer."""
    (row,) = (row for row in rows if (row["layer"], row["length"], row["name"]) == (layer, length, name))
    return _short(max(predicted(row)) * 1e3)


def _cells(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["not counted"] * 8
    passes = row["forward"], row["backward"]
    moved = sum(counts["bytes"] + counts["product_bytes"] + counts["kernel_bytes"] for counts in passes)
    flops = sum((Counter(counts["flops"]) for counts in passes), Counter()).total()
    flops += sum(kernel_flops(CASES[row["layer"]], row["length"])) if passes[0]["kernels"] else 0
    device, launches = predicted(row)
    return [
        *(f"{counts['launches']:,}" for counts in passes),
        str(sum(counts["waits"] for counts in passes)),
        _short(moved / 2**30),
        _short(flops / 1e12),
        *(_short(seconds * 1e3) for seconds in (device, launches, max(device, launches))),
    ]


def _short(number: float) -> str:
    """Two digits, or all before the point."""
    digits = 1 - math.floor(math.log10(number)) if number > 0 else 0
    return f"{number:,.{max(0, digits)}f}"


def _joined(cells: tuple[str, ...]) -> str:
    return cells[0] if len(set(cells)) == 1 else " → ".join(cells)


def _ratio(pair: Sequence[dict[str, Any] | None]) -> str:
    seconds = [max(predicted(row)) for row in pair if row is not None]
    return f"{seconds[0] / seconds[1]:.1f}" if len(seconds) == 2 else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, and replace the rows of this name in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", metavar="LAYER", help="; ".join(CASES))
    parser.add_argument("--name", default="after", help="before or after")
    parser.add_argument("--lengths", type=int, nargs="*", default=[2**16, 2**20], help="tokens")
    parser.add_argument("--json", type=Path, default=ROWS, help="where the counts are saved")
    options = parser.parse_args(arguments)
    rows = json.loads(options.json.read_text("utf-8"))["rows"] if options.json.exists() else []
    for layer in options.layers or CASES:
        for length in options.lengths:
            rows = [row for row in rows if (row["name"], row["layer"], row["length"]) != (options.name, layer, length)]
            if length <= CASES[layer].longest:
                rows.append({"name": options.name, **counted(layer, CASES[layer], length)})
                write_text(options.json, json.dumps({"rows": rows}, indent=1) + "\n")
    for length in options.lengths:
        table(rows, length).print()


if __name__ == "__main__":
    main()
