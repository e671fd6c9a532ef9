"""What the compiler may say of a kernel that ships, against what it said before: baseline.json, by triton version."""

import json
from pathlib import Path

import triton

from genoattn.attention.kernels.ahead_of_time.compile import SHARED_LIMIT, Statistics, compile_start, statistics
from genoattn.attention.kernels.ahead_of_time.shipped import Configuration, labelled

BASELINE = Path(__file__).with_name("baseline.json")


WITHOUT_PRODUCTS = ("delta", "scan")


Known = dict[str, dict[str, Statistics]]
"""Statistics by configuration and kernel."""


def measured(configuration: Configuration) -> dict[str, Statistics]:
    """What the compiler says of every kernel of a configuration, compiled now; empty where it is refused in words."""
    family = configuration.family
    return {label: statistics(compile_start(start, family), family) for label, start in labelled(configuration).items()}


def complaints(
    configuration: Configuration, kernel: str, found: Statistics, known: Statistics | None
) -> list[str]:  # fmt: skip
    """A sentence on all that is wrong with one kernel, by itself and against what is `known` of it (None: nothing)."""
    said = []
    amd = configuration.family.startswith("gfx")
    allowed = known.spills if amd and known else 0
    if found.spills > allowed and not (amd and not known):
        said.append(f"spills {found.spills} bytes of registers, {allowed} are allowed")
    if not found.tensor_cores and not kernel.startswith(WITHOUT_PRODUCTS):
        said.append("multiplies without tensor cores")
    if found.shared > SHARED_LIMIT[configuration.family]:
        said.append(f"takes {found.shared} bytes of shared memory, there are {SHARED_LIMIT[configuration.family]}")
    if found.narrow_offsets:
        said.append(f"moves {found.narrow_offsets} pointers by 32 bits, which overflow past 2^31 numbers")
    if known and found.asynchronous < known.asynchronous:
        said.append(f"copies {found.asynchronous} times without waiting, it was {known.asynchronous}")
    return [f"{configuration}, {kernel}: {one}" for one in said]


def read() -> Known:
    """The baseline of this version of triton; empty where there is none."""
    whole = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    listed = whole.get(triton.__version__, {})
    return {name: {one: Statistics(*row) for one, row in kernels.items()} for name, kernels in listed.items()}


def write(found: Known) -> None:
    """Put what was found into the baseline of this version; what was not compiled now stays as it was."""
    whole = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    listed = whole.setdefault(triton.__version__, {})
    listed |= {name: {one: list(row) for one, row in kernels.items()} for name, kernels in found.items()}
    versions = [
        f' "{version}": {{\n' + ",\n".join(f'  "{name}": {json.dumps(rows[name])}' for name in sorted(rows)) + "\n }"
        for version, rows in sorted(whole.items())
        if version != "columns"
    ]
    columns = f' "columns": {json.dumps(Statistics._fields)},\n'
    BASELINE.write_text("{\n" + columns + ",\n".join(versions) + "\n}\n", "utf-8")
