"""Tokens of k bases (k-mers): one at every base, or one after the other."""

from typing import final

import numpy as np
from jaxtyping import Int8, Integer, UInt8

from genoattn.data.tokenizers.base import FIRST_WORD, Encoded, Tokenizer, check_bases, check_ids, id_dtype
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, UNKNOWN, ambiguous_kmers, packed_kmers

MAX_K = 8

CHUNK = 16_384
"""Bases that are encoded at a time: the arrays of so many stay in the processor's cache."""


@final
class KmerTokenizer(Tokenizer):
    """Ids 0..16 are the letters, padding and the mask; the k-mers of A, C, G, T follow in alphabetical order.

    Overlapping (DNABERT): token i owns base i and reads bases [i, i + k). If these hold an ambiguous letter or run
    beyond the end, the token is the letter of base i alone. Not overlapping (Nucleotide Transformer): from base `frame`
    on, every k bases are a token. A k-mer with an ambiguous letter becomes k tokens of a letter each, and so do the
    bases before the first k-mer and after the last.
    """

    def __init__(self, k: int = 6, overlapping: bool = False):
        """Build the tokenizer.

        Args:
            k: Bases of a token, 1 to 8.
            overlapping: One token per base instead of one per k bases.

        Raises:
            UserError: `k` is out of range.
        """
        if not 1 <= k <= MAX_K:
            raise UserError(f"tokenizer.k must lie within 1 and {MAX_K} bases, got {k}")
        self.k, self.overlapping = k, overlapping
        self.vocabulary_size = FIRST_WORD + 4**k
        self.max_token_length, self.overlap, self.frame_count = (1, k - 1, 1) if overlapping else (k, 0, k)
        self._dtype = id_dtype(self.vocabulary_size)

    def encode(self, bases: UInt8[np.ndarray, "length"], frame: int = 0) -> Encoded:
        bases = np.ascontiguousarray(bases)
        unambiguous = check_bases(bases) < 4
        if self.overlapping or self.k == 1:
            return self._encode_overlapping(bases, unambiguous)
        return self._encode_in_steps(bases, frame, unambiguous)

    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "length"]:
        check_ids(ids, self.vocabulary_size)
        rows = self.token_bases()[ids]
        rows[ids == self.mask_id, 0] = UNKNOWN
        return rows[rows >= 0].astype(np.uint8)

    def token_bases(self) -> Int8[np.ndarray, "vocabulary token_length"]:
        codes = np.full((self.vocabulary_size, self.max_token_length), -1, np.int8)
        codes[: len(LETTERS), 0] = np.arange(len(LETTERS))
        numbers = np.arange(4**self.k)[:, None]
        codes[FIRST_WORD:] = numbers >> 2 * (self.k - 1 - np.arange(self.max_token_length)) & 3
        return codes

    def describe(self) -> dict[str, object]:
        settings = {"k": self.k, "overlapping": self.overlapping}
        return {"_target_": "genoattn.data.tokenizers.kmer.KmerTokenizer", **settings}

    def _ids(self, codes: Integer[np.ndarray, "kmers"]) -> Integer[np.ndarray, "kmers"]:
        return np.add(codes, FIRST_WORD, dtype=self._dtype, casting="unsafe")

    def _encode_overlapping(self, bases: UInt8[np.ndarray, "length"], unambiguous: bool) -> Encoded:
        ids = np.empty(len(bases), self._dtype)
        kmers = max(len(bases) - self.k + 1, 0)
        for start in range(0, kmers, CHUNK):
            stop = min(start + CHUNK, kmers)
            read = bases[start : stop + self.k - 1]
            ids[start:stop] = self._ids(packed_kmers(read, self.k))
            if not unambiguous:
                spelled = ambiguous_kmers(read, self.k)
                ids[start:stop][spelled] = bases[start:stop][spelled]
        ids[kmers:] = bases[kmers:]
        return Encoded(ids, np.arange(len(bases)))

    def _encode_in_steps(self, bases: UInt8[np.ndarray, "length"], frame: int, unambiguous: bool) -> Encoded:
        k, length = self.k, len(bases)
        first = min(frame, length)
        last = first + (length - first) // k * k
        pieces = [Encoded(bases[:first].astype(self._dtype), np.arange(first))]
        size = CHUNK // k * k
        for start in range(first, last, size):
            chunk = bases[start : min(start + size, last)]
            encoded = Encoded(self._ids(packed_kmers(chunk, k)[::k]), np.arange(start, start + len(chunk), k))
            pieces.append(encoded if unambiguous else _spell_ambiguous(encoded, chunk.reshape(-1, k)))
        pieces.append(Encoded(bases[last:].astype(self._dtype), np.arange(last, length)))
        return Encoded(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def _spell_ambiguous(encoded: Encoded, kmers: UInt8[np.ndarray, "kmers k"]) -> Encoded:
    """The same tokens, but k tokens of a letter each in place of a k-mer with an ambiguous letter."""
    count, k = kmers.shape
    ambiguous = np.zeros(count, np.bool_)
    ambiguous[np.flatnonzero(kmers.ravel() > 3) // k] = True
    if not ambiguous.any():
        return encoded
    places = np.arange(count) + (k - 1) * (np.cumsum(ambiguous) - ambiguous)
    ids, starts = (np.empty(count + (k - 1) * int(ambiguous.sum()), column.dtype) for column in encoded)
    ids[places], starts[places] = encoded
    first = places[ambiguous]
    for offset, letters in enumerate(kmers[ambiguous].T):
        ids[first + offset] = letters
        starts[first + offset] = encoded.token_starts[ambiguous] + offset
    return Encoded(ids, starts)
