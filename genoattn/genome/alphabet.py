"""The fifteen IUPAC letters of DNA as codes 0..14, their complements, and k-mers as numbers."""

import numpy as np
from jaxtyping import Bool, Int64, UInt, UInt8

from genoattn.errors import UserError

LETTERS = "ACGTRYSWKMBDHVN"
"""The letter of each code: first the four bases, N last."""
UNKNOWN = LETTERS.index("N")
SOFT = np.uint8(16)  # the bit that marks a lower-case (soft-masked) letter in a stored genome
ILLEGAL = 255  # stands for a character that is not a letter of DNA


def _encoding() -> UInt8[np.ndarray, "256"]:
    table = np.full(256, ILLEGAL, np.uint8)
    for code, letter in enumerate(LETTERS):
        table[ord(letter)] = table[ord(letter.lower())] = code
    for letter in "Uu":  # RNA has uracil where DNA has thymine
        table[ord(letter)] = LETTERS.index("T")
    return table


ENCODE = _encoding()
DECODE = np.frombuffer(LETTERS.encode(), np.uint8)
COMPLEMENT = np.array([LETTERS.index(letter) for letter in "TGCAYRSWMKVHDBN"], np.uint8)


def encode_bases(letters: bytes | str) -> UInt8[np.ndarray, "length"]:
    """Codes 0..14 of IUPAC letters in either case, U read as T; raises UserError at the first other character."""
    raw = np.frombuffer(letters.encode("latin-1", "replace") if isinstance(letters, str) else letters, np.uint8)
    codes = ENCODE[raw]
    if len(codes) and codes.max() == ILLEGAL:
        position = int(np.argmax(codes == ILLEGAL))
        raise UserError(f"base {position + 1} is {chr(raw[position])!r}, which is no IUPAC letter ({LETTERS})")
    return codes


def decode_bases(codes: UInt8[np.ndarray, "length"]) -> str:
    """Upper-case IUPAC letters of codes 0..14."""
    return DECODE[codes].tobytes().decode("ascii")


def reverse_complement(codes: UInt8[np.ndarray, "length"]) -> UInt8[np.ndarray, "length"]:
    """The opposite strand, read 5' to 3'; applied twice it gives the input back, for all fifteen letters."""
    return COMPLEMENT[codes][::-1]


def packed_kmers(bases: UInt8[np.ndarray, "length"], k: int) -> UInt[np.ndarray, "kmers"]:
    """The k-mer (k at most 32) that begins at each base as a number, in the smallest type that holds it.

    Two bits are one base, the first base most significant. K-mers with an ambiguous letter get numbers without meaning.
    """
    if k == 1:
        return bases & 3
    # Each k-mer is put together from its two halves: log2(k) passes over the bases, not k.
    dtype = next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if np.iinfo(kind).bits >= 2 * k)
    if k % 2:
        shorter = packed_kmers(bases, k - 1)[:-1].astype(dtype, copy=False)
        return shorter << 2 | bases[k - 1 :] & 3
    half = packed_kmers(bases, k // 2).astype(dtype, copy=False)
    return half[: -k // 2] << k | half[k // 2 :]


def ambiguous_kmers(bases: UInt8[np.ndarray, "length"], k: int) -> Bool[np.ndarray, "kmers"]:
    """True where the k-mer that begins at a base holds a letter other than A, C, G and T."""
    count = max(len(bases) - k + 1, 0)
    ambiguous = bases > 3
    if not ambiguous.any():
        return np.zeros(count, np.bool_)
    return np.logical_or.reduce([ambiguous[offset : offset + count] for offset in range(k)])


def kmer_codes(bases: UInt8[np.ndarray, "length"], k: int) -> Int64[np.ndarray, "kmers"]:
    """The k-mer (k at most 31) that begins at each base as a number; -1 if it holds an ambiguous letter."""
    return np.where(ambiguous_kmers(bases, k), -1, packed_kmers(bases, k).astype(np.int64))
