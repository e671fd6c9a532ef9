"""Open reading frames by hand and by a slow search, and coding sequences of a GFF3 file."""

from pathlib import Path

import numpy as np
import pytest

from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases, encode_bases, reverse_complement
from genoattn.genome.genes import Gene, codon_numbers, find_genes, gene_bases, is_stop, read_genes
from genoattn.genome.sequence_store import Genome, open_genome

GENE = "ATGAAACCCGGGTTTGCAGCATAA"


def opened(folder: Path, letters: str) -> Genome:
    (folder / "a.fa").write_text(f">chr\n{letters}\n")
    return open_genome([folder / "a.fa"], folder / "cache")


def slow(strand: str, shortest: int) -> list[tuple[int, int]]:
    """Every frame from the first start codon after a stop codon to the next stop codon."""
    found = []
    for frame in range(3):
        start = None
        for at in range(frame, len(strand) - 2, 3):
            codon = strand[at : at + 3]
            if codon in ("TAA", "TAG", "TGA"):
                if start is not None and at + 3 - start >= shortest:
                    found.append((start, at + 3))
                start = None
            elif codon in ("ATG", "GTG", "TTG") and start is None:
                start = at
    return found


def test_one_gene_on_either_strand(tmp_path: Path):
    reverse = decode_bases(reverse_complement(encode_bases(GENE)))
    genome = opened(tmp_path, f"CC{GENE}CCCCC{reverse}CC")
    genes = find_genes(genome, 24)
    assert genes == [Gene(0, 2, 26, False), Gene(0, 31, 55, True)]
    assert [decode_bases(gene_bases(genome, gene)) for gene in genes] == [GENE, GENE]
    assert not find_genes(genome, 25)


def test_the_longest_frames_of_a_random_genome(tmp_path: Path):
    letters = decode_bases(np.random.default_rng(1).integers(0, 4, 3000, np.uint8))
    genes = find_genes(opened(tmp_path, letters), 60)
    ahead = [(start, stop, False) for start, stop in slow(letters, 60)]
    other = decode_bases(reverse_complement(encode_bases(letters)))
    back = [(3000 - stop, 3000 - start, True) for start, stop in slow(other, 60)]
    every = sorted(ahead + back, key=lambda place: place[0] - place[1])
    assert {gene[1:] for gene in genes} < set(every) and len(genes) > 5
    longest = every[0]
    assert Gene(0, *longest) in genes  # and each that was left out is no longer than one that covers a part of it
    for start, stop, _ in set(every) - {gene[1:] for gene in genes}:
        assert any(g.start < stop and start < g.stop and g.stop - g.start >= stop - start for g in genes)


def test_a_frame_does_not_read_over_unknown_bases(tmp_path: Path):
    assert not find_genes(opened(tmp_path, f"CC{GENE[:9]}NNN{GENE[12:]}CC"), 24)


def test_stop_codons():
    assert is_stop(codon_numbers(encode_bases("TAATAGTGATGGTAN"))[::3]).tolist() == [True, True, True, False, False]


def test_gff3(tmp_path: Path):
    genome = opened(tmp_path, f"CC{GENE}CCCCC")
    rows = [
        "##gff-version 3",
        "chr\tx\tgene\t3\t26\t.\t+\t.\tID=g1",
        "chr\tx\tCDS\t3\t26\t.\t+\t0\tID=c1;Parent=g1",
        "chr\tx\tCDS\t3\t11\t.\t+\t0\tID=c2",
        "chr\tx\tCDS\t15\t26\t.\t+\t0\tID=c2",
        "chr\tx\tCDS\t4\t27\t.\t-\t0\tID=c3",
        "chr\tx\tCDS\t3\t11\t.\t-\t0\tID=c4",
        "##FASTA",
        ">chr",
    ]
    (tmp_path / "a.gff3").write_text("\n".join(rows) + "\n")
    genes, skipped = read_genes(tmp_path / "a.gff3", genome, 12)
    assert genes == [Gene(0, 2, 26, False)]
    assert skipped == {"in several exons": 2, "without an open reading frame": 1, "shorter than 12 bases": 1}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("chr\tx\tCDS\t3\t26", "line 1: expected the nine columns of GFF3, separated by tabs"),
        ("chrr\tx\tCDS\t3\t26\t.\t+\t0\tID=c", "line 1: the FASTA has no contig 'chrr'; did you mean chr?"),
        ("chr\tx\tCDS\t0\t26\t.\t+\t0\tID=c", "line 1: expected 1 ≤ first ≤ last ≤ 28, got 0 and 26"),
    ],
)
def test_rows_that_are_not_gff3(row: str, sentence: str, tmp_path: Path):
    genome = opened(tmp_path, f"CC{GENE}CC")
    (tmp_path / "a.gff3").write_text(f"{row}\n")
    with pytest.raises(UserError) as error:
        read_genes(tmp_path / "a.gff3", genome, 12)
    assert sentence in str(error.value)
