"""One token per base: the fifteen IUPAC letters, padding and a mask."""

from typing import final

import numpy as np
from jaxtyping import Int8, UInt8

from genoattn.data.tokenizers.base import FIRST_WORD, Encoded, Tokenizer, check_ids
from genoattn.errors import UserError
from genoattn.genome.alphabet import ILLEGAL, LETTERS, UNKNOWN


@final
class NucleotideTokenizer(Tokenizer):
    """Ids 0..14 are the codes of the bases, 15 is padding, 16 the mask; token i starts at base i."""

    vocabulary_size = FIRST_WORD

    def __init__(self, unknown: str = "keep"):
        """Build the tokenizer.

        Args:
            unknown: Ambiguous letters: "keep" gives each its own id, "merge" reads all of them as N.

        Raises:
            UserError: `unknown` is another word.
        """
        if unknown not in ("keep", "merge"):
            raise UserError(f"tokenizer.unknown must be 'keep' or 'merge', got {unknown!r}")
        self.unknown = unknown
        codes = np.arange(len(LETTERS), dtype=np.uint8)
        self._ids = _table(np.where(codes < 4, codes, np.uint8(UNKNOWN)) if unknown == "merge" else codes)
        self._codes = _table(np.append(codes, np.array([ILLEGAL, UNKNOWN], np.uint8)))

    def encode(self, bases: UInt8[np.ndarray, "length"], frame: int = 0) -> Encoded:
        ids = _look_up(bases, self._ids)
        if len(ids) and ids.max() == ILLEGAL:
            position = int(ids.argmax())
            raise ValueError(f"base {position} has code {bases[position]}; expected 0..{len(LETTERS) - 1}")
        return Encoded(ids, np.arange(len(bases)))

    def decode(self, ids: UInt8[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "length"]:
        check_ids(ids, self.vocabulary_size)
        return _look_up(ids[ids != self.pad_id], self._codes)

    def token_bases(self) -> Int8[np.ndarray, "vocabulary token_length"]:
        codes = np.arange(self.vocabulary_size, dtype=np.int8)
        return np.where(codes < len(LETTERS), codes, -1)[:, None].astype(np.int8)

    def describe(self) -> dict[str, object]:
        return {"_target_": "genoattn.data.tokenizers.nucleotide.NucleotideTokenizer", "unknown": self.unknown}


def _table(values: UInt8[np.ndarray, "codes"]) -> bytes:
    return values.tobytes().ljust(256, bytes([ILLEGAL]))


def _look_up(codes: UInt8[np.ndarray, "length"], table: bytes) -> UInt8[np.ndarray, "length"]:
    # bytes.translate makes one pass; indexing an array by bytes would first widen every base to eight bytes.
    return np.frombuffer(bytearray(codes).translate(table), np.uint8)
