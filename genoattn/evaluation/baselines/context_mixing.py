"""Context mixing: counts of the bases before a base, and copies of earlier places, weighed against each other.

The probabilities of all experts are mixed in the logarithm with weights that follow the text, as in PAQ (Mahoney 2005)
and, for DNA, GeCo and cmix.
"""

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Bool, Float, UInt8

from genoattn.evaluation.baselines.copies import KINDS, NONE, Copy, find_copy
from genoattn.genome.alphabet import UNKNOWN, kmer_codes, reverse_complement

ORDERS = (1, 2, 3, 4, 6, 8, 9, 10, 11)
"""Bases before a base whose counts are mixed."""

COPIES = (11, 14, 18, 24)
"""Bases that have to agree where a copy begins, for copies of either strand."""

CHUNK = 256
"""Bases after which the weights are moved."""

SLAB = 1 << 16
"""Bases whose experts are in memory at once."""

LEVELS = (16, 64)
"""Lengths of a copy from which other weights are used."""

LEAST, MOST = 1e-4, 0.9999
"""Every base keeps this probability, and no copy is trusted more."""


@final
class KmerCounts:
    """Counts of the base after each k-mer of some sequences, on both strands.

    Orders with far more contexts than there are bases are left out.
    """

    def __init__(self, sequences: Sequence[UInt8[np.ndarray, "_"]], orders: Sequence[int] = ORDERS):
        gap = np.array([UNKNOWN], np.uint8)
        strands = [(sequence, gap, reverse_complement(sequence), gap) for sequence in sequences]
        text = np.concatenate([part for parts in strands for part in parts])
        self.orders = tuple(k for k in orders if 4**k <= 2 * len(text))
        self._tables: list[Float[np.ndarray, "contexts 4"]] = []
        for k in self.orders:
            codes = kmer_codes(text, k + 1)
            counts = np.bincount(codes[codes >= 0], minlength=4 ** (k + 1)).astype(np.float32)
            # The more contexts, the fewer counts each has, and the more a single count says.
            prior = 1 if k < 9 else 0.5 if k < 11 else 0.25
            table = counts.reshape(-1, 4) + np.float32(prior)
            self._tables.append(np.log(table / table.sum(1, keepdims=True)))

    def logs(self, text: UInt8[np.ndarray, "text"], start: int) -> Float[np.ndarray, "bases orders 4"]:
        """Logarithms of the probabilities of A, C, G and T from `start` on; uniform after an unknown base."""
        logs = np.full((len(text) - start, len(self.orders), 4), -math.log(4), np.float32)
        for column, (k, table) in enumerate(zip(self.orders, self._tables, strict=True)):
            first = max(start, k)
            codes = kmer_codes(text[first - k :], k)[: len(text) - first]
            logs[first - start :, column] = np.where(codes[:, None] >= 0, table[codes], logs[first - start :, column])
        return logs


@final
class ContextMixing:
    """Predicts a text base by base, and learns while it does: how reliable copies are, and how to weigh the experts.

    Args:
        counts: Counts of the order-k experts, which stay as they are.
        copies: The k of the copies; empty: counts alone.
    """

    def __init__(self, counts: KmerCounts, copies: Sequence[int] = COPIES):
        self.counts = counts
        self.copies = [(k, inverted) for inverted in (False, True) for k in copies]
        experts = len(counts.orders) + len(self.copies)
        self._weights = np.full((1 + 2 * (len(LEVELS) + 1), experts), 0.3, np.float32)
        self._weights[:, : len(counts.orders)] = 0.15
        self._hits = np.ones((len(self.copies), KINDS, 2), np.float32)
        self._seen = 0

    def probabilities(
        self, text: UInt8[np.ndarray, "text"], start: int = 0, learned: Bool[np.ndarray, "bases"] | None = None
    ) -> Float[np.ndarray, "bases 4"]:
        """The probabilities of A, C, G and T at each base from `start` on, each given only the bases before it.

        Args:
            text: The context and, from `start` on, the bases to predict.
            start: The first base to predict.
            learned: The bases, counted from `start`, that the weights follow; None: all known ones.
        """
        known = text[start:] < 4
        learned = known if learned is None else learned & known
        found = [find_copy(text, k, start, inverted) for k, inverted in self.copies]
        predicted = np.full((len(known), 4), 0.25, np.float32)
        for low in range(0, len(known), SLAB):
            high = min(low + SLAB, len(known))
            reach = max(self.counts.orders, default=0)
            begin = max(0, start + low - reach)
            logs = self.counts.logs(text[begin : start + high], start + low - begin)
            for first in range(low, high, CHUNK):
                span = slice(first, min(first + CHUNK, high))
                own = text[start + span.start : start + span.stop]
                parts = [Copy(*(column[span] for column in copy)) for copy in found]
                predicted[span] = self._chunk(own, logs[span.start - low : span.stop - low], parts, learned[span])
        return predicted

    def _chunk(
        self, own: np.ndarray, logs: np.ndarray, copies: Sequence[Copy], learned: np.ndarray
    ) -> Float[np.ndarray, "bases 4"]:
        """The probabilities of some bases; then learns from them."""
        rows = np.arange(len(own))
        experts = np.full((len(own), self._weights.shape[1], 4), -math.log(4), np.float32)
        experts[:, : logs.shape[1]] = logs
        level = np.zeros(len(own), np.int64)
        for number, copy in enumerate(copies):
            active = np.flatnonzero(copy.letters != NONE)
            hits, misses = self._hits[number, copy.kinds[active]].T
            right = np.minimum((hits + 0.25) / (hits + misses + 1), MOST)
            column = experts[active, logs.shape[1] + number] = np.log((1 - right) / 3)[:, None].repeat(4, 1)
            column[np.arange(len(active)), copy.letters[active]] = np.log(right)
            experts[active, logs.shape[1] + number] = column
            reached = 2 * np.searchsorted(LEVELS, copy.lengths, side="right") + (copy.misses > 0)
            level = np.maximum(level, np.where(copy.letters != NONE, 1 + reached, 0))
        mixed = np.einsum("ne,neb->nb", self._weights[level], experts)
        mixed = np.exp(mixed - mixed.max(1, keepdims=True))
        mixed /= mixed.sum(1, keepdims=True)
        mixed = mixed * (1 - 4 * LEAST) + LEAST
        self._learn(np.where(own < 4, own, 0), rows, experts, level, mixed, copies, learned)
        return mixed

    def _learn(
        self,
        own: np.ndarray,
        rows: np.ndarray,
        experts: np.ndarray,
        level: np.ndarray,
        mixed: np.ndarray,
        copies: Sequence[Copy],
        learned: np.ndarray,
    ) -> None:
        """Move the weights along the gradient, and count the hits of each class of copies."""
        gradient = experts[rows, :, own] - np.einsum("nb,neb->ne", mixed, experts)
        step = 0.002 + 0.02 / (1 + self._seen / 2000)
        np.add.at(self._weights, level[learned], np.float32(step) * gradient[learned])
        self._seen += int(learned.sum())
        for hits, copy in zip(self._hits, copies, strict=True):
            counted = learned & (copy.letters != NONE)
            wrong = (copy.letters != own)[counted].astype(np.int64)
            np.add.at(hits, (copy.kinds[counted], wrong), 1)
            hits[hits.sum(1) > 4000] *= 0.5
