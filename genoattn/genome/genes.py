"""Protein-coding genes of a genome: from a GFF3 file, or its longest open reading frames as a stand-in."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.gff3 import read_features
from genoattn.genome.sequence_store import Genome

CODON = 3
_AMINO_ACIDS = "KNKNTTTTRSRSIIMIQHQHPPPPRRRRLLLLEDEDAAAAGGGGVVVV*Y*YSSSS*CWCLFLF"
AMINO_ACIDS = np.frombuffer(_AMINO_ACIDS.encode(), np.uint8)
"""The amino acid of each codon in the order AAA, AAC, AAG, AAT, ACA, …, `*` at a stop (NCBI tables 1 and 11)."""

STOP = ord("*")

_STARTS = (0b001110, 0b101110, 0b111110)  # ATG, GTG and TTG as numbers of six bits

MOST_OVERLAP = 0.1
"""Share of an open reading frame that longer ones may cover, besides its last and first `FREE_END` bases."""

FREE_END = 60


class Gene(NamedTuple):
    """A protein-coding gene: bases [start, stop) (0-based, half-open) of a record, from the start to the stop codon.

    The first base of its first codon is `start`, and on the reverse strand it is `stop - 1`.
    """

    record: int
    start: int
    stop: int
    reverse: bool


def codon_numbers(bases: UInt8[np.ndarray, "length"]) -> Int[np.ndarray, "codons"]:
    """The codon that begins at each base, 0 to 63 in the order of `AMINO_ACIDS`; -1 with an ambiguous letter."""
    if len(bases) < CODON:
        return np.zeros(0, np.int64)
    triple = np.stack([bases[:-2], bases[1:-1], bases[2:]]).astype(np.int64)
    return np.where((triple < 4).all(0), triple[0] << 4 | triple[1] << 2 | triple[2], -1)


def is_stop(codons: Int[np.ndarray, "codons"]) -> Bool[np.ndarray, "codons"]:
    """True for TAA, TAG and TGA."""
    return (codons >= 0) & (AMINO_ACIDS[np.maximum(codons, 0)] == STOP)


def find_genes(genome: Genome, shortest: int) -> list[Gene]:
    """The longest open reading frames of a genome, in its order: a stand-in for genes where none are annotated.

    An open reading frame begins at the first ATG, GTG or TTG after a stop codon and ends with the next stop codon in
    frame. The longest is taken first, and each further one if longer ones cover at most a tenth of it. In a bacterial
    genome nearly every frame of 600 bases is a gene; frames of eukaryotes are broken by introns and need a GFF3 file.

    Args:
        genome: The genome; both strands are read.
        shortest: Fewest bases from the start codon to the stop codon, both included.
    """
    genes: list[Gene] = []
    for record, length in enumerate(genome.lengths):
        bases = genome.fetch(record, 0, length)
        found = [
            Gene(record, *((start, stop) if not reverse else (length - stop, length - start)), reverse)
            for reverse, strand in ((False, bases), (True, reverse_complement(bases)))
            for start, stop in _open_frames(strand, shortest)
        ]
        genes += _without_overlaps(found, length)
    return genes


def _open_frames(strand: UInt8[np.ndarray, "length"], shortest: int) -> Iterator[tuple[int, int]]:
    codons = codon_numbers(strand)
    stops, starts = is_stop(codons) | (codons < 0), np.isin(codons, _STARTS)
    for frame in range(CODON):
        ends = np.flatnonzero(stops[frame::CODON]) * CODON + frame
        begins = np.append(np.flatnonzero(starts[frame::CODON]) * CODON + frame, len(strand))
        first = begins[np.searchsorted(begins, np.append(-1, ends[:-1]), side="right")]
        whole = (ends + CODON - first >= shortest) & is_stop(codons[ends])  # not one that ends at unknown bases
        yield from zip(first[whole].tolist(), (ends[whole] + CODON).tolist(), strict=True)


def _without_overlaps(genes: list[Gene], length: int) -> list[Gene]:
    taken, kept = np.zeros(length, np.bool_), []
    for gene in sorted(genes, key=lambda gene: gene.start - gene.stop):
        inner = taken[gene.start + FREE_END : max(gene.stop - FREE_END, gene.start + FREE_END + 1)]
        if len(inner) == 0 or inner.mean() <= MOST_OVERLAP:
            taken[gene.start : gene.stop] = True
            kept.append(gene)
    return sorted(kept)


def read_genes(path: Path, genome: Genome, shortest: int) -> tuple[list[Gene], dict[str, int]]:
    """The coding sequences (features CDS) of a GFF3 file (1-based, inclusive), and how many were left out, by reason.

    A CDS of several rows with one ID (exons), one that is no whole number of codons, that does not end with a stop
    codon or holds one before, or of fewer than `shortest` bases is left out and counted.

    Args:
        path: The GFF3 file, plain or gzip.
        genome: The genome that its names and places belong to.
        shortest: Fewest bases of a gene.

    Raises:
        UserError: The file is missing, a row is malformed or names another contig.
    """
    if not path.is_file():
        raise UserError(f"task.genes={path} does not exist")
    skipped: Counter[str] = Counter()
    genes: list[Gene] = []
    rows = list(_coding_rows(path, genome))
    parts = Counter(name for name, _ in rows if name)
    for name, gene in rows:
        if parts[name] > 1:
            skipped["in several exons"] += 1
        elif gene.stop - gene.start < shortest:
            skipped[f"shorter than {shortest} bases"] += 1
        elif not _reads_through(gene_bases(genome, gene)):
            skipped["without an open reading frame"] += 1
        else:
            genes.append(gene)
    return sorted(genes), dict(skipped)


def _coding_rows(path: Path, genome: Genome) -> Iterator[tuple[str, Gene]]:
    """The ID ("" without one) and the place of each CDS of a GFF3 file."""
    for feature in read_features(path, genome):
        if feature.kind == "CDS" and feature.stop <= genome.lengths[feature.record]:
            gene = Gene(feature.record, feature.start, feature.stop, feature.strand == "-")
            yield feature.attributes.get("ID", ""), gene


def gene_bases(genome: Genome, gene: Gene) -> UInt8[np.ndarray, "length"]:
    """The codes of a gene from its start codon to its stop codon, read along the gene."""
    bases = genome.fetch(gene.record, gene.start, gene.stop)
    return reverse_complement(bases) if gene.reverse else bases


def _reads_through(bases: np.ndarray) -> bool:
    stops = is_stop(codon_numbers(bases)[::CODON])
    return len(bases) % CODON == 0 and len(stops) > 1 and bool(stops[-1]) and not stops[:-1].any()
