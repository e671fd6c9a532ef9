"""BED files: every line is an interval, a line that is counted, or a sentence; genes are split by their shares."""

import gzip
from pathlib import Path

import pytest

from genoattn.errors import UserError
from genoattn.genome.intervals import BedFile, Interval, read_bed, split_genes
from genoattn.genome.sequence_store import Genome, open_genome


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    folder = tmp_path_factory.mktemp("genome")
    names = ("chr1", "track_7", "browser", "chr#2")
    (folder / "a.fa").write_text("".join(f">{name}\n{'ACGT' * 25}\n" for name in names))
    return open_genome([folder / "a.fa"], folder / "cache")


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
        bed = read_bed(path, genome)
        assert len(bed.intervals) + sum(bed.skipped.values()) == len(lines)
    path.write_text("\n".join(rows[2:]))
    assert read_bed(path, genome).intervals == [(0, 0, 10), (1, 1, 3), (1, 3, 100), (3, 4, 5)]
    assert read_bed(path, genome).skipped == {"'track' line": 1, "comment": 1}
    packed = tmp_path / "genes.bed.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_bed(packed, genome)[1:] == read_bed(path, genome)[1:]


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
        read_bed(path, genome)
    assert str(caught.value).startswith(f"{path}, line 2") and words in str(caught.value)


@pytest.mark.parametrize(("count", "sizes"), [(10, (8, 1, 1)), (20, (16, 2, 2)), (100, (80, 10, 10))])
def test_shares_of_the_splits(count: int, sizes: tuple[int, ...]) -> None:
    genes = BedFile(Path("x.bed"), [Interval(0, 10 * n, 10 * n + 5) for n in range(count)], {})
    assert tuple(map(len, split_genes(genes, seed=0))) == sizes


def test_genes_that_touch_are_separate_and_genes_that_share_a_base_are_not() -> None:
    touching = [Interval(0, 10 * n, 10 * n + 10) for n in range(20)]
    assert sum(map(len, split_genes(BedFile(Path("x.bed"), touching, {}), seed=0))) == 20
    sharing = [Interval(0, 10 * n, 10 * n + 10 + (n % 2 == 0)) for n in range(40)]
    assert sum(map(len, split_genes(BedFile(Path("x.bed"), sharing, {}), seed=0))) == 20
