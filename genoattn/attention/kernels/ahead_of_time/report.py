"""Kernels compiled for GPUs that need not be there: tables of what the compiler says of them."""

import os
import sys
import tempfile

import triton
from rich.console import Console
from rich.table import Table

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.ahead_of_time import baseline as gate
from genoattn.attention.kernels.ahead_of_time import shipped
from genoattn.attention.kernels.ahead_of_time.compile import Statistics
from genoattn.attention.kernels.ahead_of_time.shipped import choices
from genoattn.errors import UserError

COLUMNS = ("registers", "spilled\nbytes", "shared\nKiB", "tensor\ncore", "async\ncopies", "resident", "")

WIDTH = 100
"""Columns of a table in a file."""


def show_choices(family: str | None) -> None:
    """Print what kernels would be without each choice of their design."""
    drawn = _empty("flash attention, bfloat16, heads of 64", *COLUMNS[:-1])
    for one in shipped.NVIDIA:
        for name, row in choices(one) if family in (None, one) else ():
            drawn.add_row(name, *_cells(row))
    _console().print(drawn)


def show(all: bool, family: str | None, update: bool) -> int:
    """Compile, print and compare, or with `update` make what was found the baseline; how many complaints there were."""
    if launch.INTERPRETED:
        raise UserError("kernels are interpreted where TRITON_INTERPRET=1, and cannot be compiled: unset it")
    chosen = [one for one in (shipped.every() if all else shipped.tested()) if family in (None, one.family)]
    if not chosen:
        raise UserError(f"family must be one of {', '.join((*shipped.NVIDIA, 'gfx942'))} or null, got {family}")
    console = _console()
    known, found, refused, said = gate.read(), {}, {}, []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache  # a cached kernel would be last week's compiler's
        with console.status("") as status:
            for at, one in enumerate(chosen):
                status.update(f"compiling {one} ({at + 1} of {len(chosen)})")
                try:
                    found[str(one)] = gate.measured(one)
                except UserError as reason:
                    refused[str(one)] = str(reason)
    for one in chosen:
        rows, before = found.get(str(one), {}), known.get(str(one), {})
        said += [
            line for name, row in rows.items() for line in gate.complaints(one, name, row, before.get(name))
        ]  # fmt: skip
    console.print(table(found, said))
    for name, reason in refused.items():
        console.print(f"{name}: refused, {reason}")
    if not known:
        console.print(f"there is no baseline for triton {triton.__version__}: update=true makes one")
    if update:
        gate.write(found)
        console.print(f"the baseline of triton {triton.__version__} is now this: {gate.BASELINE}")
    console.print("\n".join(said) or "nothing to complain of")
    return len(said)


def table(found: gate.Known, said: list[str]) -> Table:
    """A row for each kernel."""
    drawn = _empty("instructions by kind; resident: programs that fit on a multiprocessor at a time", *COLUMNS)
    for name, kernels in found.items():
        for kernel, row in kernels.items():
            bad = any(line.startswith(f"{name}, {kernel}:") for line in said)
            drawn.add_row(f"{name} {kernel}", *_cells(row), "[bold red]bad[/]" if bad else "[green]good[/]")
    return drawn


def _empty(title: str, *columns: str) -> Table:
    drawn = Table("kernel", title=f"triton {triton.__version__}; {title}", title_justify="left")
    for column in columns:
        drawn.add_column(column, no_wrap=True)  # the name of a kernel alone is wrapped
    return drawn


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def _cells(row: Statistics) -> list[str]:
    cells = [row.registers, row.spills, round(row.shared / 1024), row.tensor_cores, row.asynchronous, row.resident]
    return [str(one) for one in cells]
