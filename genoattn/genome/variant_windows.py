"""Windows of equal length around a variant, one with the reference allele and one with the other."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.genome.indexed_fasta import Sequences
from genoattn.genome.mutations import Mutation


class Window(NamedTuple):
    """Codes of a window; the allele is its bases [start, stop), 0-based and half-open, none if it is empty."""

    bases: UInt8[np.ndarray, "length"]
    start: int
    stop: int


class WindowPair(NamedTuple):
    """Two windows of equal length that differ in one allele: `first` has the reference's, `second` the other."""

    first: Window
    second: Window

    def swapped(self) -> "WindowPair":
        """The same windows in the other order."""
        return WindowPair(self.second, self.first)


def window_pairs(genome: Sequences, record: int, mutation: Mutation, length: int) -> list[WindowPair]:
    """The windows of a variant, anchored at the left and at the right.

    The window of the reference has the site in its middle, or as near to it as the ends of the record allow. The window
    with the variant begins at the same base (anchored at the left) or ends at the same base (at the right). Both hold
    `length` bases, fewer where the record or the mutated record has no more, and never a base from beyond an end. An
    anchor that leaves the allele no room is left out.

    Args:
        genome: The genome.
        record: The number of the record.
        mutation: The variant.
        length: Bases of a window.

    Returns:
        Two pairs; one if both anchors give the same windows, as substitutions do, or if one has no room; none if
        neither has.
    """
    start, stop, inserted = mutation
    total, added = genome.lengths[record], len(inserted) - (stop - start)
    begin = min(max((start + stop) // 2 - length // 2, 0), max(total - length, 0))
    end = min(begin + length, total)
    # The part of the record from which every window is cut; positions below count from its first base.
    low = max(begin - (stop - start), 0)
    original = genome.fetch(record, low, min(end + (stop - start), total))
    at, until = start - low, stop - low
    mutated = np.concatenate([original[:at], np.frombuffer(inserted, np.uint8), original[until:]])

    def pair(first: int, second: int, size: int) -> WindowPair | None:
        alleles = (at - first, until - first), (at - second, at - second + len(inserted))
        if size < 2 or any(not 0 <= left <= right <= size for left, right in alleles):
            return None
        windows = original[first : first + size], mutated[second : second + size]
        return WindowPair(*(Window(bases, *allele) for bases, allele in zip(windows, alleles, strict=True)))

    left, right = begin - low, end - low
    size = min(end - begin, total + added - begin)
    pairs = [pair(left, left, size)]
    if added:
        size = min(end - begin, end + added)
        pairs.append(pair(right - size, right + added - size, size))
    return [windows for windows in pairs if windows]
