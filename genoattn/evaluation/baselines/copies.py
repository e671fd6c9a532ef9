"""Copies: a text repeats itself, forward or as its reverse complement, and an earlier place predicts the next base."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from genoattn.genome.alphabet import COMPLEMENT, kmer_codes, reverse_complement

RECENT, MOST_MISSES = 16, 8
"""A copy is given up after more than so many wrong predictions among the last `RECENT`."""

NONE = 4
"""The letter where nothing is predicted."""

RUNS, LENGTHS = (1, 2, 4, 8, 16, 32), (16, 32, 64, 256)
"""Bounds of the classes of a copy: right predictions in a row, and bases since it began."""

KINDS = (len(RUNS) + 1) * (len(LENGTHS) + 1) * (MOST_MISSES + 1)
"""Classes of a copy by run, length and recent misses: copies of a class are about equally reliable."""

LONGEST_VERIFIED = 32
"""Bases before a copy that are compared to tell how long it is already."""


class Copy(NamedTuple):
    """The prediction of a copy at each base from `start` on."""

    letters: UInt8[np.ndarray, "bases"]
    """The predicted base, `NONE` where there is no copy."""
    kinds: Int[np.ndarray, "bases"]
    """The class of the copy, 0 … `KINDS` - 1; 0 also where there is none."""
    lengths: Int[np.ndarray, "bases"]
    """Bases since the copy began, those before it that agree included; 0 where there is none."""
    misses: Int[np.ndarray, "bases"]
    """Wrong predictions among the last `RECENT`."""


def find_copy(text: UInt8[np.ndarray, "text"], k: int, start: int, inverted: bool) -> Copy:
    """The copy that the k-mer before each base points to, followed until it is wrong too often.

    A copy begins at the latest earlier place of the k bases before a base, and then goes on base by base over
    differences, as in GeCo (Pratas et al. 2016) and cmix; nothing after a base is read for its prediction.

    Args:
        text: Codes of the context and, from `start` on, of the bases to predict.
        k: Bases that have to agree where a copy begins, at most 31.
        start: The first base to predict.
        inverted: True: copies of the other strand.
    """
    candidates = _inverted_candidates(text, k) if inverted else _candidates(text, k)
    source, begun, before = (np.full(len(text), -1) for _ in range(3))
    for at, length, place in _followed(text, candidates, start, inverted):
        span = slice(at, at + length)
        source[span] = place - np.arange(length) if inverted else place + np.arange(length)
        begun[span], before[span] = at, _agreeing(text, at, place, inverted)
    known = source >= 0
    predicted = text[np.maximum(source, 0)]
    predicted = np.where(known & (predicted < 4), COMPLEMENT[predicted] if inverted else predicted, NONE)
    return _classified(predicted, predicted != text, begun, before, start)


def _classified(predicted: np.ndarray, wrong: np.ndarray, begun: np.ndarray, before: np.ndarray, start: int) -> Copy:
    """The classes of copies that began at `begun`, after `before` bases that agree."""
    index, known = np.arange(len(predicted)), begun >= 0
    last_wrong = np.append(-1, np.maximum.accumulate(np.where(wrong, index, -1))[:-1])
    length = np.where(known, index - begun + before, 0)
    run = np.where(last_wrong >= begun, index - 1 - last_wrong, length)
    total = np.append(0, np.cumsum(wrong))
    misses = np.where(known, total[index] - total[np.maximum(np.maximum(begun, index - RECENT), 0)], 0)
    kinds = np.searchsorted(RUNS, run, side="right") * (len(LENGTHS) + 1) + np.searchsorted(LENGTHS, length, "right")
    kinds = np.where(known, kinds * (MOST_MISSES + 1) + np.minimum(misses, MOST_MISSES), 0)
    return Copy(predicted[start:].astype(np.uint8), kinds[start:], length[start:], misses[start:])


def _candidates(text: np.ndarray, k: int) -> Int[np.ndarray, "text"]:
    """For each base, the base after the latest earlier place of the k bases before it; -1 if there is none."""
    places = np.full(len(text) + 1, -1)
    codes = kmer_codes(text, k)
    order = np.argsort(codes, kind="stable")
    same = (codes[order[1:]] == codes[order[:-1]]) & (codes[order[1:]] >= 0)
    places[order[1:][same] + k] = order[:-1][same] + k
    return places[: len(text)]


def _inverted_candidates(text: np.ndarray, k: int) -> Int[np.ndarray, "text"]:
    """For each base, the base before the latest place whose reverse complement are the k bases before it."""
    places = np.full(len(text) + 1, -1)
    codes = kmer_codes(text, k)
    both = np.empty(2 * len(codes), np.int64)
    both[::2], both[1::2] = kmer_codes(reverse_complement(text), k)[::-1], codes
    order = np.argsort(both, kind="stable")
    last = np.maximum.accumulate(np.where(order % 2 == 0, np.arange(len(order)), -1))
    asked = (order % 2 == 1) & (last >= 0) & (both[order] >= 0)
    asked &= both[order[last]] == both[order]
    places[order[asked] // 2 + k] = order[last[asked]] // 2 - 1
    return places[: len(text)]


def _followed(text: np.ndarray, candidates: np.ndarray, start: int, inverted: bool) -> Iterator[tuple[int, int, int]]:
    """Copies in turn: where each begins, how many bases it is followed, and the place of the first."""
    beginnings = np.flatnonzero(candidates >= 0)
    stops = np.append(np.flatnonzero(text > 3), len(text))
    at = start
    while (number := int(np.searchsorted(beginnings, at))) < len(beginnings):
        at = int(beginnings[number])
        place, most = int(candidates[at]), int(stops[np.searchsorted(stops, at)]) - at
        length = _follow(text, at, place, min(most, place + 1) if inverted else most, inverted)
        if length:
            yield at, length, place
        at += max(length, 1)


def _follow(text: np.ndarray, at: int, place: int, most: int, inverted: bool) -> int:
    """Bases, at most `most`, after which a copy has been wrong too often."""
    length, size, recent = 0, 64, np.zeros(RECENT, np.bool_)
    while length < most:
        size = min(size, most - length)
        own = text[at + length : at + length + size]
        if inverted:
            other = COMPLEMENT[text[place - length - size + 1 : place - length + 1]][::-1]
        else:
            other = text[place + length : place + length + size]
        wrong = np.concatenate([recent, own != other])
        total = np.cumsum(wrong)
        too_many = total[RECENT:] - total[:-RECENT] > MOST_MISSES
        if too_many.any():
            return length + int(too_many.argmax()) + 1
        length, recent, size = length + size, wrong[-RECENT:], 4 * size
    return length


def _agreeing(text: np.ndarray, at: int, place: int, inverted: bool) -> int:
    """Bases before a copy that agree with those it continues, at most `LONGEST_VERIFIED`."""
    most = min(LONGEST_VERIFIED, at, len(text) - 1 - place if inverted else place)
    own = text[at - most : at]
    other = COMPLEMENT[text[place + 1 : place + 1 + most]][::-1] if inverted else text[place - most : place]
    differs = np.flatnonzero(own != other)
    return most - 1 - int(differs[-1]) if len(differs) else most
