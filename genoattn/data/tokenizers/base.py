"""The contract of a tokenizer: bases become token ids, and each token says at which base it starts."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int8, Integer, UInt8

from genoattn.genome.alphabet import LETTERS

FIRST_WORD = len(LETTERS) + 2
"""The first id after the letters, padding and the mask."""


def id_dtype(vocabulary: int) -> np.dtype:
    """The smallest integer type that holds ids below `vocabulary` and that torch can compute with."""
    return np.dtype(next((kind for kind in (np.uint8, np.int16) if vocabulary - 1 <= np.iinfo(kind).max), np.int32))


def check_bases(bases: UInt8[np.ndarray, "length"]) -> int:
    """The highest code among bases, 0 if there are none; raises ValueError if a code is not 0..14."""
    highest = int(bases.max(initial=0))
    if highest >= len(LETTERS):
        raise ValueError(f"base {int(bases.argmax())} has code {highest}; expected 0..{len(LETTERS) - 1}")
    return highest


def check_ids(ids: Integer[np.ndarray, "tokens"], vocabulary: int) -> None:
    """Raises ValueError if an id is not below `vocabulary`."""
    if len(ids) and ids.max() >= vocabulary:
        raise ValueError(f"token {int(ids.argmax())} has id {ids.max()}; expected 0..{vocabulary - 1}")


class Encoded(NamedTuple):
    """The tokens of a sequence.

    Token i owns the bases from its start to the start of token i + 1; every base is owned by one token.

    Attributes:
        ids: The id of each token.
        token_starts: The base (0-based) at which each token starts.
    """

    ids: Integer[np.ndarray, "tokens"]
    token_starts: Int[np.ndarray, "tokens"]


class Tokenizer(ABC):
    """Ids 0..14 are single bases, the fifteen IUPAC letters; 15 is padding, 16 the mask; longer tokens follow.

    Attributes:
        vocabulary_size: Number of ids.
        max_token_length: Most bases that a token owns.
        overlap: Bases that a token reads beyond those that it owns.
        frame_count: Number of frames in which the same bases can be read.
        trained: False if `train` has to be called before `encode`.
    """

    letters = LETTERS
    pad_id = len(LETTERS)
    mask_id = len(LETTERS) + 1
    vocabulary_size: int
    max_token_length: int = 1
    overlap: int = 0
    frame_count: int = 1
    trained: bool = True

    @abstractmethod
    def encode(self, bases: UInt8[np.ndarray, "length"], frame: int = 0) -> Encoded:
        """Tokens of a sequence.

        Args:
            bases: Codes 0..14, `[length]`.
            frame: The first `frame` bases become a token each, so that longer tokens begin after them.

        Returns:
            Ids and starts of the tokens, `[tokens]` each.

        Raises:
            ValueError: A code is not 0..14, or the tokenizer is not trained.
        """

    @abstractmethod
    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "length"]:
        """The codes of the bases that tokens own, N for a mask; padding is dropped."""

    @abstractmethod
    def token_bases(self) -> Int8[np.ndarray, "vocabulary token_length"]:
        """The codes of the bases that each id owns, filled up with -1: `[vocabulary, max_token_length]`."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """The `_target_` and the settings that build the same tokenizer again, as plain values."""

    def train(self, sequences: Iterable[UInt8[np.ndarray, "_"]]) -> None:
        """Learn the vocabulary from sequences of a genome; raises ValueError if there is nothing to learn."""
        raise ValueError(f"{type(self).__name__} has nothing to learn")
