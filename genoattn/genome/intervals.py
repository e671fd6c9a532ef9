"""Intervals of a genome, and genes of a BED file divided into training, validation and test."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genoattn.errors import UserError, did_you_mean
from genoattn.genome.sequence_store import Genome

SHARES = (0.8, 0.9)
"""Cumulative shares of the genes of a BED: training ends at the first, validation at the second."""


class Interval(NamedTuple):
    """Bases [start, stop) (0-based, half-open) of the record with that number."""

    record: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bases in the interval."""
        return self.stop - self.start


def is_number(text: str) -> bool:
    """True for decimal digits only."""
    return text.isascii() and text.isdigit()


def split_genes(path: Path, genome: Genome, seed: int) -> tuple[list[Interval], list[Interval], list[Interval]]:
    """Divide the genes of a BED file (0-based, half-open) at random into training, validation and test.

    Genes that overlap stay together. Raises UserError if a line is malformed or there are too few genes.
    """
    genes = _merge_overlapping(_read_bed(path, genome))
    order = np.random.default_rng(seed).permutation(len(genes)).tolist()
    first, second = (round(share * len(genes)) for share in SHARES)
    if not 0 < first < second < len(genes):
        raise UserError(f"{path} holds {len(genes)} separate genes; training, validation and test need ten or more")
    train, validation, test = (
        sorted(genes[number] for number in numbers) for numbers in (order[:first], order[first:second], order[second:])
    )
    return train, validation, test


def _read_bed(path: Path, genome: Genome) -> list[Interval]:
    if not path.is_file():
        raise UserError(f"task.split_bed={path} does not exist")
    intervals = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        place = f"{path}, line {number}"
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) < 3 or not (is_number(fields[1]) and is_number(fields[2])):
            raise UserError(f"{place}: expected a name, a start and an end, got {line!r}")
        if fields[0] not in genome.names:
            raise UserError(f"{place}: the FASTA has no contig {fields[0]!r}{did_you_mean(fields[0], genome.names)}")
        record, start, stop = genome.index(fields[0]), int(fields[1]), int(fields[2])
        if not start < stop <= genome.lengths[record]:
            raise UserError(f"{place}: expected 0 ≤ start < end ≤ {genome.lengths[record]}, got {start} and {stop}")
        intervals.append(Interval(record, start, stop))
    return intervals


def _merge_overlapping(intervals: Sequence[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for interval in sorted(intervals):
        if merged and merged[-1].record == interval.record and interval.start < merged[-1].stop:
            merged[-1] = merged[-1]._replace(stop=max(merged[-1].stop, interval.stop))
        else:
            merged.append(interval)
    return merged
