"""The ways in which every kind of input is packed, damaged and refused."""

import gzip
import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from Bio import bgzf

from genoattn.errors import UserError

T = TypeVar("T")

Files: TypeAlias = dict[str, bytes]
"""An input: the content of each file by its name."""

Maker: TypeAlias = Callable[[np.random.Generator], Files]
"""Makes an input."""

Trial: TypeAlias = Callable[[Path], str]
"""Tries the input that lies in a folder and returns its outcome.

UserError means that the input is refused; any other error is a fault.
"""

BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
LONGEST_SENTENCE = 2_000
ODD = (
    [bytes([code]) for code in (0, 1, 7, 8, 9, 10, 11, 12, 13, 27, 28, 29, 30, 31, 32, 34, 39, 44, 127, 133, 160, 255)]
    + [letter.encode() for letter in "éà²٣\ufeff\u2028"]
    + [b"\r\n", b"\n\n", b"\t\t", b" \t", b"\r\r\n", b"[/b]", b"<script>", b"${x}", b"%s", b"\x1b[31m", b"'\"", b"\\"]
    + [b"-1", b"+5", b"1e9", b"0x10", b"NaN", b"Infinity", b"9" * 19, b"9" * 40, b"9" * 5000, b"x" * 1000]
)
"""Pieces of text that programs stumble over."""


class Wrong(AssertionError):
    """An input that was read as something else than what it holds."""


class Kind(NamedTuple):
    """A kind of input: its name, its share of all inputs, and what prepares a folder for it."""

    name: str
    share: float
    prepare: Callable[[Path], tuple[Maker, Trial]]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with a probability."""
    return rng.random() < probability


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of several values."""
    return choices[int(rng.integers(len(choices)))]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a line."""
    return tuple(text.split())


def letters(rng: np.random.Generator, alphabet: bytes, length: int) -> bytes:
    """Random letters of an alphabet."""
    return np.frombuffer(alphabet, np.uint8)[rng.integers(len(alphabet), size=length)].tobytes()


def place(rng: np.random.Generator, content: bytes) -> int:
    """A place in a content, its end included."""
    return int(rng.integers(len(content) + 1))


def damage(rng: np.random.Generator, content: bytes) -> bytes:
    """The content with flipped bits, or with a part cut off, left out, doubled or overwritten."""
    start, length = place(rng, content), int(rng.integers(1, 30))
    stop = start + length
    match int(rng.integers(7)):
        case 0:
            return content[:start]
        case 1:
            return content[:start] + content[stop:]
        case 2:
            return content[:stop] + content[start:]
        case 3:
            return content[:start] + pick(rng, [b"\0", b"\xff"]) * len(content[start:stop]) + content[stop:]
        case 4:
            return content[:start] + rng.bytes(length) + content[start:]
        case _:
            bent = bytearray(content)
            for _ in range(int(rng.integers(1, 9)) if content else 0):
                bent[int(rng.integers(len(bent)))] ^= 1 << int(rng.integers(8))
            return bytes(bent)


def insert_odd(rng: np.random.Generator, text: bytes, pieces: Sequence[bytes] = ODD) -> bytes:
    """The text with one to three pieces inserted, or put in the place of a letter."""
    for _ in range(int(rng.integers(1, 4))):
        start = place(rng, text)
        text = text[:start] + pick(rng, pieces) + text[start + int(rng.integers(2)) :]
    return text


def pack(rng: np.random.Generator, text: bytes) -> bytes:
    """The text plain, or packed by gzip, gzip twice in a row, or bgzip; damaged one time in six."""
    match int(rng.integers(10)):
        case 0 | 1:
            content = gzip.compress(text, 1)
        case 2:
            half = place(rng, text)
            content = gzip.compress(text[:half], 1) + gzip.compress(text[half:], 1)
        case 3 | 4:
            content = bgzip(text)
            content = content[: -len(BGZIP_END)] if chance(rng, 0.1) else content
        case _:
            content = text
    return damage(rng, content) if chance(rng, 1 / 6) else content


def bgzip(text: bytes) -> bytes:
    """The text as bgzip packs it."""
    memory = io.BytesIO()
    memory.close = lambda: None  # type: ignore[method-assign]  (the writer closes it before it can be read)
    with bgzf.BgzfWriter(fileobj=memory, compresslevel=1) as file:
        file.write(text)
    return memory.getvalue()


def unpack(content: bytes) -> bytes | None:
    """The text of a file as the gzip of this process's library reads it; None if it is damaged."""
    if content[:2] != b"\x1f\x8b":
        return content
    if content[12:16] == b"BC\2\0" and not content.endswith(BGZIP_END):
        return None
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return None


def is_sentence(error: UserError) -> bool:
    """True if the message is one line and not a repetition of the input."""
    message = str(error)
    return bool(message) and "\n" not in message and len(message) <= LONGEST_SENTENCE
