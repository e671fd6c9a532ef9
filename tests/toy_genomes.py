"""Small made-up genomes for the tests of programs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genoattn.genome.alphabet import decode_bases


def write_genome(folder: Path, name: str, seed: int, lengths: Sequence[int] = (16_000,)) -> tuple[Path, Path]:
    """A FASTA of random bases and a VCF that takes turns at an SNV, an insertion and a deletion every 400 bases."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    fasta, vcf = folder / f"{name}.fa", folder / f"{name}.vcf"
    records = {f"{name}{n}": decode_bases(rng.integers(0, 4, length, np.uint8)) for n, length in enumerate(lengths)}
    fasta.write_text("".join(f">{title} made up\n{letters}\n" for title, letters in records.items()))
    rows = [f"##contig=<ID={title},length={len(letters)}>" for title, letters in records.items()]
    rows = ["##fileformat=VCFv4.2", *rows, "#CHROM POS ID REF ALT QUAL FILTER INFO".replace(" ", "\t")]
    for title, letters in records.items():
        for turn, place in enumerate(range(400, len(letters), 400)):
            here = letters[place]
            other = "ACGT"[("ACGT".index(here) + 1) % 4]
            change = [(here, other), (here, f"{here}{other}{other}"), (letters[place : place + 3], here)][turn % 3]
            rows.append("\t".join([title, str(place + 1), ".", *change, ".", ".", "."]))
    vcf.write_text("\n".join(rows) + "\n")
    return fasta, vcf
