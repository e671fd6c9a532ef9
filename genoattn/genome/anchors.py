"""Anchors: k-mers that two sequences share and that occur once, chained as in minimap2 (Li 2018)."""

from bisect import bisect_right
from collections.abc import Sequence
from math import ceil, log
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from genoattn.genome.alphabet import kmer_codes, reverse_complement

LOOK_BACK = 4096
"""Anchors before an anchor of which one may precede it in a chain."""


class Anchor(NamedTuple):
    """Sample bases [start, stop) that match the reference: base i matches reference base i + diagonal."""

    start: int
    stop: int
    diagonal: int


def anchor_length(bases: int) -> int:
    """Bases of a k-mer that rarely occurs by chance in both strands of `bases` bases: three more than their log4."""
    return 3 + ceil(log(max(4, 2 * bases), 4))


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

    The score is the number of anchored bases, minus log2(1 + change) for every change of diagonal. An anchor follows
    one of the `LOOK_BACK` before it, so that time grows with their number and not with its square.
    """
    if not anchors:
        return []
    weight, before = _weights(anchors)
    at = int(weight.argmax())
    chained = []
    while at >= 0:
        chained.append(anchors[at])
        at = int(before[at])
    return chained[::-1]


def chains(anchors: list[Anchor], least: float) -> list[tuple[float, list[Anchor]]]:
    """Score and anchors of every chain with a score of at least `least`, the best first; no anchor is in two of them.

    Anchors come in order of their starts. A chain ends where it meets a better one, and scores what it adds to it.
    """
    if not anchors:
        return []
    weight, before = _weights(anchors)
    used = np.zeros(len(anchors), np.bool_)
    found = []
    for end in np.argsort(-weight, kind="stable").tolist():
        at, chained = end, []
        while at >= 0 and not used[at]:
            used[at] = True
            chained.append(anchors[at])
            at = int(before[at])
        score = float(weight[end] - (weight[at] if at >= 0 else 0))
        if chained and score >= least:
            found.append((score, chained[::-1]))
    return sorted(found, key=lambda chain: -chain[0])


def _weights(anchors: list[Anchor]) -> tuple[Float[np.ndarray, "anchors"], Int[np.ndarray, "anchors"]]:
    """For each anchor the score of the best chain that ends there, and the anchor before it in that chain, or -1."""
    start, stop, diagonal = np.array(anchors).T
    weight = (stop - start).astype(np.float64)
    before = np.full(len(anchors), -1)
    for n in range(1, len(anchors)):
        near = slice(max(0, n - LOOK_BACK), n)
        change = diagonal[n] - diagonal[near]
        fits = (start[near] < start[n]) & (stop[near] < stop[n])
        fits &= (start[near] < start[n] + change) & (stop[near] < stop[n] + change)
        overlap = np.maximum(0, stop[near] - start[n] - np.minimum(change, 0))
        total = np.where(fits, weight[near] - np.log2(1 + np.abs(change)) - overlap, -np.inf)
        best = int(total.argmax())
        if total[best] > 0:
            weight[n] += total[best]
            before[n] = near.start + best
    return weight, before


def join_runs(places: Int[np.ndarray, "kmers"], k: int) -> list[Anchor]:
    """Anchors of the positions of k-mers in a reference: those that follow one another on one diagonal are joined."""
    hits = np.flatnonzero(places >= 0)
    return join_hits(hits, places[hits], k)


def join_hits(hits: Int[np.ndarray, "hits"], places: Int[np.ndarray, "hits"], k: int) -> list[Anchor]:
    """The same for k-mers that begin at the sample bases `hits`, in order, and at the reference bases `places`."""
    if len(hits) == 0:
        return []
    diagonals = places - hits
    new = np.flatnonzero((np.diff(diagonals) != 0) | (np.diff(hits) > k)) + 1  # within k they overlap or touch
    begins, ends = np.concatenate([[0], new]), np.concatenate([new, [len(hits)]]) - 1
    rows = zip(hits[begins].tolist(), (hits[ends] + k).tolist(), diagonals[begins].tolist(), strict=True)
    return [Anchor(*row) for row in rows]


def chained_anchors(reference: UInt8[np.ndarray, "reference"], sample: UInt8[np.ndarray, "sample"]) -> list[Anchor]:
    """The best chain of anchors of a sample on the strand of the reference; empty if they share no k-mer."""
    k = anchor_length(len(reference))
    places, _ = find_anchors(reference, reverse_complement(reference), sample, k)
    return chain(join_runs(places, k))


def turning_point(
    reference: UInt8[np.ndarray, "reference"], sample: UInt8[np.ndarray, "sample"], left: Anchor, right: Anchor
) -> int:
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


def place_by_anchors(
    reference: UInt8[np.ndarray, "reference"],
    sample: UInt8[np.ndarray, "sample"],
    anchors: Sequence[Anchor],
    base: int,
) -> int:
    """The reference position of a sample base, from a chain of at least one anchor.

    Between two anchors the diagonal changes where that leaves the fewest differences; an inserted base has the position
    of the next reference base. Beyond the outermost anchors the diagonal continues, beyond the reference too.
    """
    number = bisect_right(anchors, base, key=lambda anchor: anchor.start)
    left, right = anchors[max(number - 1, 0)], anchors[min(number, len(anchors) - 1)]
    turn = base + 1 if base < left.stop or left is right else turning_point(reference, sample, left, right)
    return base + left.diagonal if base < turn else max(turn + left.diagonal, base + right.diagonal)
