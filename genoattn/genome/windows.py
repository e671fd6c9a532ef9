"""To be said in a sentence."""

from collections.abc import Sequence
from typing import final

import numpy as np

from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome

_TRIES = 1000


@final
class Windows:
    """Windows of `length` bases within intervals; those with a larger share of N than `max_unknown` are passed over.

    An interval shorter than that, down to `shortest` where it is given, is one window as a whole.
    """

    def __init__(
        self,
        genome: Genome,
        intervals: Sequence[Interval],
        length: int,
        max_n_fraction: float = 0.5,
        min_length: int | None = None,
    ):
        if not 0 <= max_n_fraction <= 1:
            raise UserError(f"data.max_n_fraction must lie within 0 and 1, got {max_n_fraction}")
        self.genome = genome
        least = min(min_length or length, length)
        self.intervals = tuple(interval for interval in intervals if interval.length >= least)
        self.length = length
        self.max_n_fraction = max_n_fraction
        self.skipped = 0
        if length < 1 or not self.intervals:
            raise UserError(
                f"no block of the genome holds a window of {length} bases (data.length and the flanks of the task);"
                " choose a shorter data.length"
            )
        self._starts = np.cumsum([max(1, interval.length - length + 1) for interval in self.intervals])

    def draw(self, rng: np.random.Generator) -> Interval:
        """One window, every start in every interval being equally likely."""
        for _ in range(_TRIES):
            start = int(rng.integers(self._starts[-1]))
            number = int(np.searchsorted(self._starts, start, side="right"))
            interval = self.intervals[number]
            # Counted from the end: the last start of the interval leaves nothing to its right.
            stop = interval.stop - (int(self._starts[number]) - 1 - start)
            window = Interval(interval.record, max(interval.start, stop - self.length), stop)
            if self._is_known(window):
                return window
        raise UserError(
            f"{_TRIES} windows of {self.length} bases were drawn and each is more than"
            f" {self.max_n_fraction:.0%} N; use a genome with known bases or raise data.max_n_fraction"
        )

    def tile(self, stride: int) -> list[Interval]:
        """Windows every `stride` bases along each interval, the last one flush with its end."""
        if stride < 1:
            raise UserError(f"the stride of a tiling must be at least 1, got {stride}")
        windows: list[Interval] = []
        for record, start, stop in self.intervals:
            last = max(start, stop - self.length)
            starts = [*range(start, last, stride), last]
            windows += [Interval(record, at, min(at + self.length, stop)) for at in starts]
        return [window for window in windows if self._is_known(window)]

    def _is_known(self, window: Interval) -> bool:
        record = self.genome.records[window.record]
        # Most records hold nothing that could be unknown, and need not be read for that.
        if record.unknown == 0 and (record.masked == 0 or self.genome.soft_mask == "keep"):
            return True
        unknown = np.count_nonzero(self.genome.fetch(*window) == UNKNOWN)
        known = unknown <= self.max_n_fraction * window.length
        self.skipped += not known
        return bool(known)


def tiles(begin: int, end: int, length: int) -> list[tuple[int, int, int]]:
    """Windows (start, low, high) whose bases [low, high) are tested; of begin … end each base exactly once.

    An eighth of a window is left out at either side, where the detector sees too little of what surrounds a base. The
    last window may reach beyond `end`.
    """
    margin = length // 8
    stride = length - 2 * margin
    starts = range(begin, max(begin + 1, end - margin), stride)
    cuts = [begin, *(start + margin for start in starts[1:]), end]
    return [(start, low - start, high - start) for start, low, high in zip(starts, cuts[:-1], cuts[1:], strict=True)]
