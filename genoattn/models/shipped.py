"""The trained models that come with the package, by name."""

import json
from pathlib import Path
from typing import NamedTuple

from genoattn.models.card import DESCRIPTION, WEIGHTS, ModelCard
from genoattn.paths import models_dir

DEFAULT = "default"
"""The name under which each program finds the model that it uses if the user has none."""

DETECTOR, LANGUAGE = "detector", "language"
"""The models that this name stands for, in programs on mutations and on the language of a genome."""

ABOUT = "about.json"


class ShippedModel(NamedTuple):
    """A model that comes with the package."""

    name: str
    folder: Path
    purpose: str
    command: str
    """The command that made it."""
    measured: str
    """Its quality, in words."""
    card: ModelCard
    size: int
    """Bytes of its weights."""


def shipped_names() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(file.parent.name for file in models_dir().glob(f"*/{DESCRIPTION}"))


def shipped_folder(name: str, default: str) -> Path | None:
    """The folder of a model by its name, or None; "default" stands for the model `default`."""
    name = default if name == DEFAULT else name
    return models_dir() / name if name in shipped_names() else None


def shipped_models() -> list[ShippedModel]:
    """All models that come with the package."""
    models = []
    for name in shipped_names():
        folder = models_dir() / name
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        purpose, command, measured = (str(about[key]) for key in ("purpose", "command", "measured"))
        size = (folder / WEIGHTS).stat().st_size
        models.append(ShippedModel(name, folder, purpose, command, measured, ModelCard.read(folder), size))
    return models
