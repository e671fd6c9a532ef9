"""Words of k bases, one at every base or one after the other; what is no A, C, G or T is spelled letter by letter."""

from typing import final

import numpy as np
from jaxtyping import Int8, Integer, UInt8, UInt16

from genoattn.data.tokenizers.base import Encoded, Tokenizer, check_bases, id_dtype
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, UNKNOWN

FIRST = len(LETTERS) + 2


_LONGEST = 8


_PIECE = 16_384
"""Bases at a time: what is made of them stays in the cache."""


@final
class KmerTokenizer(Tokenizer):
    """Ids 0..16 are the letters, padding and a mask; k-mers of A, C, G, T follow in alphabetical order.

    Overlapping: token i owns base i and reads bases i … i+k-1 (DNABERT's way). Where those hold an ambiguous letter or
    lead beyond the end, it is the letter of base i alone, so that nothing is lost. Otherwise: chunks of k bases from
    `phase` on, each a token; a chunk with an ambiguous letter is spelled as letters and the frame after it kept (the
    Nucleotide Transformer's way), as are the bases before the first chunk and those at the end that fill none.
    """

    def __init__(self, k: int = 6, overlapping: bool = False):
        if not 1 <= k <= _LONGEST:
            raise UserError(f"tokenizer.k must lie within 1 and {_LONGEST} bases, got {k}")
        self.k, self.overlapping = k, overlapping
        self.vocabulary_size = FIRST + 4**k
        self.max_token_length, self.overlap, self.frame_count = (1, k - 1, 1) if overlapping else (k, 0, k)
        self._kind = id_dtype(self.vocabulary_size)

    def encode(self, bases: UInt8[np.ndarray, "length"], frame: int = 0) -> Encoded:
        """A token a base, whatever the phase, or a token a chunk, the first chunk beginning at base `phase`."""
        bases = np.ascontiguousarray(bases)
        clear = check_bases(bases) < 4
        if self.overlapping or self.k == 1:
            return self._at_every_base(bases, clear)
        return self._in_chunks(bases, frame, clear)

    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "length"]:
        """The codes of the bases that tokens own: of an overlapping k-mer the first, of any other all k."""
        if len(ids) and ids.max() >= self.vocabulary_size:
            raise ValueError(f"token {int(ids.argmax())} has id {ids.max()}; expected 0..{self.vocabulary_size - 1}")
        rows = self.token_bases()[ids]
        rows[ids == self.mask_id, 0] = UNKNOWN
        return rows[rows >= 0].astype(np.uint8)

    def token_bases(self) -> Int8[np.ndarray, "vocabulary span"]:
        codes = np.full((self.vocabulary_size, self.max_token_length), -1, np.int8)
        codes[: len(LETTERS), 0] = np.arange(len(LETTERS))
        numbers = np.arange(4**self.k)[:, None]
        codes[FIRST:] = numbers >> 2 * (self.k - 1 - np.arange(self.max_token_length)) & 3
        return codes

    def describe(self) -> dict[str, object]:
        own = {"k": self.k, "overlapping": self.overlapping}
        return {"_target_": "genoattn.data.tokenizers.kmer.KmerTokenizer", **own}

    def _at_every_base(self, bases: UInt8[np.ndarray, "length"], clear: bool) -> Encoded:
        ids = np.empty(len(bases), self._kind)
        whole = max(len(bases) - self.k + 1, 0)
        for start in range(0, whole, _PIECE):
            stop = min(start + _PIECE, whole)
            read = bases[start : stop + self.k - 1]
            np.add(_numbers(read, self.k), FIRST, out=ids[start:stop], dtype=self._kind, casting="unsafe")
            if not clear:
                _spell_out(ids[start:stop], read, self.k)
        ids[whole:] = bases[whole:]
        return Encoded(ids, np.arange(len(bases)))

    def _in_chunks(self, bases: UInt8[np.ndarray, "length"], phase: int, clear: bool) -> Encoded:
        k, length = self.k, len(bases)
        first = min(phase, length)
        last = first + (length - first) // k * k
        pieces = [Encoded(bases[:first].astype(self._kind), np.arange(first))]
        size = _PIECE // k * k
        for start in range(first, last, size):
            chunks = bases[start : min(start + size, last)].reshape(-1, k)
            ids = np.add(_number(chunks), FIRST, dtype=self._kind, casting="unsafe")
            made = Encoded(ids, np.arange(start, start + chunks.size, k))
            pieces.append(made if clear else _spell_chunks(made, chunks))
        pieces.append(Encoded(bases[last:].astype(self._kind), np.arange(last, length)))
        return Encoded(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def _numbers(bases: UInt8[np.ndarray, "length"], k: int) -> Integer[np.ndarray, "kmers"]:
    """The number of the k-mer at each base, of halves: bases of two bits, the first the most significant.

    Ambiguous letters give a number without meaning.
    """
    if k == 1:
        return bases & 3
    wide = np.uint16 if k > 4 else np.uint8
    if k % 2:
        shorter = _numbers(bases, k - 1)[:-1].astype(wide, copy=False)
        return shorter << 2 | bases[k - 1 :] & 3
    half = _numbers(bases, k // 2).astype(wide, copy=False)
    return half[: -k // 2] << k | half[k // 2 :]


def _number(chunks: UInt8[np.ndarray, "chunks k"]) -> UInt16[np.ndarray, "chunks"]:
    numbers = np.zeros(len(chunks), np.uint16)
    for column in chunks.T:
        numbers <<= 2
        numbers |= column & 3
    return numbers


def _spell_chunks(encoded: Encoded, chunks: UInt8[np.ndarray, "chunks k"]) -> Encoded:
    """The tokens of chunks, those with an ambiguous letter as k letters each."""
    count, k = chunks.shape
    unclear = np.zeros(count, np.bool_)
    unclear[np.flatnonzero(chunks.ravel() > 3) // k] = True
    if not unclear.any():
        return encoded
    places = np.arange(count) + (k - 1) * (np.cumsum(unclear) - unclear)
    ids, starts = (np.empty(count + (k - 1) * int(unclear.sum()), column.dtype) for column in encoded)
    ids[places], starts[places] = encoded
    first = places[unclear]
    for offset, letters in enumerate(chunks[unclear].T):
        ids[first + offset] = letters
        starts[first + offset] = encoded.token_starts[unclear] + offset
    return Encoded(ids, starts)


def _spell_out(ids: Integer[np.ndarray, "tokens"], bases: UInt8[np.ndarray, "read"], k: int) -> None:
    """Put letters where any of the k bases that a token reads is ambiguous."""
    unclear = bases > 3
    if unclear.any():
        spelled = np.logical_or.reduce([unclear[at : at + len(ids)] for at in range(k)])
        ids[spelled] = bases[: len(ids)][spelled]
