"""FASTA files with a .fai and a .gzi, either of them damaged: bases are read as from the whole file, or refused."""

from pathlib import Path

import numpy as np
import pysam

from genoattn.errors import UserError
from genoattn.genome.alphabet import SOFT
from genoattn.genome.digests import fasta_digest
from genoattn.genome.fasta import read_fasta
from genoattn.genome.indexed_fasta import IndexedFasta
from tests.fuzz.cases import Files, Kind, Maker, Trial, Wrong, bgzip, chance, damage, insert_odd, letters, pick


def make(folder: Path, rng: np.random.Generator) -> Files:
    """A FASTA and its indexes, of which one is often not as it was made."""
    end, text = pick(rng, [b"\n", b"\n", b"\r\n"]), b""
    for number in range(int(rng.integers(1, 5))):
        text += b">r%d" % number + pick(rng, [b"", b" words", b"\twords"]) + end
        bases = letters(rng, pick(rng, [b"ACGT", b"ACGTacgtNnRU"]), int(rng.integers(1, 200)))
        width = int(rng.integers(1, 80))
        text += b"".join(bases[start : start + width] + end for start in range(0, len(bases), width))
    text = text.rstrip() if chance(rng, 0.2) else text
    packed = chance(rng, 0.5)
    path = folder / "made"
    path.write_bytes(bgzip(text) if packed else text)
    pysam.faidx(str(path))  # type: ignore[attr-defined]
    names = {"input": "made", "input.fai": "made.fai", **({"input.gzi": "made.gzi"} if packed else {})}
    files = {name: (folder / other).read_bytes() for name, other in names.items()}
    if chance(rng, 0.4):
        files["input.fai"] = pick(rng, [insert_odd, damage, shifted])(rng, files["input.fai"])
    elif chance(rng, 0.4):
        name = pick(rng, list(files))
        files[name] = damage(rng, files[name])
    return files


def shifted(rng: np.random.Generator, index: bytes) -> bytes:
    """The index with another number in the place of one."""
    rows = [line.split(b"\t") for line in index.splitlines()]
    row = pick(rng, rows)
    column = int(rng.integers(1, 5))
    row[column] = b"%d" % max(0, int(row[column]) + int(rng.integers(-3, 4)))
    return b"\n".join(map(b"\t".join, rows)) + b"\n"


def run(folder: Path) -> str:
    """Read every record as a whole and in part, and compare it with that of the whole file."""
    path = folder / "input"
    genome = IndexedFasta([fasta_digest(path, {})], "x")
    found = [genome.fetch(number, 0, length) for number, length in enumerate(genome.lengths)]
    for number, codes in enumerate(found):
        middle = len(codes) // 2
        if not np.array_equal(genome.fetch(number, middle, len(codes)), codes[middle:]):
            raise Wrong(f"the second half of record {number} is not that of the whole")
    try:
        records = {record.name: record.codes & ~SOFT for record in read_fasta(path)}
    except UserError:
        return "read in parts alone"
    for name, codes in zip(genome.names, found, strict=True):
        if not np.array_equal(codes, records.get(name, np.zeros(0, np.uint8))):
            raise Wrong(f"{name} is read as {codes}, expected {records.get(name)}")
    return "read"


def prepare(folder: Path) -> tuple[Maker, Trial]:
    """A folder in which the indexes are made."""
    return lambda rng: make(folder, rng), run


KIND = Kind("indexes", 0.06, prepare)
