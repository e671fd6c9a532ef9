"""Labelled regions of a bacterial genome for `task=region`: coding, upstream of a gene, and between genes.

    python -m benchmarks.studies.regions data/NCTC8325.fa.gz regions.bed

Genes are the longest open reading frames of 300 bases or more, so labels are those of a stand-in for an annotation.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from genoattn.files import write_text
from genoattn.genome.genes import Gene, find_genes
from genoattn.genome.sequence_store import Genome, open_genome

SIZE = 150
"""Bases of a region."""

SHORTEST = 300
"""Fewest bases of an open reading frame."""


def bed_rows(genome: Genome, size: int = SIZE, shortest: int = SHORTEST) -> Iterator[str]:
    """Rows of a BED file with the labels coding, promoter and intergenic, regions on the strand of their gene.

    - coding: the middle of a gene;
    - promoter: the bases before a gene that has as many to the gene before it;
    - intergenic: the middle between two genes that both end there.
    """
    genes = find_genes(genome, shortest)
    for gene in genes:
        low = (gene.start + gene.stop - size) // 2
        yield _row(genome, gene, low, size, "coding", gene.reverse)
    for before, after in pairwise(genes):
        if before.record != after.record or after.start - before.stop < size:
            continue
        if not after.reverse:
            yield _row(genome, after, after.start - size, size, "promoter", False)
        if before.reverse and (after.reverse or after.start - before.stop >= 2 * size):
            yield _row(genome, before, before.stop, size, "promoter", True)
        if after.reverse and not before.reverse:
            yield _row(genome, before, (before.stop + after.start - size) // 2, size, "intergenic", False)


def _row(genome: Genome, gene: Gene, start: int, size: int, label: str, reverse: bool) -> str:
    return "\t".join([genome.names[gene.record], str(start), str(start + size), label, "0", "-" if reverse else "+"])


def main() -> None:
    """Write the BED file of a genome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("bed", type=Path)
    given = parser.parse_args()
    write_text(given.bed, "\n".join(bed_rows(open_genome([given.fasta]))) + "\n")


if __name__ == "__main__":
    main()
