"""k-mer look-up as a mutation caller: finds its place on either strand by itself, and knows no training."""

from itertools import pairwise
from math import ceil, log
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genoattn.genome.alphabet import COMPLEMENT, kmer_codes, reverse_complement
from genoattn.genome.mutations import Mutation, apply_mutations

MISMATCH = -4
"""What a mismatch weighs against a match of 1 beyond the outermost anchors, as in the aligner."""


class KmerCalls(NamedTuple):
    """Which sample bases are called substituted or inserted, before which bases are gone, and which are inverted."""

    substituted: Bool[np.ndarray, "sample"]
    inserted: Bool[np.ndarray, "sample"]
    missing: Bool[np.ndarray, "sample"]
    inverted: Bool[np.ndarray, "sample"]


class Anchor(NamedTuple):
    """Sample bases [start, stop) that stand in the reference as they are, base i at place i + diagonal."""

    start: int
    stop: int
    diagonal: int


@final
class KmerCaller:
    """Seed and chain as genome aligners do it, without the alignment: unique k-mers anchor the sample.

    A k-mer is an anchor where it occurs once in both strands of the reference; k is three more than the log4 of their
    bases, so that few occur by chance. Anchors of the strand that has more of them are chained (with a logarithmic cost
    of changing the diagonal, as minimap2's). Between two of one diagonal what differs is substituted; where the
    diagonal changes bases are inserted or gone, at the place that leaves the fewest differences, then left-aligned.
    Beyond the outermost anchors the diagonal is followed as long as it pays (ungapped extension, as BLAST's). Where
    anchors of the other strand lie between two of one diagonal, a stretch that explains them is inverted.
    """

    def __call__(self, reference: UInt8[np.ndarray, "reference"], sample: UInt8[np.ndarray, "sample"]) -> KmerCalls:
        """Calls for a sample of either strand that overlaps the reference anywhere; none where it finds no anchor."""
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
        found = apply_mutations(reference[first:last], [_moved(one, -first) for one in mutations])
        for mask, told in zip(calls[:3], (found.substituted, found.inserted, found.deleted_before), strict=True):
            mask[begin:end] = told
        turned = _runs(places[1], k)
        for left, right in pairwise(chained):
            start, stop = _inversion(reference, sample, left, right, turned)
            calls.inverted[start:stop] = True
        calls.substituted[calls.inverted] = False
        return calls


