"""Seed and chain with unique k-mers (as in minimap2, Li 2018) as a mutation caller: a baseline without training."""

from itertools import pairwise
from math import ceil, log
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genoattn.genome.alphabet import COMPLEMENT, kmer_codes, reverse_complement
from genoattn.genome.mutations import Mutation, apply_mutations

MISMATCH = -4
"""The score of a mismatch, against 1 for a match, beyond the outermost anchors, as in the aligner."""


class KmerCalls(NamedTuple):
    """Sample bases called substituted or inserted, those before which bases are deleted, and those inverted."""

    substituted: Bool[np.ndarray, "sample"]
    inserted: Bool[np.ndarray, "sample"]
    deleted_before: Bool[np.ndarray, "sample"]
    inverted: Bool[np.ndarray, "sample"]


class Anchor(NamedTuple):
    """Sample bases [start, stop) that match the reference: base i matches reference base i + diagonal."""

    start: int
    stop: int
    diagonal: int


@final
class KmerCaller:
    """Seed and chain as genome aligners do it, without a base-by-base alignment.

    A k-mer is an anchor if it occurs once in both strands of the reference; k is three more than the log4 of their
    bases, so that few occur by chance. The anchors of the strand with more of them are chained, with a logarithmic cost
    for a change of diagonal as in minimap2. Between two anchors on one diagonal, differing bases are substitutions.
    Where the diagonal changes, bases are inserted or deleted at the position that leaves the fewest differences, then
    left-aligned. Beyond the outermost anchors the diagonal is followed as long as the score rises (ungapped extension,
    as in BLAST). Where anchors of the other strand lie between two anchors on one diagonal, the stretch between them
    that explains those anchors is an inversion.
    """

    def __call__(self, reference: UInt8[np.ndarray, "reference"], sample: UInt8[np.ndarray, "sample"]) -> KmerCalls:
        """Calls for a sample of either strand that overlaps the reference anywhere; no call without an anchor."""
        calls = KmerCalls(*(np.zeros(len(sample), np.bool_) for _ in range(4)))
        k = 3 + ceil(log(max(4, 2 * len(reference)), 4))
        other = reverse_complement(reference)
        places = find_anchors(reference, other, sample, k)
        if (places[1] >= 0).sum() > (places[0] >= 0).sum():
            reference, other, places = other, reference, places[::-1]
        chained = chain(_runs(places[0], k))
        if not chained:
            return calls
        begin, end, mutations = _read(reference, sample, chained)
        first, last = begin + chained[0].diagonal, end + chained[-1].diagonal
        called = apply_mutations(reference[first:last], [_moved(mutation, -first) for mutation in mutations])
        masks = called.substituted, called.inserted, called.deleted_before
        for mask, called_mask in zip(calls[:3], masks, strict=True):
            mask[begin:end] = called_mask
        reverse_anchors = _runs(places[1], k)
        for left, right in pairwise(chained):
            start, stop = _inversion(reference, sample, left, right, reverse_anchors)
            calls.inverted[start:stop] = True
        calls.substituted[calls.inverted] = False
        return calls


