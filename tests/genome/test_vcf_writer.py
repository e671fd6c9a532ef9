"""VCF, BED and bedGraph as other programs read them."""

from pathlib import Path

import numpy as np
import pysam
import pytest

from genoattn.errors import UserError
from genoattn.genome.calls import MutationCall, Part
from genoattn.genome.vcf_writer import Names, Origin, bedgraph_rows, check_names, phred, write_parts, write_vcf

NAMES = Names(["one", "two"], [100, 50], ["c;1"])
ORIGIN = Origin("genoattn 1", "genoattn detect\nout=x", "r.fa", "s")
CALLS = [
    MutationCall(1, 4, "A", "C", "snv", 0.999, 0, 7, 8, True),
    MutationCall(0, 9, "AC", "A", "deletion", 1.0, 0, 40, 40, False),
    MutationCall(0, 2, "A", "ATT", "insertion", 0.2, 0, 3, 5, False),
]


def test_the_rows_of_a_vcf(tmp_path: Path) -> None:
    write_vcf(tmp_path / "x.vcf", zip(CALLS, [True, True, False], strict=True), NAMES, ORIGIN)
    lines = (tmp_path / "x.vcf").read_text().splitlines()
    assert lines[0] == "##fileformat=VCFv4.3" and "##genoattnCommand=genoattn detect out=x" in lines
    assert [line for line in lines if not line.startswith("##")] == [
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts",
        "one\t3\t.\tA\tATT\t1.0\tLowScore\tTYPE=INS;PROB=0.2;CONTIG=c%3B1;CONTIG_POS=4;STRAND=+\tGT\t1",
        "one\t10\t.\tAC\tA\t60.0\tPASS\tTYPE=DEL;PROB=1;CONTIG=c%3B1;CONTIG_POS=41;STRAND=+\tGT\t1",
        "two\t5\t.\tA\tC\t30.0\tPASS\tTYPE=SNV;PROB=0.999;CONTIG=c%3B1;CONTIG_POS=8;STRAND=-\tGT\t1",
    ]


@pytest.mark.parametrize(("length", "ending"), [(100, "tbi"), (1 << 29, "csi")])
def test_a_packed_vcf_is_indexed(length: int, ending: str, tmp_path: Path) -> None:
    names = NAMES._replace(lengths=[length, 50])
    write_vcf(tmp_path / "x.vcf.gz", zip(CALLS, [True] * 3, strict=True), names, ORIGIN)
    assert {file.name for file in tmp_path.iterdir()} == {"x.vcf.gz", f"x.vcf.gz.{ending}"}
    with pysam.VariantFile(str(tmp_path / "x.vcf.gz")) as file:
        assert [record.pos for record in file.fetch("one", 5, 20)] == [10]
        assert [record.pos for record in file.fetch("two")] == [5]
        assert list(file.header.samples) == ["s"]


def test_names_that_no_vcf_may_hold() -> None:
    check_names(["NC_007795.1", "chr1|x"])
    with pytest.raises(UserError, match=r"the reference's record 'a,b' has a sign that no VCF may hold; rename it"):
        check_names(["chr1", "a,b"])


@pytest.mark.parametrize(("probability", "score"), [(0, 0), (0.9, 10), (0.999999, 60), (1, 60)])
def test_phred(probability: float, score: float) -> None:
    assert phred(probability) == pytest.approx(score)


def test_tracks(tmp_path: Path) -> None:
    write_parts(tmp_path / "x.bed", [Part(1, 3, 9, "absent")], NAMES.records)
    assert (tmp_path / "x.bed").read_text() == "two\t3\t9\tabsent\n"
    rows = bedgraph_rows("one", 10, np.array([0.001, 0.004, np.nan, 0.5, 1, 1]))
    assert list(rows) == ["one\t10\t12\t0\n", "one\t13\t14\t0.5\n", "one\t14\t16\t1\n"]
    assert list(bedgraph_rows("one", 0, np.zeros(0))) == []
