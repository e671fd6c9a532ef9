"""A bedGraph as bigWig, which genome browsers read by regions; needs the extra `tracks`."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from genoattn.files import replace_when_done

ENTRIES = 100_000
"""Intervals that are in memory at a time."""


def can_write_bigwig() -> bool:
    """True if pyBigWig is installed."""
    return find_spec("pyBigWig") is not None


def write_bigwig(bedgraph: Path, file: Path, names: Sequence[str], lengths: Sequence[int]) -> bool:
    """Write the values of a bedGraph, sorted by record and start, as bigWig.

    Args:
        bedgraph: The bedGraph.
        file: The bigWig to write, whole or not at all.
        names: All records of the reference, in the order of the bedGraph.
        lengths: Their lengths in bases.

    Returns:
        False if the bedGraph is empty: a bigWig must have an interval, so none is written.
    """
    import pyBigWig  # late: an extra

    parts = _parts(bedgraph)
    if (first := next(parts, None)) is None:
        return False
    with replace_when_done(file) as unfinished:
        track = pyBigWig.open(str(unfinished), "w")
        track.addHeader(list(zip(names, lengths, strict=True)))
        for part in (first, *parts):
            columns = list(zip(*part, strict=True))
            track.addEntries(list(columns[0]), list(columns[1]), ends=list(columns[2]), values=list(columns[3]))
        track.close()
    return True


def _parts(bedgraph: Path) -> Iterator[list[tuple[str, int, int, float]]]:
    """The intervals of a bedGraph, some of one record at a time."""
    with bedgraph.open(encoding="utf-8") as rows:
        fields = (row.rstrip("\n").split("\t") for row in rows)
        intervals = ((name, int(start), int(stop), float(value)) for name, start, stop, value in fields)
        numbered = enumerate(intervals)
        for _, part in groupby(numbered, key=lambda item: (item[1][0], item[0] // ENTRIES)):
            yield [interval for _, interval in part]
