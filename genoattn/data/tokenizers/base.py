"""The contract of a tokenizer: from bases to token ids and the base at which each token starts, and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int8, Integer, UInt8

from genoattn.genome.alphabet import LETTERS


def id_dtype(vocabulary: int) -> np.dtype:
    """The smallest kind of integer that holds ids below `vocabulary` and that torch reckons with."""
    return np.dtype(next((kind for kind in (np.uint8, np.int16) if vocabulary - 1 <= np.iinfo(kind).max), np.int32))


def check_bases(bases: UInt8[np.ndarray, "length"]) -> int:
    """The highest code among bases, 0 where there are none; raises ValueError where one is no base."""
    highest = int(bases.max(initial=0))
    if highest >= len(LETTERS):
        raise ValueError(f"base {int(bases.argmax())} has code {highest}; expected 0..{len(LETTERS) - 1}")
    return highest


class Encoded(NamedTuple):
    """The tokens of a window: an id each, and the base (0-based, of the window) at which each starts.

    Token i owns the bases from its start to the next token's; every base is owned by one token.
    """

    ids: Integer[np.ndarray, "tokens"]
    token_starts: Int[np.ndarray, "tokens"]


class Tokenizer(ABC):
    """Ids 0..14 are single bases, the fifteen IUPAC letters; 15 is padding, 16 a mask; longer tokens follow."""

    letters = LETTERS
    pad_id = len(LETTERS)
    mask_id = len(LETTERS) + 1
    vocabulary_size: int
    """How many ids there are."""
    max_token_length: int = 1
    """The most bases that a token owns."""
    overlap: int = 0
    """How many bases a token reads beyond those it owns."""
    frame_count: int = 1
    """In how many frames the same bases can be read."""
    trained: bool = True
    """False while `train` has to be called before anything else."""

    @abstractmethod
    def encode(self, bases: UInt8[np.ndarray, "length"], frame: int = 0) -> Encoded:
        """Tokens of bases of codes 0..14; the first `phase` of them stand alone, which moves the frame."""

    @abstractmethod
    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "length"]:
        """The codes of the bases that tokens own, N for a mask; padding is dropped."""

    @abstractmethod
    def token_bases(self) -> Int8[np.ndarray, "vocabulary span"]:
        """The codes of the bases that each id owns, -1 beyond them."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """The `_target_` and settings that build the same tokenizer again, as plain values."""

    def train(self, sequences: Iterable[UInt8[np.ndarray, "_"]]) -> None:
        """Learn the vocabulary from stretches of a genome, where there is something to learn."""
        raise ValueError(f"{type(self).__name__} has nothing to learn")
