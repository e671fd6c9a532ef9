"""Consequences of mutations for proteins, by hand, on both strands and beside introns."""

from pathlib import Path

import pytest

from genoattn.errors import UserError
from genoattn.genome.alphabet import encode_bases
from genoattn.genome.consequence import SEVERITY, Consequences
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import Genome, open_genome

# Bases 2 to 13: ATG TGG AAA TAA, forward. From 20 on, on the reverse strand, ATG CC|C TAA with an intron of 6 between.
FORWARD, BACKWARD = "ATGTGGAAATAA", "TTAG" + "GTTTAC" + "GGCAT"
LETTERS = "CC" + FORWARD + "CCCCCC" + BACKWARD + "CC"
GFF = """##gff-version 3
x\t.\tgene\t3\t14\t.\t+\t.\tID=g
x\t.\tCDS\t3\t14\t.\t+\t0\tID=c;transl_table=11

x\t.\tCDS\t31\t35\t.\t-\t0\tParent=t
x\t.\tCDS\t21\t24\t.\t-\t1\tParent=t
##FASTA
>x
"""


@pytest.fixture(scope="module")
def genome(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Genome:
    fasta: Path = tmp_path_factory.mktemp("genome") / "x.fa"
    fasta.write_text(f">x\n{LETTERS}\n")
    return open_genome([fasta])


@pytest.mark.parametrize(
    ("start", "stop", "bases", "consequence"),
    [
        (0, 1, "G", "non_coding"),
        (2, 3, "C", "start"),
        (7, 8, "A", "stop"),  # TGG → TGA
        (7, 8, "C", "missense"),
        (10, 11, "G", "synonymous"),  # AAA → AAG
        (11, 12, "C", "stop"),  # TAA → CAA, a stop that is lost
        (12, 13, "G", "synonymous"),  # TAA → TGA
        (8, 11, "", "inframe"),
        (8, 9, "", "frameshift"),
        (9, 9, "ACC", "inframe"),
        (2, 2, "C", "non_coding"),  # before the first codon
        (1, 4, "", "frameshift"),
        (33, 34, "C", "start"),  # reverse strand: ATG → AGG
        (30, 31, "T", "missense"),  # CCC → CAC, by the second base of a codon across the intron
        (23, 24, "A", "synonymous"),  # its third base: CCC → CCT
        (24, 25, "C", "splice"),
        (29, 30, "G", "splice"),
        (26, 27, "A", "non_coding"),
        (23, 26, "", "splice"),
    ],
)
def test_by_hand(start: int, stop: int, bases: str, consequence: str, genome: Genome, tmp_path: Path) -> None:
    (tmp_path / "x.gff3").write_text(GFF)
    known = Consequences(genome, tmp_path / "x.gff3")
    assert known.of(0, Mutation(start, stop, encode_bases(bases).tobytes())) == consequence


def test_the_most_severe_of_overlapping_frames_counts(genome: Genome, tmp_path: Path) -> None:
    (tmp_path / "x.gff3").write_text(GFF.replace("##FASTA", "x\t.\tCDS\t4\t12\t.\t+\t0\tID=other\n##FASTA"))
    known = Consequences(genome, tmp_path / "x.gff3")
    assert known.of(0, Mutation(10, 11, b"\2")) == "missense"  # AAA → AAG and, one base on, GAA → GAG … AAT → AGT
    assert SEVERITY["missense"] > SEVERITY["synonymous"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("x\t.\tCDS\t3\t14\t.\t+\t0", "line 1: expected the nine columns of GFF3"),
        ("x\t.\tCDS\t14\t3\t.\t+\t0\tID=c", "line 1: expected 1 ≤ start ≤ end ≤ 37, got 14 and 3"),
        ("x\t.\tCDS\t3\t14\t.\t?\t0\tID=c", r"expected strand \+ or - and phase 0, 1 or 2, got \?, 0"),
        ("x\t.\tCDS\t3\t14\t.\t+\t0\ttransl_table=99", "expected a transl_table of NCBI, got 99"),
        ("y\t.\tCDS\t3\t14\t.\t+\t0\tID=c", "line 1"),
        ("# nothing", "has no line of type CDS"),
    ],
)
def test_mistakes(line: str, sentence: str, genome: Genome, tmp_path: Path) -> None:
    (tmp_path / "x.gff3").write_text(line + "\n")
    with pytest.raises(UserError, match=sentence):
        Consequences(genome, tmp_path / "x.gff3")
