"""A three-periodic Markov model of codons, which tells a broken reading frame from the bases around a place."""

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float, UInt8

from genoattn.data.example import Example
from genoattn.genome.alphabet import kmer_codes
from genoattn.genome.genes import CODON, codon_numbers, is_stop

ORDER = 5
"""Bases before a base that its probability depends on, besides its place in the codon."""

REACHES = (15, 30, 60)
"""Bases on each side of a place that are read."""

PRIOR = 0.5
"""Count of each base before any is seen."""

_FRAMES = np.arange(CODON)[:, None]


@final
class CodonModel:
    """Probabilities of a base given the five before it and its place in the codon (Borodovsky and McIninch 1993)."""

    def __init__(self, genes: Sequence[UInt8[np.ndarray, "_"]]):
        """Count the bases of genes, each read along its coding strand from the first base of a codon."""
        counts = np.full((CODON, 4**ORDER, 4), PRIOR)
        for bases in genes:
            context, base = _contexts(bases), bases[ORDER:]
            known = (context >= 0) & (base < 4)
            place = np.arange(ORDER, ORDER + len(base)) % CODON
            np.add.at(counts, (place[known], context[known], base[known]), 1)
        self._log2 = np.log2(counts / counts.sum(-1, keepdims=True))

    def features(self, example: Example, reach: int) -> Float[np.ndarray, "2"]:
        """Evidence of a broken frame at the site of a window, which shows a gene on its coding strand.

        Args:
            example: The window.
            reach: Bases on each side of the site that are read.

        Returns:
            Bits that are gained if the frame before the site is another one than after it; and 1 if a stop codon covers
            the site in the frame before it, else 0.
        """
        assert example.site is not None
        site = example.site[0]
        low, high = max(site - reach, ORDER), min(site + reach, len(example.bases))
        bits = self._bits(example.bases, low, high)
        before, after = bits[:, : site - low].sum(1), bits[:, site + 2 - low :].sum(1)
        switched = (before[:, None] + after)[~np.eye(CODON, dtype=bool)].max()
        codons = range(max(site - 2, 0), min(site + 1, len(example.bases) - 2))
        frame = int(before.argmax())
        stop = any((start + frame) % CODON == 0 and self._stops(example.bases, start) for start in codons)
        return np.array([switched - (before + after).max(), float(stop)])

    def _bits(self, bases: np.ndarray, low: int, high: int) -> Float[np.ndarray, "3 length"]:
        """log2 P of the bases [low, high) if the first base of the window has place 0, 1 or 2 in its codon."""
        context, base = _contexts(bases[low - ORDER : high]), bases[low:high]
        known = (context >= 0) & (base < 4)
        place = (np.arange(low, high) + _FRAMES) % CODON
        return np.where(known, self._log2[place, np.maximum(context, 0), np.minimum(base, 3)], 0.0)

    @staticmethod
    def _stops(bases: np.ndarray, start: int) -> bool:
        return bool(is_stop(codon_numbers(bases[start : start + CODON]))[0])


def _contexts(bases: UInt8[np.ndarray, "length"]) -> np.ndarray:
    """The number of the five bases before each base from the sixth on; -1 with an ambiguous letter."""
    return kmer_codes(bases, ORDER)[:-1]
