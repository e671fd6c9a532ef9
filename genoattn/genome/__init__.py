"""Genomes: FASTA files, windows and splits, mutations and variants."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genoattn.genome.sequence_store import Genome, open_genome

__all__ = ["Genome", "open_genome"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from genoattn.genome import sequence_store  # late, so that a module of this folder is cheap to import

    return getattr(sequence_store, name)
