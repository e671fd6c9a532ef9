"""Tables of the statistics of kernels compiled for GPUs that need not be present."""

import os
import sys
import tempfile

import triton
from rich.console import Console
from rich.table import Table

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.ahead_of_time import baseline, shipped
from genoattn.attention.kernels.ahead_of_time.compile import Statistics
from genoattn.attention.kernels.ahead_of_time.shipped import ablations
from genoattn.errors import UserError

COLUMNS = ("registers", "spilled\nbytes", "shared\nKiB", "tensor\ncore", "async\ncopies", "resident", "")

WIDTH = 100
"""Columns of a table in a file."""


def show_ablations(family: str | None) -> None:
    """Print the statistics of the kernels without each of their design choices."""
    drawn = _empty("flash attention, bfloat16, heads of 64", *COLUMNS[:-1])
    for name in shipped.NVIDIA:
        for kernel, row in ablations(name) if family in (None, name) else ():
            drawn.add_row(kernel, *_cells(row))
    _console().print(drawn)


def show(all: bool, family: str | None, update: bool) -> int:
    """Compile the kernels, print their table and return the number of regressions.

    `update` makes the statistics the baseline, each configuration as it is compiled.
    """
    if launch.INTERPRETED:
        raise UserError("kernels are interpreted where TRITON_INTERPRET=1, and cannot be compiled: unset it")
    candidates = shipped.configurations() if all else shipped.tested()
    chosen = [configuration for configuration in candidates if family in (None, configuration.family)]
    if not chosen:
        raise UserError(f"family must be one of {', '.join((*shipped.NVIDIA, 'gfx942'))} or null, got {family}")
    console = _console()
    known, current, refused, faults = baseline.read(), {}, {}, []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache  # a kernel in the usual cache may be of another version of the compiler
        with console.status("") as status:
            for number, configuration in enumerate(chosen, 1):
                status.update(f"compiling {configuration} ({number} of {len(chosen)})")
                try:
                    current[str(configuration)] = baseline.measured(configuration)
                    if update:  # at once: a run of all takes long and may be broken off
                        baseline.write({str(configuration): current[str(configuration)]})
                except UserError as error:
                    refused[str(configuration)] = str(error)
    for configuration in chosen:
        rows, before = current.get(str(configuration), {}), known.get(str(configuration), {})
        for name, row in rows.items():
            faults += baseline.regressions(configuration, name, row, before.get(name))
    console.print(table(current, faults))
    for name, reason in refused.items():
        console.print(f"{name}: refused, {reason}")
    if not known:
        console.print(f"there is no baseline for triton {triton.__version__}: update=true makes one")
    if update:
        console.print(f"these statistics are now the baseline of triton {triton.__version__}: {baseline.BASELINE}")
    console.print("\n".join(faults) or "no regressions")
    return len(faults)


def table(current: baseline.Known, faults: list[str]) -> Table:
    """Table with a row for each kernel."""
    drawn = _empty("instructions by kind; resident: programs that fit on a multiprocessor at a time", *COLUMNS)
    for name, kernels in current.items():
        for kernel, row in kernels.items():
            bad = any(line.startswith(f"{name}, {kernel}:") for line in faults)
            drawn.add_row(f"{name} {kernel}", *_cells(row), "[bold red]bad[/]" if bad else "[green]good[/]")
    return drawn


def _empty(title: str, *columns: str) -> Table:
    drawn = Table("kernel", title=f"triton {triton.__version__}; {title}", title_justify="left")
    for column in columns:
        drawn.add_column(column, no_wrap=True)  # only the name of a kernel is wrapped
    return drawn


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def _cells(row: Statistics) -> list[str]:
    cells = [row.registers, row.spills, round(row.shared / 1024), row.tensor_cores, row.asynchronous, row.resident]
    return [str(cell) for cell in cells]
