"""FASTA files, held to a strict parser that shares no code with the reader: no base and no name may differ."""

from pathlib import Path

import numpy as np

from genoattn.errors import UserError
from genoattn.genome.alphabet import DECODE, SOFT
from genoattn.genome.fasta import read_fasta
from tests.fuzz.cases import Files, Kind, Wrong, chance, insert_odd, letters, pack, pick, place, unpack

BASES = b"ACGTUNRYSWKMBDHV"
LEGAL = frozenset(BASES + BASES.lower())
NAMES = (b"chr1", b"NC_007795.1", b"a", b"!~", b"sp|P1", b"track_7", b">", "à1".encode(), b"", b"x" * 300)


def make(rng: np.random.Generator) -> Files:
    """A FASTA of a few records with any line ends and blanks, often with a fault."""
    end = pick(rng, [b"\n", b"\n", b"\r\n", b"\r"])
    text = pick(rng, [b"", b"", b"", end, b" " + end])
    for _ in range(int(rng.integers(1, 5))):
        name = letters(rng, b"abcXYZ019_.", 5) if chance(rng, 0.85) else pick(rng, NAMES)
        text += b">" + name + pick(rng, [b"", b"", b" a description", b"\tx>y", b" "]) + end
        alphabet = pick(rng, [b"ACGT", b"ACGT", b"ACGTacgtNn", BASES + BASES.lower()])
        bases, width = letters(rng, alphabet, int(rng.integers(200))), int(rng.integers(1, 80))
        for start in range(0, len(bases), width):
            text += bases[start : start + width] + pick(rng, [b"", b"", b"", b" ", b"\t"]) + end
        text += end * int(rng.integers(0, 4) == 0)
    text = text.rstrip() if chance(rng, 0.2) else text
    if chance(rng, 0.35):
        text = insert_odd(rng, text)
    if chance(rng, 0.05):  # in the middle of the text, where most readers look only for bases
        text = text[: place(rng, text)] + letters(rng, b">ACGT \t\n\r\x0b\x1c\x85\xa0", 20) + text
    return {"input": pack(rng, text)}


def strict(text: bytes) -> list[tuple[bytes, bytes]] | None:
    """Names and letters of every record, with T for U; None if anything at all is not as it should be."""
    records: list[tuple[bytes, bytearray]] = []
    for line in text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if line[:1] == b">":
            words = line[1:].replace(b"\t", b" ").strip(b" ").split(b" ")
            if not words[0] or not all(33 <= byte <= 126 for byte in words[0]):
                return None
            records.append((words[0], bytearray()))
        elif content := line.rstrip(b" \t"):
            if not records or not LEGAL.issuperset(content):
                return None
            records[-1][1].extend(content)
    if not any(bases for _, bases in records):
        return None
    return [(name, bytes(bases).replace(b"U", b"T").replace(b"u", b"t")) for name, bases in records]


def run(folder: Path) -> str:
    """Read the file both ways and compare."""
    path = folder / "input"
    text = unpack(path.read_bytes())
    expected = None if text is None else strict(text)
    try:
        records = list(read_fasta(path))
    except UserError:
        if expected is not None:
            raise Wrong(f"a right file of {len(expected)} records is refused") from None
        raise
    actual = []
    for name, codes, _ in records:
        upper = DECODE[codes & ~SOFT]
        actual.append((name.encode("latin-1"), np.where(codes & SOFT, upper | 32, upper).tobytes()))
    if actual != expected:
        raise Wrong(f"read as {str(actual)[:200]}, expected {str(expected)[:200]}")
    return "read"


KIND = Kind("fasta", 0.41, lambda _: (make, run))
