"""The leaks of a split: minimizers of held-out blocks that occur in training blocks, and records that stand twice."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16, UInt64

from genoattn.errors import UserError, shorten
from genoattn.genome.alphabet import SOFT, UNKNOWN, ambiguous_kmers, packed_kmers, reverse_complement
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome

K = 24
"""Bases of a k-mer: three times those of a word."""

WINDOW = 10
"""Of so many k-mers in a row, the one with the lowest rank is a minimizer (Roberts et al. 2004); none is ambiguous."""

SAMPLED_ABOVE = 20_000_000
"""Bases of a genome above which a sample takes the place of the minimizers; it holds about as many k-mers."""

_WORD = 8
_PIECE = 1 << 20


class LeakAudit(NamedTuple):
    """Shares of the held-out blocks that occur in training blocks, on either strand.

    Attributes:
        test: Share of the minimizers of the test blocks, 0 to 1; 0 if they have none.
        validation: Share of the minimizers of the validation blocks.
        duplicates: Names of each record that holds the sequence of an earlier one, and of that earlier one.
    """

    test: float
    validation: float
    duplicates: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        count = len(self.duplicates)
        return (
            f"leak audit: {self.test:.1%} of the test minimizers and {self.validation:.1%} of the validation minimizers"
            f" occur in training blocks, {count:,} duplicate record{'' if count == 1 else 's'}"
        )


def audit_leak(
    genome: Genome, train: Sequence[Interval], validation: Sequence[Interval], test: Sequence[Interval]
) -> LeakAudit:
    """Compare what is held out with what is trained on.

    Minimizers are 24-mers of known bases; a k-mer and its reverse complement are one. In a genome of more than
    `SAMPLED_ABOVE` bases those k-mers are compared whose middle word has a rank below a limit (a FracMinHash of words,
    Irber et al. 2022). Both choices depend on the sequence alone, so each run finds the same share.

    Args:
        genome: The genome.
        train: The training blocks.
        validation: The validation blocks.
        test: The test blocks.
    """
    density = None if genome.total <= SAMPLED_ABOVE else 2 / (WINDOW + 1) * SAMPLED_ABOVE / genome.total
    known = _minimizers(genome, train, density)

    def share(intervals: Sequence[Interval]) -> float:
        own = _minimizers(genome, intervals, density)
        places = np.searchsorted(known, own)
        found = known[np.minimum(places, len(known) - 1)] == own if len(known) else np.zeros(len(own), np.bool_)
        return float(found.mean()) if len(own) else 0.0

    in_test = share(test)
    return LeakAudit(in_test, in_test if validation == test else share(validation), duplicate_records(genome))


def check_leak(leak: LeakAudit, most: int | float | None, split: str) -> None:
    """Raises UserError if more than the share `most` leaks, or in a split of whole records if one stands twice."""
    if most is None:
        return
    if split != "block" and leak.duplicates:
        second, first = leak.duplicates[0]
        raise UserError(
            f"data.fasta holds the sequence of record {shorten(first)} again as {shorten(second)}, and"
            f" data.split={split} may train on one and test on the other; keep one of them, or set data.max_leak=null"
        )
    if leak.test > most or leak.validation > most:
        name, share = ("test", leak.test) if leak.test > most else ("validation", leak.validation)
        raise UserError(
            f"{share:.1%} of the {name} minimizers ({K} bases, both strands) occur in training blocks, and"
            f" data.max_leak={most} allows {most:.1%}; remove near copies from data.fasta, split it another way"
            " (data.split), or set data.max_leak=null"
        )


def duplicate_records(genome: Genome) -> tuple[tuple[str, str], ...]:
    """The names of each record that holds the sequence of an earlier one, on either strand, and of that earlier one."""
    of_length: defaultdict[int, list[int]] = defaultdict(list)
    for number, length in enumerate(genome.lengths):
        of_length[length].append(number)
    pairs: list[tuple[int, int]] = []
    for numbers in of_length.values():
        first: dict[bytes, int] = {}
        for number in numbers if len(numbers) > 1 else ():
            offset, length = genome.records[number].offset, genome.lengths[number]
            bases = genome.stored[offset : offset + length] & ~SOFT
            sequence = min(bases.tobytes(), reverse_complement(bases).tobytes())
            earlier = first.setdefault(sequence, number)
            if earlier != number:
                pairs.append((number, earlier))
    return tuple((genome.names[number], genome.names[earlier]) for number, earlier in sorted(pairs))


def _minimizers(
    genome: Genome, intervals: Sequence[Interval], density: float | None
) -> UInt64[np.ndarray, "minimizers"]:
    """The distinct minimizers of intervals (or a sample of that density), sorted."""
    found = [_minimizers_of(row, density) for row in _rows(genome, intervals)]
    codes = np.sort(np.concatenate([np.zeros(0, np.uint64), *found]))  # np.unique is several times slower
    return codes[np.diff(codes, prepend=codes[:1] ^ 1) != 0]


def _rows(genome: Genome, intervals: Sequence[Interval]) -> Iterator[UInt8[np.ndarray, "row"]]:
    """The bases of intervals, long ones in pieces that share a window, short ones together with an N between them."""
    gap = np.full(1, UNKNOWN, np.uint8)
    row: list[np.ndarray] = []
    size = 0
    for record, start, stop in intervals:
        for first in range(start, max(stop - K - WINDOW + 2, start + 1), _PIECE):
            last = min(first + _PIECE + K + WINDOW - 2, stop)
            row += (genome.fetch(record, first, last), gap)
            size += last - first
            if size >= _PIECE:
                yield np.concatenate(row)
                row, size = [], 0
    if row:
        yield np.concatenate(row)


def _minimizers_of(bases: UInt8[np.ndarray, "row"], density: float | None) -> UInt64[np.ndarray, "minimizers"]:
    count = len(bases) - K + 1
    if count < WINDOW:
        return np.zeros(0, np.uint64)
    words = packed_kmers(bases, _WORD)
    ranks = _RANKS[words[_WORD : _WORD + count]]
    ambiguous = ambiguous_kmers(bases, K)
    if density is None:
        ranks[ambiguous] = 0  # so that no k-mer is chosen because its neighbours are ambiguous
        lowest = np.pad(_sliding(np.minimum, ranks, WINDOW), WINDOW - 1)
        chosen = ranks == _sliding(np.maximum, lowest, WINDOW)
    else:
        chosen = ranks < density * len(_RANKS)
    places = np.flatnonzero(chosen & ~ambiguous)
    three = [words[places + offset] for offset in (0, _WORD, 2 * _WORD)]
    return np.minimum(_joined(three), _joined([_OPPOSITE[word] for word in reversed(three)]))


def _sliding(extreme: np.ufunc, values: UInt16[np.ndarray, "n"], width: int) -> UInt16[np.ndarray, "windows"]:
    """The extreme of each `width` values in a row."""
    span = 1
    while span < width:
        step = min(span, width - span)
        values = extreme(values[:-step], values[step:])
        span += step
    return values


def _joined(words: Sequence[UInt16[np.ndarray, "n"]]) -> UInt64[np.ndarray, "n"]:
    first, second, third = (word.astype(np.uint64) for word in words)
    return first << 32 | second << 16 | third


def _word_tables() -> tuple[UInt16[np.ndarray, "words"], UInt16[np.ndarray, "words"]]:
    """The reverse complement of each word of 8 bases, and a rank that is the same for both, spread like a hash."""
    words = np.arange(1 << 2 * _WORD, dtype=np.uint64)
    opposite = np.zeros_like(words)
    for base in range(_WORD):
        opposite = opposite << 2 | (words >> 2 * base & 3 ^ 3)
    ranks = np.minimum(words, opposite) ^ 0x5A5A  # or a run of A, which is word 0, would have the lowest rank
    for factor in (0x9E37, 0x85EB):
        ranks = ranks * factor & 0xFFFF
        ranks ^= ranks >> 7
    return opposite.astype(np.uint16), ranks.astype(np.uint16)


_OPPOSITE, _RANKS = _word_tables()
