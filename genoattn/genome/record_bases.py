"""Bases of one record of a genome as an array that is read where it is sliced: nothing of it stays in memory."""

from typing import Any, TypeAlias, final

import numpy as np
from jaxtyping import UInt8

from genoattn.genome.sequence_store import Genome


@final
class RecordBases:
    """The codes of a record; slices and `numpy.asarray` give copies of what they name."""

    def __init__(self, genome: Genome, record: int):
        """The record with that number, from 0."""
        self.genome, self.record = genome, record

    def __len__(self) -> int:
        return self.genome.lengths[self.record]

    def __getitem__(self, part: slice) -> UInt8[np.ndarray, "part"]:
        start, stop, step = part.indices(len(self))
        return self.genome.fetch(self.record, start, max(start, stop))[::step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


Bases: TypeAlias = UInt8[np.ndarray, "bases"] | RecordBases
"""The codes of a record, in memory or not."""


def records_of(genome: Genome) -> list[RecordBases]:
    """All records of a genome."""
    return [RecordBases(genome, number) for number in range(len(genome.records))]
