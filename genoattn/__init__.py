"""Train, compare and use models of very long DNA whose attention layer is one switch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genoattn.models.pretrained import PretrainedModel


def load(path: str | Path) -> PretrainedModel:
    """A trained model, from its run folder or the model/ in it, on the CPU; raises UserError where there is none."""
    from genoattn.models.pretrained import load  # late: importing genoattn costs nothing

    return load(Path(path))
