"""Files that are written whole or not at all: a reader, or a run that is killed, never leaves or meets half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Write the temporary path that this gives; at the end of the block it replaces `path`.

    The temporary file lies in the same folder. It is removed if the block raises, and `path` stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(file: Path, value: object, indent: int | None = None) -> None:
    """Write plain values as JSON."""
    write_text(file, json.dumps(value, indent=indent) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text in UTF-8."""
    with replace_when_done(file) as temporary:
        temporary.write_text(text, "utf-8")


def save_figure(figure: Figure, file: Path) -> None:
    """Write a matplotlib figure as PNG and close it."""
    import matplotlib.pyplot as plt  # late, so that this module is cheap to import

    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_done(file) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
