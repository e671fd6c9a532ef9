"""Strains on their relative: blocks of a FASTA and of a VCF, and the relative that is shown beside a window."""

from pathlib import Path

import numpy as np
import pytest

from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN, decode_bases, reverse_complement
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import open_genome
from genoattn.genome.strains import open_strain, reverse_complement_block, simulated_block
from tests.toy_genomes import write_genome

RELATIVE = np.random.default_rng(0).integers(0, 4, 3000, np.uint8)
NEW = bytes(np.random.default_rng(1).integers(0, 4, 40, np.uint8))
MUTATIONS = [Mutation(500, 502, b""), Mutation(1000, 1100, b""), Mutation(1500, 1500, NEW)]
"""Two bases are missing, then a hundred; then come forty new ones."""


def test_the_relative_follows_long_indels_and_lets_short_ones_drift() -> None:
    block = simulated_block(RELATIVE, MUTATIONS)
    assert np.array_equal(block.beside(0, 0, 3000)[:900], RELATIVE[:900])  # two bases behind from base 500 on
    assert np.array_equal(block.beside(600, 0, 300), RELATIVE[602:902])  # a window begins at the counterpart
    assert np.array_equal(block.beside(600, 16, 300), RELATIVE[618:918])
    assert np.array_equal(block.beside(0, 998, 50), RELATIVE[1100:1150])  # after the long deletion
    inserted = block.beside(0, 1398, 50)
    assert (inserted[:40] == UNKNOWN).all() and np.array_equal(inserted[40:], RELATIVE[1500:1510])
    assert (block.beside(len(block.sample.bases) - 10, 10, 5) == UNKNOWN).all()


def test_the_other_strand_shows_the_same_counterparts() -> None:
    block = simulated_block(RELATIVE, MUTATIONS)
    turned = reverse_complement_block(block)
    assert np.array_equal(turned.sample.bases, reverse_complement(block.sample.bases))
    length = len(block.sample.bases)
    for first, stop in ((0, 400), (600, 900), (1000, 1300), (1500, 2000)):
        shown = turned.beside(length - stop, 0, stop - first)
        assert np.array_equal(reverse_complement(shown), block.beside(first, 0, stop - first))
    again = reverse_complement_block(turned)
    assert np.array_equal(again.sample.bases, block.sample.bases)
    part = block.part(1200, 1300, 16)
    assert np.array_equal(part.beside(0, 0, 100), block.beside(1200, 0, 100))


@pytest.mark.usefixtures("alone")
def test_a_vcf_and_a_fasta_of_the_same_strain(tmp_path: Path) -> None:
    fasta, vcf = write_genome(tmp_path, "chr", 3)
    relative = open_genome([fasta])
    spelled = open_strain(vcf, relative)
    (block,) = spelled.blocks
    assert spelled.name == "chr" and spelled.share > 0.99
    rows = [line.split("\t") for line in vcf.read_text().splitlines() if line[0] != "#"]
    kinds = [event.kind for event in block.sample.events]
    assert kinds.count("snv") == sum(len(row[3]) == len(row[4]) for row in rows)
    assert kinds.count("insertion") == sum(len(row[3]) < len(row[4]) for row in rows)
    (tmp_path / "strain.fa").write_text(f">contig\n{decode_bases(reverse_complement(block.sample.bases))}\n")
    (placed,) = open_strain(tmp_path / "strain.fa", relative).blocks
    assert np.array_equal(placed.sample.bases, block.sample.bases[: len(placed.sample.bases)])
    assert placed.sample.events[:20] == block.sample.events[:20]
    # Bases 8,000 to 9,000 of the relative, and a stretch that no block holds.
    ((_, first, stop),) = spelled.within([Interval(0, 8000, 9000)], 500)
    assert block.sample.reference_position[[first, stop]].tolist() == [8000, 9000]
    assert not spelled.within([Interval(0, 8000, 8100)], 500)


@pytest.mark.usefixtures("alone")
def test_a_stranger_is_no_strain(tmp_path: Path) -> None:
    relative = open_genome([write_genome(tmp_path, "chr", 3)[0]])
    stranger, _ = write_genome(tmp_path, "other", 4)
    with pytest.raises(UserError, match=r"other\.fa: 0\.0% of the strain lies beside the genome in data\.fasta"):
        open_strain(stranger, relative)
