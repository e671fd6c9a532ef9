"""Comparison of the compiled kernels with baseline.json, which holds their statistics by triton version."""

import json
from pathlib import Path

import triton

from genoattn.attention.kernels.ahead_of_time.compile import SHARED_LIMIT, Statistics, compile_launch, statistics
from genoattn.attention.kernels.ahead_of_time.shipped import Configuration, labelled

BASELINE = Path(__file__).with_name("baseline.json")


WITHOUT_PRODUCTS = ("delta", "scan", "span", "heads", "features", "block_sum")


Known = dict[str, dict[str, Statistics]]
"""Statistics by configuration and kernel."""


def measured(configuration: Configuration) -> dict[str, Statistics]:
    """Compile every kernel of a configuration and return its statistics by kernel."""
    family = configuration.family
    return {
        label: statistics(compile_launch(recorded, family), family)
        for label, recorded in labelled(configuration).items()
    }


def regressions(configuration: Configuration, kernel: str, current: Statistics, known: Statistics | None) -> list[str]:
    """One sentence for each fault of a kernel, by itself and against its baseline `known` (None: no baseline)."""
    faults = []
    amd = configuration.family.startswith("gfx")
    allowed = known.spills if amd and known else 0
    if current.spills > allowed and not (amd and not known):
        faults.append(f"spills {current.spills} bytes of registers, {allowed} are allowed")
    if not current.tensor_cores and not kernel.startswith(WITHOUT_PRODUCTS):
        faults.append("multiplies without tensor cores")
    if current.shared > SHARED_LIMIT[configuration.family]:
        faults.append(f"takes {current.shared} bytes of shared memory, there are {SHARED_LIMIT[configuration.family]}")
    if current.narrow_offsets:
        faults.append(f"moves {current.narrow_offsets} pointers by 32 bits, which overflow past 2^31 numbers")
    if known and current.asynchronous < known.asynchronous:
        faults.append(f"copies {current.asynchronous} times without waiting, it was {known.asynchronous}")
    return [f"{configuration}, {kernel}: {fault}" for fault in faults]


def read() -> Known:
    """The baseline of this version of triton; empty if there is none."""
    whole = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    listed = whole.get(triton.__version__, {})
    return {name: {kernel: Statistics(*row) for kernel, row in kernels.items()} for name, kernels in listed.items()}


def write(current: Known) -> None:
    """Write the statistics into the baseline of this version; other configurations stay unchanged."""
    whole = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    listed = whole.setdefault(triton.__version__, {})
    listed |= {name: {kernel: list(row) for kernel, row in kernels.items()} for name, kernels in current.items()}
    versions = [
        f' "{version}": {{\n' + ",\n".join(f'  "{name}": {json.dumps(rows[name])}' for name in sorted(rows)) + "\n }"
        for version, rows in sorted(whole.items())
        if version != "columns"
    ]
    columns = f' "columns": {json.dumps(Statistics._fields)},\n'
    BASELINE.write_text("{\n" + columns + ",\n".join(versions) + "\n}\n", "utf-8")
