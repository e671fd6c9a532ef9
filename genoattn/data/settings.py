"""Settings of the config group `data`: the genome, and how it is cut into examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le


@dataclass(frozen=True)
class DataSettings:
    """The genome and how it is cut into examples; `conf/data/genome.yaml` explains every field.

    Lengths are in bases.
    """

    length: Annotated[int, Ge(1)] = 512
    fasta: str | Sequence[str] | None = None
    vcf: str | Sequence[str] | None = None
    min_length: Annotated[int, Ge(1)] | None = None
    batch: Annotated[int, Ge(1)] = 16
    split: Literal["block", "record"] = "block"
    soft_mask: Literal["keep", "mask"] = "keep"
    max_n_fraction: Annotated[int | float, Ge(0), Le(1)] = 0.5
    validation_windows: Annotated[int, Ge(1)] = 64
    cache: str | None = None
    workers: Annotated[int, Ge(0)] = 0
    bucket_batches: Annotated[int, Ge(1)] = 1
