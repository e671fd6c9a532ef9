"""Tiles, warps and stages of every kernel by architecture, width and mode.

Those of flash attention that were timed on a GPU, by `genoattn kernels tune=true`, stand in timed_tiles.json with card
and date. All others were chosen by the register use that the compiler reports.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from genoattn.errors import UserError


class Tiles(NamedTuple):
    """Queries and keys of a tile of a kernel, warps of a program, stages of its pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


class Chunks(NamedTuple):
    """Tokens of a chunk of linear attention, most channels that a program computes at a time, its warps.

    `spread` and `narrow` are the warps and the most channels of kernels that hold more tiles than the others.
    """

    tokens: int
    block: int
    warps: int
    spread: int = 8
    narrow: int = 32


INTERPRETED, INTERPRETED_CHUNKS = Tiles(32, 32, 4, 1), Chunks(64, 64, 4)
"""Small tiles, so that a test of a hundred tokens has full tiles, edge tiles and invisible tiles."""


def power_of_two(channels: int) -> int:
    """Width of a tile for so many channels: the next power of two, at least 16."""
    return max(16, 1 << (channels - 1).bit_length())


FLASH = {
    ("sm_80", 2): {
        "forward": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 128, 8, 3), 128: Tiles(128, 64, 8, 3)},
        "dq": {32: Tiles(64, 64, 4, 3), 64: Tiles(128, 64, 8, 2), 128: Tiles(64, 64, 8, 2)},
        "dkv": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 128, 8, 2), 128: Tiles(32, 64, 8, 2)},
    },
    ("sm_86", 2): {
        "forward": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 128, 8, 3), 128: Tiles(128, 64, 8, 2)},
        "dq": {32: Tiles(64, 64, 4, 3), 64: Tiles(128, 64, 8, 2), 128: Tiles(64, 64, 8, 2)},
        "dkv": {32: Tiles(64, 64, 4, 2), 64: Tiles(64, 128, 8, 2), 128: Tiles(64, 64, 8, 2)},
    },
    ("sm_90", 2): {
        "forward": {32: Tiles(128, 64, 4, 3), 64: Tiles(128, 64, 4, 3), 128: Tiles(128, 128, 8, 2)},
        "dq": {32: Tiles(128, 64, 4, 3), 64: Tiles(64, 64, 4, 3), 128: Tiles(128, 64, 8, 2)},
        "dkv": {32: Tiles(64, 64, 4, 3), 64: Tiles(64, 64, 4, 3), 128: Tiles(32, 128, 8, 2)},
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
entry is missing, all its candidates spilled. Those of sm_90 for heads of 64 let two programs or more share a
multiprocessor, whose products and softmax then overlap. None has been timed."""


NARROW = 512
"""Keys of a window on both sides together below which it is narrow: small tiles, all of them with a mask."""


OF_MODE = {
    (family, 2, kernel, "marked"): tiles
    for family in ("sm_80", "sm_86")
    for kernel, tiles in {
        "forward": {128: Tiles(128, 32, 8, 3)},
        "dkv": {32: Tiles(32, 64, 4, 2), 64: Tiles(32, 128, 8, 2), 128: Tiles(32, 64, 8, 2)},
    }.items()
}
"""Other tiles than those of FLASH by mode: `marked` with padding or segments, which need more loops and masks; `narrow`
for narrow windows, of which large tiles would hold little."""


OF_MODE |= {
    (family, 2, kernel, "narrow"): tiles
    for family in ("sm_90", "sm_100")
    for kernel, tiles in {
        "forward": dict.fromkeys((32, 64, 128) if family == "sm_90" else (32, 64), Tiles(64, 64, 4, 3)),
        "dq": dict.fromkeys((32, 64), Tiles(64, 64, 4, 3)),
        "dkv": dict.fromkeys((32, 64), Tiles(64, 64, 4, 3)),
    }.items()
}


TIMED = Path(__file__).with_name("timed_tiles.json")
"""By family: card, date, version of triton, and by `tile_key` the tiles and their milliseconds."""


@lru_cache(maxsize=1)
def timed_tiles() -> Mapping[str, Any]:
    """The table of tiles that were timed; empty if none were."""
    return json.loads(TIMED.read_text("utf-8")) if TIMED.exists() else {}


def tile_key(kernel: str, dim: int, itemsize: int, mode: str) -> str:
    """The name of a row of the table of timed tiles."""
    return f"{kernel} {8 * itemsize} bit, heads of {max(dim, 32)}, {mode}"


_forced: dict[str, Tiles] = {}


@contextmanager
def forced_tiles(kernel: str, tiles: Tiles) -> Iterator[None]:
    """Give a kernel of flash attention these tiles inside, to time or to test them."""
    _forced[kernel] = tiles
    try:
        yield
    finally:
        del _forced[kernel]


def flash_tiles(
    kernel: str, family: str, dim: int, itemsize: int, mode: str = "plain", interpreted: bool = False
) -> Tiles:
    """Tiles of the forward, dq or dkv kernel for heads of `dim` (a power of two) in numbers of `itemsize` bytes.

    Heads of 16 take the tiles of 32. `mode` is plain, narrow or marked, as in OF_MODE.

    Raises:
        UserError: No tiles without spills are known.
    """
    if kernel in _forced:
        return _forced[kernel]
    if interpreted:
        return INTERPRETED
    timed = timed_tiles().get(family, {}).get("tiles", {}).get(tile_key(kernel, dim, itemsize, mode))
    if timed:
        return Tiles(*timed["tiles"])
    width = max(dim, 32)
    special = OF_MODE.get((family, itemsize, kernel, mode), {})
    tiles = special.get(width) or FLASH[family, itemsize][kernel].get(width)
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
    ("sm_80", 2): {32: Chunks(64, 32, 4, 8, 16), 64: Chunks(32, 64, 4)},
    ("sm_90", 2): {32: Chunks(64, 32, 4, 8, 16), 64: Chunks(64, 64, 4)},
    ("sm_100", 2): {32: Chunks(64, 32, 8, 8, 16), 64: Chunks(64, 64, 8)},
    ("gfx942", 2): {32: Chunks(64, 32, 4, 8, 16), 64: Chunks(64, 64, 4)},
    ("sm_80", 4): {32: Chunks(32, 32, 4, 16, 16), 64: Chunks(32, 32, 4)},
}


CHUNKS["sm_86", 2] = CHUNKS["sm_80", 2]


CHUNKS |= {(family, 4): CHUNKS["sm_80", 4] for family in ("sm_86", "sm_90", "sm_100", "gfx942")}


def linear_chunks(family: str, dim: int, itemsize: int) -> Chunks:
    """Chunks of the kernels of linear attention, as in `flash_tiles`; `dim` is the wider of keys and values."""
    return CHUNKS[family, itemsize][32 if dim <= 32 else 64]
