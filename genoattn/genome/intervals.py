"""Intervals of a genome, and genes divided into training, validation and test."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genoattn.errors import UserError

SHARES = (0.8, 0.9)
"""Cumulative shares of the genes: training ends at the first, validation at the second."""


class Interval(NamedTuple):
    """Bases [start, stop) (0-based, half-open) of the record with that number."""

    record: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bases in the interval."""
        return self.stop - self.start


def split_genes(
    path: Path, intervals: Sequence[Interval], seed: int
) -> tuple[list[Interval], list[Interval], list[Interval]]:
    """Divide the genes of a file at random into training, validation and test.

    Genes that overlap stay together. Raises UserError, which names the file, if there are too few genes.
    """
    genes = _merge_overlapping(intervals)
    order = np.random.default_rng(seed).permutation(len(genes)).tolist()
    first, second = (round(share * len(genes)) for share in SHARES)
    if not 0 < first < second < len(genes):
        raise UserError(
            f"{path} holds {len(genes)} separate genes; training, validation and test need ten or more (of a GFF3, a"
            " type such as genes.gff3:gene leaves out features that span others)"
        )
    train, validation, test = (
        sorted(genes[number] for number in numbers) for numbers in (order[:first], order[first:second], order[second:])
    )
    return train, validation, test


def _merge_overlapping(intervals: Sequence[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for interval in sorted(intervals):
        if merged and merged[-1].record == interval.record and interval.start < merged[-1].stop:
            merged[-1] = merged[-1]._replace(stop=max(merged[-1].stop, interval.stop))
        else:
            merged.append(interval)
    return merged