def find_anchors(
    reference: UInt8[np.ndarray, "reference"],
    other: UInt8[np.ndarray, "reference"],
    sample: UInt8[np.ndarray, "sample"],
    k: int,
) -> Int[np.ndarray, "2 kmers"]:
    """The position of each k-mer of the sample in the reference and in its other strand; -1 unless it occurs once."""
    codes = np.concatenate([kmer_codes(reference, k), kmer_codes(other, k)])
    codes_of_sample = kmer_codes(sample, k)
    known, first, counts = np.unique(codes, return_index=True, return_counts=True)
    single = (counts == 1) & (known >= 0)
    known, first = known[single], first[single]
    positions = np.full((2, len(codes_of_sample)), -1)
    if len(known):
        at = np.minimum(np.searchsorted(known, codes_of_sample), len(known) - 1)
        hits = np.flatnonzero(known[at] == codes_of_sample)
        strand, place = np.divmod(first[at[hits]], len(codes) // 2)
        positions[strand, hits] = place
    return positions


def chain(anchors: list[Anchor]) -> list[Anchor]:
    """The chain of anchors with the highest score; anchors come in order of their starts, and chains are colinear.

    The score is the number of anchored bases, minus log2(1 + change) for every change of diagonal.
    """
    if not anchors:
        return []
    start, stop, diagonal = np.array(anchors).T
    weight = (stop - start).astype(np.float64)
    before = np.full(len(anchors), -1)
    for n in range(1, len(anchors)):
        change = diagonal[n] - diagonal[:n]
        fits = (start[:n] < start[n]) & (stop[:n] < stop[n])
        fits &= (start[:n] < start[n] + change) & (stop[:n] < stop[n] + change)
        overlap = np.maximum(0, stop[:n] - start[n] - np.minimum(change, 0))
        total = np.where(fits, weight[:n] - np.log2(1 + np.abs(change)) - overlap, -np.inf)
        best = int(total.argmax())
        if total[best] > 0:
            weight[n] += total[best]
            before[n] = best
    at = int(weight.argmax())
    chained = []
    while at >= 0:
        chained.append(anchors[at])
        at = int(before[at])
    return chained[::-1]


def _runs(places: np.ndarray, k: int) -> list[Anchor]:
    """Anchors: k-mers that follow one another on one diagonal are joined."""
    hits = np.flatnonzero(places >= 0)
    if len(hits) == 0:
        return []
    diagonals = places[hits] - hits
    new = np.flatnonzero((np.diff(diagonals) != 0) | (np.diff(hits) > k)) + 1  # within k they overlap or touch
    begins, ends = np.concatenate([[0], new]), np.concatenate([new, [len(hits)]]) - 1
    rows = zip(hits[begins].tolist(), (hits[ends] + k).tolist(), diagonals[begins].tolist(), strict=True)
    return [Anchor(*row) for row in rows]


def _read(reference: np.ndarray, sample: np.ndarray, chained: list[Anchor]) -> tuple[int, int, list[Mutation]]:
    """Sample bases [begin, end) that the chain covers, and the mutations there in reference coordinates."""
    head, tail = chained[0], chained[-1]
    begin = head.start - _extent(reference[: head.start + head.diagonal][::-1], sample[: head.start][::-1])
    end = tail.stop + _extent(reference[tail.stop + tail.diagonal :], sample[tail.stop :])
    mutations: list[Mutation] = []
    at = begin
    for left, right in pairwise(chained):
        change = right.diagonal - left.diagonal
        inserted = max(0, -change)
        turn = max(at, _turn(reference, sample, left, right))
        mutations += _substitutions(reference, sample, at, turn, left.diagonal)
        if change:
            place = turn + left.diagonal
            mutations.append(Mutation(place, place + max(0, change), sample[turn : turn + inserted].tobytes()))
        at = turn + inserted
    return begin, end, mutations + _substitutions(reference, sample, at, end, tail.diagonal)


def _turn(reference: np.ndarray, sample: np.ndarray, left: Anchor, right: Anchor) -> int:
    """The sample base at which the diagonal changes, so that the fewest bases differ between the two anchors."""
    inserted = max(0, left.diagonal - right.diagonal)
    low, high = left.stop, right.start - inserted
    if high <= low:
        return high
    before = sample[low:high] != reference[low + left.diagonal : high + left.diagonal]
    start, stop = low + inserted, right.start
    after = sample[start:stop] != reference[start + right.diagonal : stop + right.diagonal]
    differing = np.concatenate([[0], np.cumsum(before)]) + np.concatenate([np.cumsum(after[::-1])[::-1], [0]])
    return low + int(differing.argmin())


def _inversion(
    reference: np.ndarray, sample: np.ndarray, left: Anchor, right: Anchor, reverse_anchors: list[Anchor]
) -> tuple[int, int]:
    """The inverted sample bases [start, stop) between two anchors: the shortest stretch with the fewest differences."""
    low, high, diagonal = left.stop, right.start, left.diagonal
    # the ends of an anchor may match by chance, so its middle counts
    within = [anchor for anchor in reverse_anchors if low <= (anchor.start + anchor.stop) // 2 < high]
    if diagonal != right.diagonal or not within:
        return low, low
    # Base i of an inverted stretch is the complement of reference base turn + diagonal - i.
    turn = len(reference) - 1 - max(within, key=lambda anchor: anchor.stop - anchor.start).diagonal - diagonal
    first = max(low, turn + 1 - high)
    starts = np.arange(first, turn // 2 + 1)
    stops = turn + 1 - starts
    inside = np.arange(first, turn + 1 - first)
    there = reference[inside + diagonal]
    gain = (there != sample[inside]).astype(int) - (COMPLEMENT[there[::-1]] != sample[inside])
    total = np.concatenate([[0], np.cumsum(gain)])
    gains = total[stops - first] - total[starts - first]
    if len(gains) == 0 or gains.max() <= 0:
        return low, low
    best = len(gains) - 1 - int(gains[::-1].argmax())  # the shortest of the best
    return int(starts[best]), int(stops[best])


def _substitutions(reference: np.ndarray, sample: np.ndarray, start: int, stop: int, diagonal: int) -> list[Mutation]:
    there, here = reference[start + diagonal : stop + diagonal], sample[start:stop]
    differing = np.flatnonzero((there != here) & (there < 4) & (here < 4)) + start
    return [Mutation(n + diagonal, n + diagonal + 1, sample[n : n + 1].tobytes()) for n in differing.tolist()]


def _extent(there: np.ndarray, here: np.ndarray) -> int:
    """The number of bases by which an anchor is extended along its diagonal: up to the highest score."""
    shared = min(len(there), len(here))
    score = np.cumsum(np.where(there[:shared] == here[:shared], 1, MISMATCH))
    return int(score.argmax()) + 1 if shared and score.max() > 0 else 0


def _moved(mutation: Mutation, by: int) -> Mutation:
    return Mutation(mutation.start + by, mutation.stop + by, mutation.inserted)
