"""Markov models of a genome: how likely each base is after, or between, the bases beside it."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from genoattn.genome.alphabet import UNKNOWN, kmer_codes

WEIGHTS = (1.0, 4.0, 16.0, 64.0)
"""Among these the weight of the order below is chosen."""


class Reading(NamedTuple):
    """A window, which of its bases may be read as context, and which are to be told."""

    bases: UInt8[np.ndarray, "length"]
    readable: Bool[np.ndarray, "length"]
    asked: Bool[np.ndarray, "length"]


class Choice(NamedTuple):
    """The order and weight under which some readings are most likely, and at that weight the bits a base by order."""

    order: int
    weight: float
    curve: tuple[float, ...]


@final
class MarkovModel:
    """Counts of each base in its context, for every order k up to `order`, on the strand that is given.

    The context is the k bases before it or, with `flanks`, the k before and the k after it. Codes are kept sorted with
    running totals, so that memory grows with the genome and not as 4 to the power of k.
    """

    def __init__(self, stretches: Sequence[UInt8[np.ndarray, "_"]], order: int, flanks: bool = False):
        self.order, self.flanks = order, flanks
        gap = np.array([UNKNOWN], np.uint8)
        bases = np.concatenate([part for stretch in stretches for part in (stretch, gap)])
        self._tables: list[tuple[np.ndarray, np.ndarray]] = []
        for context in contexts(bases, bases < 4, order, flanks):
            whole = (context >= 0) & (bases < 4)
            codes, counts = np.unique(4 * context[whole] + bases[whole], return_counts=True)
            self._tables.append((codes, np.append(0, np.cumsum(counts))))

    def counts(self, reading: Reading) -> Iterator[Int[np.ndarray, "asked 4"]]:
        """For orders 0, 1, …: how often A, C, G and T stood in the context of each base asked; 0 if it is not whole."""
        for (codes, totals), context in zip(
            self._tables, contexts(reading.bases, reading.readable, self.order, self.flanks), strict=True
        ):
            edges = 4 * context[reading.asked][:, None] + np.arange(5)
            yield np.diff(totals[np.searchsorted(codes, edges)])

    def likely(self, reading: Reading, weight: float) -> Iterator[Float[np.ndarray, "asked 4"]]:
        """For orders 0, 1, …: the probabilities of A, C, G and T at each base asked (see `smooth`)."""
        return smooth(self.counts(reading), weight)

    def choose(self, readings: Sequence[Reading]) -> Choice:
        """The order and weight that give these readings the fewest bits."""
        nats = np.zeros((len(WEIGHTS), self.order + 1))
        for reading in readings:
            letters, counted = reading.bases[reading.asked], list(self.counts(reading))
            for row, weight in zip(nats, WEIGHTS, strict=True):
                row += [-np.log(told[np.arange(len(letters)), letters]).sum() for told in smooth(counted, weight)]
        bits = nats / math.log(2) / max(1, sum(int(reading.asked.sum()) for reading in readings))
        row, order = divmod(int(bits.argmin()), self.order + 1)
        return Choice(order, WEIGHTS[row], tuple(bits[row].tolist()))


def contexts(
    bases: UInt8[np.ndarray, "length"], readable: Bool[np.ndarray, "length"], order: int, flanks: bool
) -> Iterator[Int[np.ndarray, "length"]]:
    """For orders 0, 1, …: a number for the context of each base, -1 where a base of it is unknown or unreadable."""
    letters = np.where(readable, bases, UNKNOWN).astype(np.uint8)
    yield np.zeros(len(bases), np.int64)
    for k in range(1, order + 1):
        kmers, missing = kmer_codes(letters, k), np.full(k, -1)
        before = np.concatenate([missing, kmers])[: len(bases)]
        if not flanks:
            yield before
            continue
        after = np.concatenate([kmers[1:], missing])[: len(bases)]
        yield np.where((before >= 0) & (after >= 0), before << 2 * k | after, -1)


def smooth(
    counts: Iterator[Int[np.ndarray, "asked 4"]] | Sequence[Int[np.ndarray, "asked 4"]], weight: float
) -> Iterator[Float[np.ndarray, "asked 4"]]:
    """p_k = (n(context, base) + weight p_{k-1}) / (n(context) + weight), and p_{-1} = 1/4.

    An order without counts is thus as the order below.
    """
    likely = np.array(0.25)
    for count in counts:
        likely = (count + weight * likely) / (count.sum(1, keepdims=True) + weight)
        yield likely
