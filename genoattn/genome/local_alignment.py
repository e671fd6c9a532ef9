"""Alignment of what lies between two anchors, and outward from the last one: what differs, as mutations."""

from functools import cache
from itertools import pairwise

import numpy as np
from Bio.Align import PairwiseAligner
from jaxtyping import UInt8

from genoattn.genome.alphabet import LETTERS, UNKNOWN, decode_bases
from genoattn.genome.anchors import Anchor, chained_anchors
from genoattn.genome.mutations import Mutation

MATCH, MISMATCH, OPEN, EXTEND = 1, -9, -20, -1
"""Scores of an equal and of a differing base, and of the first and each further base of a gap, near minimap2's asm10.

With cheaper gaps, two stretches that are not alike become a dozen small mutations rather than one.
"""

END_BONUS = 20
"""Score for reaching the end of a contig, so that a difference in its last bases is not cut off."""

DROP = 40
"""An extension ends where its score has fallen so far below its best."""

CELLS = 1_000_000
"""Reference bases times sample bases that are aligned at once; more are cut at anchors of their own."""

SHORT = 32
"""Bases of a gap from which it is asked whether its two sides are alike at all."""

ALIKE = 0.7
"""Share of equal bases below which two sides are not alike: an alignment of random DNA has half of that."""

LONGEST_UNKNOWN = 50
"""Ambiguous letters in a gap beyond which nothing is said about it."""


def align(reference: UInt8[np.ndarray, "reference"], sample: UInt8[np.ndarray, "sample"]) -> list[Mutation] | None:
    """The mutations that turn one sequence into the other from end to end, in order; None if they are not alike.

    An ambiguous letter differs from no base in score; it is a substitution of its own, so that it can be told apart.

    Args:
        reference: Codes of the reference; mutations count from its first base.
        sample: Codes of the sample.
    """
    if max(np.count_nonzero(side > 3) for side in (reference, sample)) > LONGEST_UNKNOWN:
        return None
    shared = min(len(reference), len(sample))
    left = _first_difference(reference[:shared], sample[:shared])
    rest = shared - left
    right = _first_difference(reference[::-1][:rest], sample[::-1][:rest])
    inner, other = reference[left : len(reference) - right], sample[left : len(sample) - right]
    if not len(inner) or not len(other):
        return [Mutation(left, left + len(inner), other.tobytes())] if len(inner) or len(other) else []
    mutations = _align_inner(inner, other)
    if mutations is None:
        return None
    smaller = min(len(inner), len(other))
    if smaller >= SHORT and len(inner) - sum(stop - start for start, stop, _ in mutations) < ALIKE * smaller:
        return None
    return [Mutation(start + left, stop + left, inserted) for start, stop, inserted in mutations]


def _align_inner(reference: np.ndarray, sample: np.ndarray) -> list[Mutation] | None:
    if len(reference) == len(sample) and np.count_nonzero(reference != sample) <= 2:  # two gaps would cost more
        return substitutions(reference, sample)
    if len(reference) * len(sample) <= CELLS:
        return _align_whole(reference, sample)
    anchors = chained_anchors(reference, sample)
    if not anchors:
        return None
    mutations: list[Mutation] = []
    ends = [Anchor(0, 0, 0), *anchors, Anchor(len(sample), len(sample), len(reference) - len(sample))]
    for left, right in pairwise(ends):
        start, stop, at, to = gap(left, right)
        if (within := align(reference[start:stop], sample[at:to])) is None:
            return None
        mutations += [Mutation(first + start, last + start, inserted) for first, last, inserted in within]
    return mutations


def gap(left: Anchor, right: Anchor) -> tuple[int, int, int, int]:
    """Reference bases [start, stop) and sample bases [at, to) between two anchors of a chain.

    Where the anchors overlap, as at an indel in a repeat, the second one gives way.
    """
    start, at = left.stop + left.diagonal, left.stop
    stop, to = right.start + right.diagonal, right.start
    overlap = max(0, start - stop, at - to)
    return start, stop + overlap, at, to + overlap


def substitutions(reference: UInt8[np.ndarray, "length"], sample: UInt8[np.ndarray, "length"]) -> list[Mutation]:
    """Runs of differing bases of two sequences of equal length; a run holds ambiguous letters only, or none."""
    kind = np.where(reference == sample, 0, np.where((reference > 3) | (sample > 3), 2, 1))
    bounds = np.flatnonzero(np.diff(kind, prepend=0, append=0)).tolist()
    runs = [(start, stop) for start, stop in pairwise(bounds) if kind[start]]
    return [Mutation(start, stop, sample[start:stop].tobytes()) for start, stop in runs]


def _align_whole(reference: np.ndarray, sample: np.ndarray) -> list[Mutation]:
    letters = [decode_bases(np.where(side > 3, UNKNOWN, side)) for side in (reference, sample)]
    coordinates = np.asarray(_aligner().align(*letters)[0].coordinates)
    mutations: list[Mutation] = []
    begin = 0, 0  # of bases without a counterpart
    for (start, at), (stop, to) in pairwise(coordinates.T.tolist()):
        if start < stop and at < to:
            if begin != (start, at):
                mutations.append(Mutation(begin[0], start, sample[begin[1] : at].tobytes()))
            differing = substitutions(reference[start:stop], sample[at:to])
            mutations += [Mutation(first + start, last + start, inserted) for first, last, inserted in differing]
            begin = stop, to
    if begin != (len(reference), len(sample)):
        mutations.append(Mutation(begin[0], len(reference), sample[begin[1] :].tobytes()))
    return mutations


@cache
def _aligner() -> PairwiseAligner:
    aligner = PairwiseAligner(mode="global", match_score=MATCH, mismatch_score=MISMATCH)
    aligner.open_gap_score, aligner.extend_gap_score = OPEN, EXTEND
    aligner.wildcard = LETTERS[UNKNOWN]
    return aligner


def extension(reference: UInt8[np.ndarray, "length"], sample: UInt8[np.ndarray, "length"], to_end: bool) -> int:
    """Bases by which an alignment goes on without a gap; with `to_end` the sample ends after the given bases."""
    if not len(sample):
        return 0
    score = np.cumsum(np.where(reference == sample, MATCH, MISMATCH))
    fallen = np.flatnonzero(np.maximum(np.maximum.accumulate(score), 0) - score > DROP)
    if len(fallen):
        score = score[: fallen[0]]
    elif to_end and score[-1] + END_BONUS >= max(0, int(score.max())):
        return len(score)
    best = int(score.argmax())
    return best + 1 if score[best] > 0 else 0


def _first_difference(one: np.ndarray, other: np.ndarray) -> int:
    differing = one != other
    return int(differing.argmax()) if differing.any() else len(one)
