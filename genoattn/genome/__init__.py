"""Genomes: FASTA files, windows and splits, mutations and variants."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genoattn.genome.sequence_store import Genome, open_genome

__all__ = ["Genome", "open_genome"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that modules of this folder are cheap to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("genoattn.genome.sequence_store"), name)
