"""Train, compare and use models of very long DNA whose attention layer is one switch."""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genoattn.evaluation import evaluate
    from genoattn.genome.sequence_store import open_genome
    from genoattn.models.build import build_model
    from genoattn.models.pretrained import load

__all__ = ["build_model", "evaluate", "load", "open_genome"]

_MODULES = {
    "build_model": "genoattn.models.build",
    "evaluate": "genoattn.evaluation",
    "load": "genoattn.models.pretrained",
    "open_genome": "genoattn.genome.sequence_store",
}


def __getattr__(name: str) -> object:
    """Import a public function when it is first used, so that `import genoattn` costs nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module 'genoattn' has no attribute {name!r}")
    if "torch" not in sys.modules:  # which reads them; the reasons stand in genoattn.cli.main
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    return getattr(import_module(_MODULES[name]), name)
