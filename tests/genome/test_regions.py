"""BED and GFF3 files: every line is an interval, a line that is counted, or a sentence."""

import gzip
from pathlib import Path

import pytest

from genoattn.errors import UserError
from genoattn.genome.regions import RegionFile, read_regions
from genoattn.genome.sequence_store import Genome, open_genome


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    folder = tmp_path_factory.mktemp("genome")
    names = ("chr1", "track_7", "browser", "chr#2")
    (folder / "a.fa").write_text("".join(f">{name}\n{'ACGT' * 25}\n" for name in names))
    return open_genome([folder / "a.fa"], folder / "cache")


def read(path: Path, genome: Genome, kind: str = "") -> RegionFile:
    return read_regions(f"{path}:{kind}" if kind else str(path), genome, "task.split_bed")


def test_rows_read_and_rows_left_out_are_all_rows(genome: Genome, tmp_path: Path) -> None:
    text = (
        "browser position chr1:1-9\nbrowser\t1\t9\ntrack name=genes\n#chrom\tstart\tend\n"
        "chr1\t0\t10\r\ntrack_7\t1\t3\tgene\n\n  \t\n"
        "track_7 3 100\nchr#2\t4\t5\tname\x0b\x1cof a gene\x85\n"
    )
    rows = [line for line in text.split("\n") if line.strip()]
    path = tmp_path / "genes.bed"
    for lines in (rows[2:], [*rows[2:], "track\n"], rows[1:2]):
        path.write_text("\n".join(lines))
        bed = read(path, genome)
        assert len(bed.intervals) + sum(bed.skipped.values()) == len(lines)
    path.write_text("\n".join(rows[2:]))
    assert read(path, genome).intervals == [(0, 0, 10), (1, 1, 3), (1, 3, 100), (3, 4, 5)]
    assert read(path, genome).names == ["", "gene", "", "name\x0b\x1cof a gene"]
    assert read(path, genome).skipped == {"'track' line": 1, "comment": 1}
    packed = tmp_path / "genes.bed.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read(packed, genome)[1:] == read(path, genome)[1:]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("chr1\t1", "expected a name, a start and an end, got 'chr1\\t1'"),
        ("chr1\t1\t²", "expected a name, a start and an end, got "),
        ("chr1\t1\t" + "9" * 5000, f"expected a name, a start and an end, got 'chr1\\t1\\t{'9' * 72}…'"),
        ("chr1\t5\t5", "expected 0 ≤ start < end ≤ 100, got 5 and 5"),
        ("chr1\t5\t101", "expected 0 ≤ start < end ≤ 100, got 5 and 101"),
        ("chr11\t5\t6", "the FASTA has no contig 'chr11'; did you mean chr1?"),
        ("track\t5\t6\t" + "x" * 2_000_000, " has more than 1,048,576 characters"),
    ],
)
def test_a_line_that_is_no_interval(line: str, words: str, genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "genes.bed"
    path.write_text(f"chr1\t1\t2\n{line}\n")
    with pytest.raises(UserError) as caught:
        read(path, genome)
    assert str(caught.value).startswith(f"{path}, line 2") and words in str(caught.value)


def feature(*fields: object, attributes: str = "ID=x") -> str:
    contig, kind, first, last = fields
    return f"{contig}\tRefSeq\t{kind}\t{first}\t{last}\t.\t+\t0\t{attributes}\n"


GFF = (
    "##gff-version 3\n#!processor x\n\n"
    + feature("chr1", "region", 1, 100, attributes="ID=chr1;Is_circular=true")
    + feature("chr%232", "gene", 5, 5)
    + feature("chr1", "CDS", 91, 110).rstrip("\n")
    + "\r\n"
    + feature("track_7", "CDS", 1, 3)
    + "##FASTA\n>chr1\n"
    + "ACGT" * 400_000
    + "\n"
)


def test_features_of_a_gff3(genome: Genome, tmp_path: Path) -> None:
    """Positions count from 1 and include both ends; a feature over the origin of a circle has two intervals."""
    for name, text in (("a.gff3", GFF.encode()), ("a:b.GFF.gz", gzip.compress(GFF.encode()))):
        path = tmp_path / name
        path.write_bytes(text)
        found = read(path, genome)
        assert found.intervals == [(0, 0, 100), (3, 4, 5), (0, 90, 100), (0, 0, 10), (1, 0, 3)]
        assert found.names == ["region", "gene", "CDS", "CDS", "CDS"]
        assert found.skipped == {"comment": 2, "beginning of the sequences": 1}
        only = read(path, genome, "CDS")
        assert only.path == path and only.intervals == [(0, 90, 100), (0, 0, 10), (1, 0, 3)]
        assert only.skipped == found.skipped | {"of type region": 1, "of type gene": 1}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (feature("chr1", "CDS", 0, 5), "line 2: expected 1 ≤ first ≤ last ≤ 100, got 0 and 5"),
        (feature("chr1", "CDS", 5, 101), "line 2: expected 1 ≤ first ≤ last ≤ 100, got 5 and 101"),
        (feature("chr1", "CDS", 7, 6), "line 2: expected 1 ≤ first ≤ last ≤ 100, got 7 and 6"),
        (feature("chr2", "CDS", 1, 6), "line 2: the FASTA has no contig 'chr2'; did you mean "),
        (feature("chr1", "CDS", "x", 6), "line 2: expected the nine columns of GFF3, separated by tabs, with a type"),
        ("chr1 . CDS 1 5 . + 0 x\n", "line 2: expected the nine columns of GFF3, separated by tabs, with a type"),
        ("chr1\t0\t5\n", "line 2: expected the nine columns of GFF3"),
    ],
)
def test_a_line_that_is_no_feature(line: str, words: str, genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "a.gff3"
    path.write_text(f"##gff-version 3\n{line}")
    with pytest.raises(UserError) as caught:
        read(path, genome)
    assert f"{path}, {words}" in str(caught.value)


def test_types_that_are_not_there(genome: Genome, tmp_path: Path) -> None:
    (tmp_path / "a.gff3").write_text(feature("chr1", "CDS", 1, 6))
    (tmp_path / "a.bed").write_text("chr1\t1\t6\tCDS\n")
    with pytest.raises(UserError, match=r"a\.gff3 has no feature of the type cds; did you mean CDS\?"):
        read(tmp_path / "a.gff3", genome, "cds")
    with pytest.raises(UserError, match=r"a\.bed:CDS names a type of features; only a GFF3 has them"):
        read(tmp_path / "a.bed", genome, "CDS")
    with pytest.raises(UserError, match=r"task\.split_bed=.*/b\.gff3:CDS does not exist"):
        read(tmp_path / "b.gff3", genome, "CDS")
