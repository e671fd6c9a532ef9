"""The fifteen IUPAC letters of DNA as small integers, their complements, and the way back."""

import numpy as np
from jaxtyping import UInt8

from genoattn.errors import UserError

LETTERS = "ACGTRYSWKMBDHVN"


UNKNOWN = LETTERS.index("N")


SOFT = np.uint8(16)


ILLEGAL = 255


def _encoding() -> UInt8[np.ndarray, "256"]:
    table = np.full(256, ILLEGAL, np.uint8)
    for code, letter in enumerate(LETTERS):
        table[ord(letter)] = table[ord(letter.lower())] = code
    for letter in "Uu":  # RNA's uracil stands where DNA has thymine
        table[ord(letter)] = LETTERS.index("T")
    return table


ENCODE = _encoding()


DECODE = np.frombuffer(LETTERS.encode(), np.uint8)


COMPLEMENT = np.array([LETTERS.index(letter) for letter in "TGCAYRSWMKVHDBN"], np.uint8)


def encode_bases(letters: bytes | str) -> UInt8[np.ndarray, "length"]:
    """Codes 0..14 of IUPAC letters in either case; raises UserError at the first letter that is none."""
    raw = np.frombuffer(letters.encode("latin-1", "replace") if isinstance(letters, str) else letters, np.uint8)
    codes = ENCODE[raw]
    if len(codes) and codes.max() == ILLEGAL:
        at = int(np.argmax(codes == ILLEGAL))
        raise UserError(f"base {at + 1} is {chr(raw[at])!r}, which is no IUPAC letter ({LETTERS})")
    return codes


def decode_bases(codes: UInt8[np.ndarray, "length"]) -> str:
    """Upper-case IUPAC letters of codes 0..14."""
    return DECODE[codes].tobytes().decode("ascii")


def reverse_complement(codes: UInt8[np.ndarray, "length"]) -> UInt8[np.ndarray, "length"]:
    """The other strand, read 5' to 3'; its own inverse for all fifteen letters."""
    return COMPLEMENT[codes][::-1]
