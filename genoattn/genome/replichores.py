"""The halves of a replicated record: where its replication begins and ends, and which strand is copied in one piece."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.genome.sequence_store import Genome

_C, _G = 1, 2


class Replichores(NamedTuple):
    """Origin and terminus of replication of a circular record: the first base (0-based) after each.

    Attributes:
        origin: Forward from here to the terminus the given strand is the leading one.
        terminus: From here, through the end of the record, to the origin it is the lagging one.
        length: Bases of the record.
    """

    origin: int
    terminus: int
    length: int

    def leading(self, position: int) -> bool:
        """True if the given (forward) strand is the leading one at a base (0-based)."""
        return (position - self.origin) % self.length < (self.terminus - self.origin) % self.length


def find_replichores(bases: UInt8[np.ndarray, "length"]) -> Replichores:
    """Origin and terminus from the cumulative GC skew, G minus C along the record.

    The leading strand of most bacteria has more G than C (Lobry 1996), so the sum over the forward strand falls to its
    minimum at the origin and rises to its maximum at the terminus (Grigoriev 1998). The record is taken for circular
    and as a whole; of a record with several origins, of a contig, or of a linear chromosome the result is the stretch
    with the largest surplus of G.

    Args:
        bases: Codes of the whole record.
    """
    skew = (bases == _G).astype(np.int8) - (bases == _C)
    sums = np.cumsum(skew, dtype=np.int32) - skew  # before each base
    return Replichores(int(sums.argmin()), int(sums.argmax()), len(bases))


@lru_cache(maxsize=256)
def replichores_of(genome: Genome, record: int) -> Replichores:
    """Origin and terminus of a record of a genome; found once."""
    return find_replichores(genome.fetch(record, 0, genome.lengths[record]))


def gc_skew(bases: UInt8[np.ndarray, "length"]) -> float:
    """(G - C) / (G + C) of a sequence; 0 without either."""
    g, c = (int(np.count_nonzero(bases == base)) for base in (_G, _C))
    return (g - c) / (g + c) if g + c else 0.0
