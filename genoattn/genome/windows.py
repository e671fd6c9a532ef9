"""Windows of a genome: drawn at random, side by side, or cut out with N beyond the ends of a record."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN
from genoattn.genome.indexed_fasta import Sequences
from genoattn.genome.intervals import Interval
from genoattn.genome.record_bases import Bases
from genoattn.genome.sequence_store import Genome

MAX_DRAWS = 1000
"""Windows that are drawn before a genome is said to be mostly N."""


@final
class Windows:
    """Windows of equal length within intervals of a genome; windows with too many N are skipped and counted."""

    def __init__(
        self,
        genome: Genome,
        intervals: Sequence[Interval],
        length: int,
        max_n_fraction: float = 0.5,
        min_length: int | None = None,
        weights: Sequence[float] = (),
    ):
        """Windows within intervals.

        Args:
            genome: The genome.
            intervals: The intervals (0-based, half-open) that windows may lie in.
            length: Bases of a window.
            max_n_fraction: A window with a larger share of N is skipped.
            min_length: A shorter interval with at least so many bases is one window; None: it is left out.
            weights: The share of windows of each file of the genome, beside those of the other files that hold a
                window; none: every start is equally likely.

        Raises:
            UserError: No interval holds a window, or `max_n_fraction` is out of range.
        """
        if not 0 <= max_n_fraction <= 1:
            raise UserError(f"data.max_n_fraction must lie within 0 and 1, got {max_n_fraction}")
        shortest = min(min_length or length, length)
        self.genome, self.length, self.max_n_fraction = genome, length, max_n_fraction
        self.intervals = tuple(interval for interval in intervals if interval.length >= shortest)
        self.skipped = 0
        """Windows that were skipped so far."""
        if length < 1 or not self.intervals:
            raise UserError(
                f"no block of the genome holds a window of {length} bases (data.length and the flanks of the task);"
                " choose a shorter data.length"
            )
        files = [genome.records[interval.record].file for interval in self.intervals] if weights else []
        if weights:  # the intervals of a file stand together
            order = sorted(range(len(files)), key=files.__getitem__)
            self.intervals, files = tuple(self.intervals[number] for number in order), sorted(files)
        self._cumulative_starts = np.cumsum([max(1, interval.length - length + 1) for interval in self.intervals])
        # Of each file: the start after its last one, and the sum of the weights up to it.
        self._ends = np.array([self._cumulative_starts[bisect_right(files, file) - 1] for file in sorted({*files})])
        self._shares = np.cumsum([weights[file] for file in sorted({*files})])

    def draw(self, rng: np.random.Generator) -> Interval:
        """A random window; raises UserError if 1,000 draws in a row have too many N.

        Every start is equally likely, or with weights every start in a file that was drawn by its share.
        """
        low, high = 0, int(self._cumulative_starts[-1])
        if len(self._shares):
            file = int(np.searchsorted(self._shares, rng.random() * self._shares[-1], side="right"))
            low, high = int(self._ends[file - 1]) if file else 0, int(self._ends[file])
        for _ in range(MAX_DRAWS):
            start = int(rng.integers(low, high))
            number = int(np.searchsorted(self._cumulative_starts, start, side="right"))
            interval = self.intervals[number]
            # Counted from the end: the last start of the interval leaves no base to its right.
            stop = interval.stop - (int(self._cumulative_starts[number]) - 1 - start)
            window = Interval(interval.record, max(interval.start, stop - self.length), stop)
            if self._is_known(window):
                return window
        raise UserError(
            f"{MAX_DRAWS} windows of {self.length} bases were drawn and each is more than"
            f" {self.max_n_fraction:.0%} N; use a genome with known bases or raise data.max_n_fraction"
        )

    def _is_known(self, window: Interval) -> bool:
        record = self.genome.records[window.record]
        # Most records have no N, and their windows need not be read for that.
        if record.unknown == 0 and (record.masked == 0 or self.genome.soft_mask == "keep"):
            return True
        unknown = np.count_nonzero(self.genome.fetch(*window) == UNKNOWN)
        known = unknown <= self.max_n_fraction * window.length
        self.skipped += not known
        return bool(known)


def slice_padded(bases: Bases, start: int, stop: int) -> UInt8[np.ndarray, "window"]:
    """Bases [start, stop), 0-based and half-open, with N for those before the first and after the last."""
    inside = bases[max(start, 0) : max(stop, 0)]
    before = min(max(-start, 0), stop - start)
    return np.pad(inside, (before, stop - start - before - len(inside)), constant_values=UNKNOWN)


def fetch_padded(genome: Sequences, record: int, start: int, stop: int) -> UInt8[np.ndarray, "window"]:
    """Codes of bases [start, stop) of a record, 0-based and half-open, with N beyond both of its ends."""
    low = min(max(start, 0), genome.lengths[record])
    high = max(min(stop, genome.lengths[record]), low)
    return slice_padded(genome.fetch(record, low, high), start - low, stop - low)


def tiles(begin: int, end: int, length: int) -> list[tuple[int, int, int]]:
    """Overlapping windows (start, low, high) of `length` bases that score each of the bases [begin, end) exactly once.

    The scored bases of a window are [low, high), counted from its start.
    An eighth of a window is not scored at either side, because a detector reads too little around those bases. The
    last window may reach beyond `end`.
    """
    margin = length // 8
    stride = length - 2 * margin
    starts = range(begin, max(begin + 1, end - margin), stride)
    borders = [begin, *(start + margin for start in starts[1:]), end]
    spans = zip(starts, borders[:-1], borders[1:], strict=True)
    return [(start, low - start, high - start) for start, low, high in spans]
