"""The candidates of `genoattn kernels tune=true`, to be checked each by itself and then timed, kernel by kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

from benchmarks.gpu.record import DRY

HEADS = 1 if DRY else 16
"""Heads of a case; as many when checked as when timed, so that the same code is compiled."""

WIDTHS = (64, 128)
"""Channels of the heads that are tried."""


class Candidate(NamedTuple):
    """Tiles of one kernel at one width, tried with windows (`edge`) or without."""

    kernel: str
    dim: int
    tiles: tuple[int, int, int, int]
    edge: bool = True

    def labels(self) -> dict[str, Any]:
        """The labels of its row."""
        return {"kind": "tiles", **self._asdict()}

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it the kernel takes these tiles, and the other kernels take theirs."""
        from genoattn.attention.kernels.configurations import Tiles, forced_tiles

        with forced_tiles(self.kernel, Tiles(*self.tiles)):
            yield


def every() -> Iterator[Candidate]:
    """All candidates, each with and without a window."""
    if DRY:
        yield Candidate("forward", 16, (16, 32, 4, 1))
        return
    from genoattn.attention.kernels.ahead_of_time.tune import CANDIDATES

    for kernel, listed in CANDIDATES.items():
        for dim, tiles in product(WIDTHS, listed):
            yield from (Candidate(kernel, dim, tiles, edge) for edge in (True, False))
