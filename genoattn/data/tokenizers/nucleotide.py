"""One token a base: the fifteen IUPAC letters as they stand, padding, and a mask."""

from typing import final

import numpy as np
from jaxtyping import Int8, UInt8

from genoattn.data.tokenizers.base import Encoded, Tokenizer
from genoattn.errors import UserError
from genoattn.genome.alphabet import COMPLEMENT, LETTERS, UNKNOWN

_ILLEGAL = 255


@final
class NucleotideTokenizer(Tokenizer):
    """Ids 0..14 are the codes of the bases, 15 is padding, 16 a mask.

    `unknown` says what becomes of letters that stand for several bases: "keep" gives each its own id, "merge" makes N
    of them all.
    """

    vocabulary_size = len(LETTERS) + 2
    complement: UInt8[np.ndarray, "vocabulary_size"] = np.append(
        COMPLEMENT, np.array([Tokenizer.pad_id, Tokenizer.mask_id], np.uint8)
    )

    def __init__(self, unknown: str = "keep"):
        if unknown not in ("keep", "merge"):
            raise UserError(f"tokenizer.unknown must be 'keep' or 'merge', got {unknown!r}")
        self.unknown = unknown
        codes = np.arange(len(LETTERS), dtype=np.uint8)
        ids = np.where(codes < 4, codes, np.uint8(UNKNOWN)) if unknown == "merge" else codes
        self._ids = _table(ids)
        self._codes = _table(np.append(codes, np.array([_ILLEGAL, UNKNOWN], np.uint8)))

    def encode(self, bases: UInt8[np.ndarray, "length"], frame: int = 0) -> Encoded:
        """A token for each base of codes 0..14; token i starts at base i, in every phase."""
        ids = _look_up(bases, self._ids)
        if len(ids) and ids.max() == _ILLEGAL:
            at = int(ids.argmax())
            raise ValueError(f"base {at} has code {bases[at]}; expected 0..{len(LETTERS) - 1}")
        return Encoded(ids, np.arange(len(bases)))

    def decode(self, ids: UInt8[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "length"]:
        """The codes of the bases that tokens stand for, N for a mask; padding is dropped."""
        if len(ids) and ids.max() >= self.vocabulary_size:
            raise ValueError(f"token {int(ids.argmax())} has id {ids.max()}; expected 0..{self.vocabulary_size - 1}")
        return _look_up(ids[ids != self.pad_id], self._codes)

    def reverse_complement(self, ids: UInt8[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "tokens"]:
        """The other strand, read 5' to 3'; padding and masks come to the other end unchanged."""
        return self.complement[ids[::-1]]

    def token_bases(self) -> Int8[np.ndarray, "vocabulary span"]:
        codes = np.arange(self.vocabulary_size, dtype=np.int8)
        return np.where(codes < len(LETTERS), codes, -1)[:, None].astype(np.int8)

    def describe(self) -> dict[str, object]:
        return {"_target_": "genoattn.data.tokenizers.nucleotide.NucleotideTokenizer", "unknown": self.unknown}


def _table(values: UInt8[np.ndarray, "codes"]) -> bytes:
    return values.tobytes().ljust(256, bytes([_ILLEGAL]))


def _look_up(codes: UInt8[np.ndarray, "length"], table: bytes) -> UInt8[np.ndarray, "length"]:
    # translate makes one pass; indexing an array by bytes would first widen every base to eight bytes.
    return np.frombuffer(bytearray(codes).translate(table), np.uint8)
