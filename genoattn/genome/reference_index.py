"""The k-mers that occur once in a whole reference, both strands counted, and the anchors of a sample on them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN, ambiguous_kmers, packed_kmers, reverse_complement
from genoattn.genome.anchors import Anchor, anchor_length, join_hits
from genoattn.genome.record_bases import Bases

SEPARATOR = 64
"""N between two records, more than two k-mers: no k-mer and no anchor lies in both."""

LARGEST = 1 << 27
"""Bases of the largest reference: a k-mer, its position and its strand are packed into 63 bits."""

_PIECE = 1 << 20
"""Bases of a sample that are looked up at a time."""


class Anchors(NamedTuple):
    """The anchors of one sequence on one strand of one record of the reference, in order of their starts."""

    record: int
    reverse: bool
    """True: the sequence was reverse complemented, and the anchors count from its other end."""
    anchors: list[Anchor]

    @property
    def bases(self) -> int:
        """Bases in anchors."""
        return sum(anchor.stop - anchor.start for anchor in self.anchors)


@final
class ReferenceIndex:
    """A reference as one row of bases, with the places of its unique k-mers.

    Positions in the row are those of a record plus `offsets[record]`. Memory: about 40 bytes for each base while it is
    built, 17 afterwards.

    Attributes:
        bases: The records one after the other, `SEPARATOR` N between them.
        offsets: The first base of each record in the row.
        lengths: Bases of each record.
        k: Bases of a k-mer.
    """

    def __init__(self, records: Sequence[Bases]):
        """Index the records of a reference; raises UserError if there are more than `LARGEST` bases."""
        self.lengths = np.array([len(record) for record in records], np.int64)
        self.offsets = np.cumsum([0, *(self.lengths[:-1] + SEPARATOR)])
        gap = np.full(SEPARATOR, UNKNOWN, np.uint8)
        self.bases = np.concatenate([part for record in records for part in (np.asarray(record), gap)])
        if len(self.bases) > LARGEST:
            raise UserError(
                f"the reference has {len(self.bases):,} bases; up to {LARGEST:,} can be indexed: give one chromosome or"
                " some of them"
            )
        self.k = anchor_length(int(self.lengths.sum()))
        codes, forward, known = _canonical(self.bases, self.k)
        bits = len(self.bases).bit_length() + 1
        packed = (codes[known] << bits) | (np.flatnonzero(known) << 1) | forward[known]
        packed.sort()
        codes = packed >> bits
        border = np.diff(codes, prepend=-1, append=-1) != 0
        single = border[:-1] & border[1:]
        self._codes = codes[single]
        self._places = packed[single] & ((1 << bits) - 1)

    def record_of(self, position: int) -> int:
        """The record that holds a base of the row."""
        return int(np.searchsorted(self.offsets, position, "right")) - 1

    def anchors(self, sequence: UInt8[np.ndarray, "sequence"]) -> Iterator[Anchors]:
        """The anchors of a sequence on each strand of each record that shares k-mers with it."""
        hits, places, reverse = self._look_up(sequence)
        for strand in (False, True):
            starts, at = hits[reverse == strand], places[reverse == strand]
            if strand:
                starts, at = (len(sequence) - self.k - starts)[::-1], at[::-1]
            owners = np.searchsorted(self.offsets, at, "right") - 1
            for record in np.unique(owners).tolist():
                own = owners == record
                yield Anchors(record, strand, join_hits(starts[own], at[own], self.k))

    def _look_up(
        self, sequence: UInt8[np.ndarray, "sequence"]
    ) -> tuple[Int[np.ndarray, "hits"], Int[np.ndarray, "hits"], Bool[np.ndarray, "hits"]]:
        """K-mers of a sequence that are in the index: their starts, their places, and True for the other strand."""
        rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for first in range(0, max(1, len(sequence) - self.k + 1), _PIECE):
            codes, forward, known = _canonical(sequence[first : first + _PIECE + self.k - 1], self.k)
            starts = np.flatnonzero(known)
            order = np.argsort(codes[starts])  # sorted, they are found five times as fast
            starts = starts[order]
            at = np.searchsorted(self._codes, codes[starts])
            found = at < len(self._codes)
            found[found] = self._codes[at[found]] == codes[starts[found]]
            starts, places = starts[found], self._places[at[found]]
            back = np.argsort(starts)
            starts, places = starts[back], places[back]
            rows.append((starts + first, places >> 1, (places & 1) != forward[starts]))
        hits, positions, reverse = (np.concatenate(column) for column in zip(*rows, strict=True))
        return hits, positions, reverse


def _canonical(
    bases: UInt8[np.ndarray, "length"], k: int
) -> tuple[Int[np.ndarray, "kmers"], Bool[np.ndarray, "kmers"], Bool[np.ndarray, "kmers"]]:
    """The smaller number of the two strands of each k-mer, True if it is the forward one, and True if it may serve.

    K-mers with an ambiguous letter may not, nor those that are their own reverse complement.
    """
    if len(bases) < k:
        return np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.bool_)
    forward = packed_kmers(bases, k).astype(np.int64)
    other = packed_kmers(reverse_complement(bases), k)[::-1].astype(np.int64)
    return np.minimum(forward, other), forward < other, (forward != other) & ~ambiguous_kmers(bases, k)
