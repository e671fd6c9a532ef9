"""Seed and chain with unique k-mers (as in minimap2, Li 2018) as a mutation caller: a baseline without training."""

from itertools import pairwise
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, UInt8

from genoattn.genome.alphabet import COMPLEMENT, reverse_complement
from genoattn.genome.anchors import Anchor, anchor_length, chain, find_anchors, join_runs, turning_point
from genoattn.genome.mutations import Mutation, apply_mutations

MISMATCH = -4
"""The score of a mismatch, against 1 for a match, beyond the outermost anchors, as in the aligner."""


class KmerCalls(NamedTuple):
    """Sample bases called substituted or inserted, those before which bases are deleted, and those inverted."""

    substituted: Bool[np.ndarray, "sample"]
    inserted: Bool[np.ndarray, "sample"]
    deleted_before: Bool[np.ndarray, "sample"]
    inverted: Bool[np.ndarray, "sample"]


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
        k = anchor_length(len(reference))
        other = reverse_complement(reference)
        places = find_anchors(reference, other, sample, k)
        if (places[1] >= 0).sum() > (places[0] >= 0).sum():
            reference, other, places = other, reference, places[::-1]
        chained = chain(join_runs(places[0], k))
        if not chained:
            return calls
        begin, end, mutations = _read(reference, sample, chained)
        first, last = begin + chained[0].diagonal, end + chained[-1].diagonal
        called = apply_mutations(reference[first:last], [_moved(mutation, -first) for mutation in mutations])
        masks = called.substituted, called.inserted, called.deleted_before
        for mask, called_mask in zip(calls[:3], masks, strict=True):
            mask[begin:end] = called_mask
        reverse_anchors = join_runs(places[1], k)
        for left, right in pairwise(chained):
            start, stop = _inversion(reference, sample, left, right, reverse_anchors)
            calls.inverted[start:stop] = True
        calls.substituted[calls.inverted] = False
        return calls


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
        turn = max(at, turning_point(reference, sample, left, right))
        mutations += _substitutions(reference, sample, at, turn, left.diagonal)
        if change:
            place = turn + left.diagonal
            mutations.append(Mutation(place, place + max(0, change), sample[turn : turn + inserted].tobytes()))
        at = turn + inserted
    return begin, end, mutations + _substitutions(reference, sample, at, end, tail.diagonal)


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
