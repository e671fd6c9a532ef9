"""Files that are written whole or not at all."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import matplotlib.figure


def write_json(file: Path, value: object, indent: int | None = None) -> None:
    """Write a file of json, whole or not at all."""
    write_text(file, json.dumps(value, indent=indent) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a file of words, whole or not at all."""
    half = file.with_name(f".{file.name}.part")
    half.write_text(text, "utf-8")
    os.replace(half, file)


def save_figure(figure: "matplotlib.figure.Figure", file: Path) -> None:
    """Write a picture, whole or not at all, and close it."""
    import matplotlib.pyplot as plt  # late: most files hold no picture

    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}")
    figure.savefig(half, dpi=120, format="png")
    os.replace(half, file)
    plt.close(figure)
