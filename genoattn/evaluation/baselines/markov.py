"""Markov models of a genome: the probability of a base given the bases before it, or on both sides of it.

Counts are interpolated with the probabilities of the next lower order (hierarchical Dirichlet prior, MacKay and Bauman
Peto 1995).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from genoattn.genome.alphabet import UNKNOWN, kmer_codes

WEIGHTS = (1.0, 4.0, 16.0, 64.0)
"""The weights of the next lower order that are tried."""


class Reading(NamedTuple):
    """A window, the bases that a model may read, and the bases that it has to predict."""

    bases: UInt8[np.ndarray, "length"]
    readable: Bool[np.ndarray, "length"]
    targets: Bool[np.ndarray, "length"]


class Choice(NamedTuple):
    """The order and weight that suit some readings best, and the bits per base of every order at that weight."""

    order: int
    weight: float
    curve: tuple[float, ...]


@final
class MarkovModel:
    """Counts of each base in its context, for every order k up to `order`, on the given strand.

    The context is the k bases before the base, or with `flanks` the k bases on each side. Codes are kept sorted with
    running totals, so that memory grows with the genome and not as 4 to the power of k.
    """

    def __init__(self, sequences: Sequence[UInt8[np.ndarray, "_"]], order: int, flanks: bool = False):
        self.order, self.flanks = order, flanks
        gap = np.array([UNKNOWN], np.uint8)
        bases = np.concatenate([part for sequence in sequences for part in (sequence, gap)])
        self._tables: list[tuple[np.ndarray, np.ndarray]] = []
        for context in contexts(bases, bases < 4, order, flanks):
            whole = (context >= 0) & (bases < 4)
            codes, counts = np.unique(4 * context[whole] + bases[whole], return_counts=True)
            self._tables.append((codes, np.append(0, np.cumsum(counts))))

    def counts(self, reading: Reading) -> Iterator[Int[np.ndarray, "targets 4"]]:
        """For orders 0, 1, …: the counts of A, C, G and T in the context of each target; 0 in an incomplete context."""
        for (codes, totals), context in zip(
            self._tables, contexts(reading.bases, reading.readable, self.order, self.flanks), strict=True
        ):
            edges = 4 * context[reading.targets][:, None] + np.arange(5)
            yield np.diff(totals[np.searchsorted(codes, edges)])

    def probabilities(self, reading: Reading, weight: float) -> Iterator[Float[np.ndarray, "targets 4"]]:
        """For orders 0, 1, …: the probabilities of A, C, G and T at each target (see `smooth`)."""
        return smooth(self.counts(reading), weight)

    def choose(self, readings: Sequence[Reading]) -> Choice:
        """The order and weight with the fewest bits per base on these readings."""
        nats = np.zeros((len(WEIGHTS), self.order + 1))
        for reading in readings:
            letters, counts = reading.bases[reading.targets], list(self.counts(reading))
            rows = np.arange(len(letters))
            for row, weight in zip(nats, WEIGHTS, strict=True):
                row += [-np.log(probabilities[rows, letters]).sum() for probabilities in smooth(counts, weight)]
        bits = nats / math.log(2) / max(1, sum(int(reading.targets.sum()) for reading in readings))
        row, order = divmod(int(bits.argmin()), self.order + 1)
        return Choice(order, WEIGHTS[row], tuple(bits[row].tolist()))


def contexts(
    bases: UInt8[np.ndarray, "length"], readable: Bool[np.ndarray, "length"], order: int, flanks: bool
) -> Iterator[Int[np.ndarray, "length"]]:
    """For orders 0, 1, …: the context of each base as a number, -1 where a base of it is unknown or not readable."""
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


def smooth(counts: Iterable[Int[np.ndarray, "targets 4"]], weight: float) -> Iterator[Float[np.ndarray, "targets 4"]]:
    """p_k = (n(context, base) + weight p_{k-1}) / (n(context) + weight), with p_{-1} = 1/4.

    An order without counts has the probabilities of the order below.
    """
    probabilities = np.array(0.25)
    for count in counts:
        probabilities = (count + weight * probabilities) / (count.sum(1, keepdims=True) + weight)
        yield probabilities
