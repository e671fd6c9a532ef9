"""Tiles, warps and stages of every kernel by architecture: chosen by the register use that the compiler reports."""

from typing import NamedTuple

from genoattn.errors import UserError


class Tiles(NamedTuple):
    """Queries and keys of a tile of a kernel, warps of a program, stages of its pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


class Chunks(NamedTuple):
    """Tokens of a chunk of linear attention, warps of a program."""

    tokens: int
    warps: int


INTERPRETED, INTERPRETED_CHUNKS = Tiles(32, 32, 4, 1), Chunks(64, 4)
"""Small tiles, so that a test of a hundred tokens has full tiles, edge tiles and invisible tiles."""


def power_of_two(channels: int) -> int:
    """Width of a tile for so many channels: the next power of two, at least 16."""
    return max(16, 1 << (channels - 1).bit_length())


FLASH = {
    ("sm_80", 2): {
        "forward": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 128, 8, 3), 128: Tiles(128, 64, 8, 3)},
        "dq": {32: Tiles(64, 64, 4, 3), 64: Tiles(128, 64, 8, 2), 128: Tiles(64, 64, 8, 2)},
        "dkv": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 128, 8, 2), 128: Tiles(64, 64, 8, 2)},
    },
    ("sm_86", 2): {
        "forward": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 128, 8, 3), 128: Tiles(128, 64, 8, 2)},
        "dq": {32: Tiles(64, 64, 4, 3), 64: Tiles(128, 64, 8, 2), 128: Tiles(64, 64, 8, 2)},
        "dkv": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 128, 8, 2), 128: Tiles(64, 64, 8, 2)},
    },
    ("sm_90", 2): {
        "forward": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 128, 8, 3), 128: Tiles(128, 128, 8, 2)},
        "dq": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 64, 8, 2), 128: Tiles(128, 64, 8, 2)},
        "dkv": {32: Tiles(64, 64, 4, 3), 64: Tiles(64, 128, 8, 2), 128: Tiles(32, 64, 8, 2)},
    },
    ("sm_100", 2): {
        "forward": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 128, 8, 3), 128: Tiles(128, 128, 8, 2)},
        "dq": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 64, 8, 2), 128: Tiles(128, 64, 8, 2)},
        "dkv": {32: Tiles(64, 64, 4, 3), 64: Tiles(64, 128, 8, 2), 128: Tiles(64, 128, 8, 2)},
    },
    ("gfx942", 2): {
        "forward": {32: Tiles(128, 64, 8, 2), 64: Tiles(128, 64, 8, 2), 128: Tiles(64, 64, 4, 2)},
        "dq": {32: Tiles(128, 64, 8, 2), 64: Tiles(64, 64, 4, 2), 128: Tiles(64, 64, 4, 2)},
        "dkv": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 64, 4, 2), 128: Tiles(32, 64, 4, 2)},
    },
    ("sm_80", 4): {
        "forward": {32: Tiles(64, 32, 4, 2), 64: Tiles(32, 32, 4, 2), 128: Tiles(16, 32, 4, 2)},
        "dq": {32: Tiles(64, 32, 4, 2), 64: Tiles(32, 32, 8, 1)},
        "dkv": {32: Tiles(16, 64, 4, 2), 64: Tiles(32, 32, 8, 2)},
    },
    ("sm_90", 4): {
        "forward": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 32, 4, 2), 128: Tiles(16, 16, 4, 2)},
        "dq": {32: Tiles(64, 64, 8, 2), 64: Tiles(64, 16, 4, 2)},
        "dkv": {32: Tiles(32, 64, 8, 2), 64: Tiles(32, 16, 4, 2)},
    },
    ("sm_100", 4): {
        "forward": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 64, 8, 2), 128: Tiles(16, 16, 4, 2)},
        "dq": {32: Tiles(64, 64, 8, 2), 64: Tiles(64, 32, 8, 2)},
        "dkv": {32: Tiles(32, 64, 8, 2), 64: Tiles(32, 64, 8, 2)},
    },
}


FLASH["sm_86", 4] = FLASH["gfx942", 4] = FLASH["sm_80", 4]
"""By family and bytes of a number, kernel and width: the first candidate without spills, compiled by triton 3.7.1
for bfloat16 or float32 (as three TF32 products), full, causal, windowed both ways and causal with padding. If an
entry is missing, all its candidates spilled. None has been timed."""


FLASH_MARKED = {
    (family, 2, "dkv"): {32: Tiles(32, 64, 4, 2), 64: Tiles(32, 128, 8, 2)} for family in ("sm_80", "sm_86")
}
"""Other tiles, where padding or segments give the kernel more loops and masks: those of FLASH spill there."""


def flash_tiles(kernel: str, family: str, dim: int, itemsize: int, marked: bool = False) -> Tiles:
    """Tiles of the forward, dq or dkv kernel for heads of `dim` (a power of two) in numbers of `itemsize` bytes.

    Heads of 16 take the tiles of 32. `marked`: tokens have marks of padding or segments.

    Raises:
        UserError: No tiles without spills are known.
    """
    known = FLASH[family, itemsize][kernel]
    special = FLASH_MARKED.get((family, itemsize, kernel), {}) if marked else {}
    tiles = special.get(max(dim, 32)) or known.get(max(dim, 32))
    if tiles is None:
        raise _no_tiles(kernel, family, dim, itemsize)
    return tiles


def _no_tiles(kernel: str, family: str, dim: int, itemsize: int) -> UserError:
    return UserError(
        f"the {kernel} kernel has no tiles for heads of {dim} channels in numbers of {itemsize} bytes on {family} that "
        "keep within its registers; use float16 or bfloat16"
    )


BLOCKS = {
    ("sm_80", 2): {
        "forward": {32: Tiles(64, 32, 4, 2), 64: Tiles(64, 32, 4, 2), 128: Tiles(64, 32, 4, 2)},
        "dq": {32: Tiles(64, 32, 4, 2), 64: Tiles(64, 32, 4, 2), 128: Tiles(64, 32, 4, 2)},
        "dkv": {32: Tiles(64, 64, 4, 2), 64: Tiles(32, 64, 4, 2), 128: Tiles(64, 32, 4, 2)},
    },
    ("sm_90", 2): {
        "forward": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 64, 4, 2), 128: Tiles(64, 32, 4, 2)},
        "dq": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 64, 4, 2), 128: Tiles(64, 32, 4, 2)},
        "dkv": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 64, 4, 2), 128: Tiles(64, 32, 4, 2)},
    },
    ("sm_80", 4): {
        "forward": {32: Tiles(16, 32, 4, 2), 64: Tiles(16, 32, 4, 2)},
        "dq": {32: Tiles(16, 32, 4, 2), 64: Tiles(16, 32, 4, 2)},
        "dkv": {32: Tiles(16, 16, 4, 2), 64: Tiles(16, 16, 4, 2)},
    },
}


BLOCKS |= {(family, 2): BLOCKS["sm_80", 2] for family in ("sm_86", "gfx942")} | {("sm_100", 2): BLOCKS["sm_90", 2]}


BLOCKS |= {(family, 4): BLOCKS["sm_80", 4] for family in ("sm_86", "sm_90", "sm_100", "gfx942")}


def block_tiles(kernel: str, family: str, dim: int, itemsize: int) -> Tiles:
    """Tiles, as in `flash_tiles`, of the kernels over lists of key blocks; a tile has at most one query block."""
    tiles = BLOCKS[family, itemsize][kernel].get(max(dim, 32))
    if tiles is None:
        raise _no_tiles(kernel, family, dim, itemsize)
    return tiles


CHUNKS = {
    ("sm_80", 2): {32: Chunks(64, 4), 64: Chunks(32, 4), 128: Chunks(16, 8)},
    ("sm_90", 2): {32: Chunks(64, 4), 64: Chunks(64, 4), 128: Chunks(16, 8)},
    ("sm_100", 2): {32: Chunks(64, 8), 64: Chunks(64, 8), 128: Chunks(16, 8)},
    ("gfx942", 2): {32: Chunks(64, 4), 64: Chunks(64, 4)},  # heads of 128 exceed its 64 KiB of shared memory
    ("sm_80", 4): {32: Chunks(32, 4), 64: Chunks(32, 8)},
}


CHUNKS["sm_86", 2] = CHUNKS["sm_80", 2]


CHUNKS |= {(family, 4): CHUNKS["sm_80", 4] for family in ("sm_86", "sm_90", "sm_100", "gfx942")}


def linear_chunks(family: str, dim: int, itemsize: int) -> Chunks:
    """Chunks of the kernels of linear attention, as in `flash_tiles`; `dim` is the larger of keys and values."""
    chunks = CHUNKS[family, itemsize].get(max(dim, 32))
    if chunks is None:
        raise _no_tiles("linear", family, dim, itemsize)
    return chunks