def find_anchors(
    reference: UInt8[np.ndarray, "reference"],
    other: UInt8[np.ndarray, "reference"],
    sample: UInt8[np.ndarray, "sample"],
    k: int,
) -> Int[np.ndarray, "2 kmers"]:
    """Where in the reference, and where in its other strand, each k-mer of the sample stands; -1 unless just once."""
    codes = np.concatenate([kmer_codes(reference, k), kmer_codes(other, k)])
    asked = kmer_codes(sample, k)
    known, first, counts = np.unique(codes, return_index=True, return_counts=True)
    single = (counts == 1) & (known >= 0)
    known, first = known[single], first[single]
    found = np.full((2, len(asked)), -1)
    if len(known):
        at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        hits = np.flatnonzero(known[at] == asked)
        strand, place = np.divmod(first[at[hits]], len(codes) // 2)
        found[strand, hits] = place
    return found


def chain(anchors: list[Anchor]) -> list[Anchor]:
    """The weightiest chain of anchors (in order of their starts), each beginning and ending after the one before it.

    It weighs the bases of its anchors, less log2(1 + change) for every change of diagonal.
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
    """k-mers that follow one another on one diagonal, as one anchor each."""
    hits = np.flatnonzero(places >= 0)
    if len(hits) == 0:
        return []
    diagonals = places[hits] - hits
    new = np.flatnonzero((np.diff(diagonals) != 0) | (np.diff(hits) > k)) + 1  # within k they overlap or touch
    begins, ends = np.concatenate([[0], new]), np.concatenate([new, [len(hits)]]) - 1
    rows = zip(hits[begins].tolist(), (hits[ends] + k).tolist(), diagonals[begins].tolist(), strict=True)
    return [Anchor(*row) for row in rows]


def _read(reference: np.ndarray, sample: np.ndarray, chained: list[Anchor]) -> tuple[int, int, list[Mutation]]:
    """Sample bases [begin, end) that the chain reaches, and what differs there, in places of the reference."""
    head, tail = chained[0], chained[-1]
    begin = head.start - _extent(reference[: head.start + head.diagonal][::-1], sample[: head.start][::-1])
    end = tail.stop + _extent(reference[tail.stop + tail.diagonal :], sample[tail.stop :])
    mutations: list[Mutation] = []
    at = begin
    for left, right in pairwise(chained):
        change = right.diagonal - left.diagonal
        came = max(0, -change)
        turn = max(at, _turn(reference, sample, left, right))
        mutations += _substitutions(reference, sample, at, turn, left.diagonal)
        if change:
            place = turn + left.diagonal
            mutations.append(Mutation(place, place + max(0, change), sample[turn : turn + came].tobytes()))
        at = turn + came
    return begin, end, mutations + _substitutions(reference, sample, at, end, tail.diagonal)


def _turn(reference: np.ndarray, sample: np.ndarray, left: Anchor, right: Anchor) -> int:
    """The sample base from which on the diagonal of `left` gives way, so that least differs between the two."""
    came = max(0, left.diagonal - right.diagonal)
    low, high = left.stop, right.start - came
    if high <= low:
        return high
    before = sample[low:high] != reference[low + left.diagonal : high + left.diagonal]
    after = sample[low + came : right.start] != reference[low + came + right.diagonal : right.start + right.diagonal]
    differing = np.concatenate([[0], np.cumsum(before)]) + np.concatenate([np.cumsum(after[::-1])[::-1], [0]])
    return low + int(differing.argmin())


def _inversion(
    reference: np.ndarray, sample: np.ndarray, left: Anchor, right: Anchor, turned: list[Anchor]
) -> tuple[int, int]:
    """The sample bases between two anchors that are inverted, the fewest that leave the fewest differences, if any."""
    low, high, diagonal = left.stop, right.start, left.diagonal
    within = [one for one in turned if low <= (one.start + one.stop) // 2 < high]  # their ends may match by chance
    if diagonal != right.diagonal or not within:
        return low, low
    # Base i of an inverted stretch is the complement of what stands at place `turn` + diagonal - i.
    turn = len(reference) - 1 - max(within, key=lambda one: one.stop - one.start).diagonal - diagonal
    first = max(low, turn + 1 - high)
    starts = np.arange(first, turn // 2 + 1)
    stops = turn + 1 - starts
    inside = np.arange(first, turn + 1 - first)
    there = reference[inside + diagonal]
    gained = (there != sample[inside]).astype(int) - (COMPLEMENT[there[::-1]] != sample[inside])
    spared = np.concatenate([[0], np.cumsum(gained)])
    worth = spared[stops - first] - spared[starts - first]
    if len(worth) == 0 or worth.max() <= 0:
        return low, low
    best = len(worth) - 1 - int(worth[::-1].argmax())  # the shortest of the best
    return int(starts[best]), int(stops[best])


def _substitutions(reference: np.ndarray, sample: np.ndarray, start: int, stop: int, diagonal: int) -> list[Mutation]:
    there, here = reference[start + diagonal : stop + diagonal], sample[start:stop]
    differing = np.flatnonzero((there != here) & (there < 4) & (here < 4)) + start
    return [Mutation(n + diagonal, n + diagonal + 1, sample[n : n + 1].tobytes()) for n in differing.tolist()]


def _extent(there: np.ndarray, here: np.ndarray) -> int:
    """How many bases on the diagonal is followed further: to where matches outweigh mismatches the most."""
    shared = min(len(there), len(here))
    worth = np.cumsum(np.where(there[:shared] == here[:shared], 1, MISMATCH))
    return int(worth.argmax()) + 1 if shared and worth.max() > 0 else 0


def _moved(mutation: Mutation, by: int) -> Mutation:
    return Mutation(mutation.start + by, mutation.stop + by, mutation.inserted)
