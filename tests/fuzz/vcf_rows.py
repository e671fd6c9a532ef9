"""VCF files as rows of text: no row is lost or changed, and every allele is the mutation that its letters say."""

import re
from pathlib import Path

import numpy as np

from genoattn.genome.alphabet import encode_bases
from genoattn.genome.mutations import mutated_sequence
from genoattn.genome.scorable import REASONS, Allele, AlleleReader
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.vcf_rows import InfoField, Row, completed_header, read_rows, survey
from tests.fuzz.cases import Files, Kind, Maker, Trial, Wrong, pick, unpack
from tests.fuzz.vcf import CODES, LENGTHS, SEQUENCES, make

FIELD = InfoField("GA_X", "Float", "a score")


def make_rows(rng: np.random.Generator) -> Files:
    """A VCF, and what becomes of a wrong REF."""
    return {**make(rng), "policy": pick(rng, ["error", "skip", "flip"]).encode()}


def prepare(folder: Path) -> tuple[Maker, Trial]:
    """Write the genome that all inputs are read with."""
    fasta = folder / "genome.fa"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    genome = open_genome([fasta])
    return make_rows, lambda folder: run(folder, genome)


def check_allele(row: Row, alternate: str, allele: Allele, genome: Genome) -> None:
    """Hold a mutation to the letters of its row, put into the genome."""
    name, start = genome.names[allele.record], row.position - 1
    before = alternate if allele.flipped else row.reference
    after = row.reference if allele.flipped else alternate
    codes = CODES[name]
    expected = np.concatenate([codes[:start], encode_bases(after), codes[start + len(before) :]])
    holds = np.array_equal(codes[start : start + len(before)], encode_bases(before))
    if name != row.contig or not holds or not np.array_equal(mutated_sequence(codes, [allele.mutation]), expected):
        raise Wrong(f"{allele} was read of {row}")


def run(folder: Path, genome: Genome) -> str:
    """Read the rows and their alleles, and compare them with the lines of the text."""
    path = folder / "input"
    reader = AlleleReader(genome, (folder / "policy").read_text(), path)  # type: ignore[arg-type]
    read: list[Row] = []
    outline = survey(path, lambda row: read.append(row) or reader.read(row))
    text = (unpack(path.read_bytes()) or b"").decode("utf-8-sig", "surrogateescape")
    lines = [line for line in re.split("\r\n|\r|\n", text) if line]
    header = completed_header(outline, LENGTHS, [FIELD], {"source": "x"}).removesuffix("\n").split("\n")
    if not header[0].startswith("##fileformat=") or not header[-1].startswith("#CHROM\tPOS\t"):
        raise Wrong(f"the header is {header}")
    if [row.columns for row in read] != [line.split("\t") for line in lines[len(lines) - len(read) :]]:
        raise Wrong(f"{len(lines)} lines, {outline.rows} rows that are not the last of them")
    if any(not line.startswith("#") for line in lines[: len(lines) - len(read)]):
        raise Wrong("a row was taken for a line of the header")
    for row, again in zip(read, read_rows(path), strict=True):
        written = again.text({"GA_X": "1"}).removesuffix("\n").split("\t")
        if written[:7] + written[8:] != row.columns[:7] + row.columns[8:] or not written[7].endswith("GA_X=1"):
            raise Wrong(f"{row} was written as {written}")
        for alternate, allele in zip(row.alternates, reader.read(row), strict=True):
            if isinstance(allele, Allele):
                check_allele(row, alternate, allele, genome)
            elif allele not in REASONS:
                raise Wrong(f"{allele} is no reason")
    return "read" if read else "empty"


KIND = Kind("vcf_rows", 0.1, prepare)
