"""Tiles of the softmax kernels on sm_90 that may be faster than those that ship; each is checked, then timed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks.gpu.record import DRY

HEADS = 1 if DRY else 16
"""Heads of a case; as many when checked as when timed, so that the same code is compiled."""

TABLE: dict[tuple[str, int], tuple[tuple[int, int, int, int], ...]] = {
    ("forward", 64): ((128, 64, 4, 3), (64, 128, 4, 3), (64, 64, 4, 3), (128, 64, 4, 4), (128, 128, 8, 2)),
    ("forward", 128): ((64, 64, 4, 3), (128, 64, 8, 3), (64, 128, 4, 2), (128, 128, 8, 3), (64, 64, 4, 2)),
    ("dq", 64): ((64, 64, 4, 3), (64, 64, 4, 2), (64, 128, 4, 2), (128, 64, 8, 3)),
    ("dq", 128): ((64, 64, 4, 2), (64, 128, 8, 2), (64, 32, 4, 3), (128, 32, 8, 3)),
    ("dkv", 64): ((64, 64, 4, 3), (64, 64, 4, 2), (64, 128, 8, 3), (32, 64, 4, 3), (128, 64, 4, 2)),
    ("dkv", 128): ((32, 128, 8, 2), (64, 64, 8, 2), (64, 128, 8, 2), (64, 64, 4, 2), (32, 64, 4, 2)),
}
"""Queries, keys, warps and stages by kernel and width of a head."""


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
    for (kernel, dim), listed in TABLE.items():
        for tiles in listed:
            yield from (Candidate(kernel, dim, tiles, edge) for edge in (True, False))
