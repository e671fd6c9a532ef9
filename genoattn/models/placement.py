"""Windows of a sample laid beside a reference, as far as short insertions and deletions separate the two."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from genoattn.errors import UserError

SEED_LENGTH = 32
"""Bases by which a window is placed, and bases that it may be shifted against the window before it."""

CHANCE = 0.6
"""Share of equal letters below which a piece is unrelated: the best of 65 shifts of random DNA reaches 0.4 to 0.5."""

UNRELATED = 4
"""Pieces of `SEED_LENGTH` bases in a row below `CHANCE` that mark a large insertion, deletion or rearrangement."""

OUTSIDE = 255
"""Stands beyond the ends of the reference and equals no base."""


def place_windows(
    reference: UInt8[np.ndarray, "reference"], sample: UInt8[np.ndarray, "sample"], starts: Sequence[int], length: int
) -> Iterator[int]:
    """The reference position of each window [start, start + length) of the sample.

    Raises:
        UserError: A window has no counterpart within `SEED_LENGTH` bases of the place that its predecessor implies.
    """
    shift = 0
    for start in starts:
        window = sample[start : start + length]
        shift = _shift(reference, window, start, shift)
        shares = _best_shares(reference, window, start + shift)
        unrelated = shares < CHANCE
        row = np.convolve(unrelated, np.ones(UNRELATED), "valid") if len(shares) >= UNRELATED else np.zeros(1)
        if len(shares) and (np.mean(shares) < CHANCE or row.max() == UNRELATED):
            piece = int(np.argmax(unrelated)) * SEED_LENGTH
            raise UserError(
                f"the sample cannot be placed on the reference from sample base {start + piece:,} (0-based) on: near"
                f" reference base {start + shift + piece:,} its letters match as in unrelated DNA; detect follows"
                f" insertions and deletions of up to {SEED_LENGTH} bases, and does not place whole genomes yet"
            )
        yield start + shift


def _shift(reference: np.ndarray, window: np.ndarray, start: int, before: int) -> int:
    """The shift at which the first bases of a window match best, the nearest to the shift before it among equals."""
    head = window[:SEED_LENGTH]
    if start == 0 or len(head) < SEED_LENGTH:
        return before
    shifts = sorted(range(before - SEED_LENGTH, before + SEED_LENGTH + 1), key=lambda shift: abs(shift - before))
    inside = [shift for shift in shifts if 0 <= start + shift <= len(reference) - len(head)]
    matches = {shift: int((reference[start + shift : start + shift + len(head)] == head).sum()) for shift in inside}
    return max(matches, key=lambda shift: matches[shift], default=before)


def _best_shares(reference: np.ndarray, window: np.ndarray, start: int) -> Float[np.ndarray, "pieces"]:
    """The share of equal letters of each piece of a window at its best shift; pieces that are mostly N are left out."""
    pieces = len(window) // SEED_LENGTH
    if not pieces:
        return np.zeros(0)
    window = window[: pieces * SEED_LENGTH]
    left, right = start - SEED_LENGTH, start + len(window) + SEED_LENGTH
    inside = reference[max(left, 0) : max(right, 0)]
    wide = np.pad(inside, (max(-left, 0), right - max(left, 0) - len(inside)), constant_values=OUTSIDE)
    shifted = np.lib.stride_tricks.sliding_window_view(wide, len(window))
    known = (window < 4) & ((shifted < 4) | (shifted == OUTSIDE))
    by_piece = (len(shifted), pieces, SEED_LENGTH)
    equal = ((shifted == window) & known).reshape(by_piece).sum(-1)
    counted = known.reshape(by_piece).sum(-1)
    shares = np.where(counted >= SEED_LENGTH // 2, equal / np.maximum(counted, 1), -1.0).max(0)
    return shares[shares >= 0]
