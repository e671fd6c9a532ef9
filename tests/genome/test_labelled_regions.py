"""Labelled regions in each of their formats: the same regions, the splits that files fix, and what is malformed."""

import gzip
from pathlib import Path

import pytest

from genoattn.errors import UserError
from genoattn.genome.alphabet import encode_bases
from genoattn.genome.intervals import Interval
from genoattn.genome.labelled_regions import LabelledRegion, read_regions
from genoattn.genome.sequence_store import Genome, open_genome


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    folder = tmp_path_factory.mktemp("regions")
    (folder / "a.fa").write_text(">chr1\nACGTACGTACGTACGTACGT\n")
    return open_genome([folder / "a.fa"], folder / "cache")


def codes(letters: str) -> bytes:
    return encode_bases(letters).tobytes()


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder / "in"


def test_bed_and_tables_of_regions(genome: Genome, tmp_path: Path):
    expected = [LabelledRegion("x", "", Interval(0, 2, 6)), LabelledRegion("y", "", Interval(0, 4, 9), True)]
    folder = write(
        tmp_path,
        {
            "a.bed": "track name=z\nchr1\t2\t6\tx\nchr1\t4\t9\ty\t0\t-\n",
            "a.csv": "id,region,start,end,strand,label\n0,chr1,2,6,+,x\n1,chr1,4,9,-,y\n",
            "a.tsv.gz": "chrom\tstart\tend\tstrand\tlabel\nchr1\t2\t6\t+\tx\nchr1\t4\t9\t-\ty\n",
        },
    )
    for name in ("a.bed", "a.csv", "a.tsv.gz"):
        assert read_regions(folder / name, "label", genome) == expected


def test_sequences(genome: Genome, tmp_path: Path):
    expected = [LabelledRegion("0", "", bases=codes("ACGTN")), LabelledRegion("1", "", bases=codes("GG"))]
    folder = write(tmp_path, {"a.fna": ">s|0\nACg\ntn\n>t|u|1\nGG\n", "a.csv": 'sequence,kind\nACGTN,0\n"GG",1\n'})
    assert read_regions(folder / "a.fna", "label", genome) == expected
    assert read_regions(folder / "a.csv", "kind", genome) == expected
    tables = write(tmp_path, {"b.tsv": "sequence\tkind\tsplit\nACGTN\t0\tdev\nGG\t1\ttest\n"})
    splits = [region.split for region in read_regions(tables / "b.tsv", "kind", genome)]
    assert splits == ["validation", "test"]


def test_folders_fix_the_splits(genome: Genome, tmp_path: Path):
    """The layout of the Nucleotide Transformer tasks, and both layouts of Genomic Benchmarks."""
    nt = write(tmp_path / "nt", {"train.fna": ">s|0\nAC\n", "test.fna.gz": ">t|1\nGG\n", "README.md": "text"})
    regions = read_regions(nt, "label", genome)
    assert [(region.label, region.split) for region in regions] == [("1", "test"), ("0", "train")]
    texts = write(tmp_path / "gb", {"train/neg/0.txt": "AC\nGT\n", "train/pos/1.txt": "GG", "test/pos/2.txt": "T"})
    regions = read_regions(texts, "label", genome)
    assert [(region.label, region.split, region.bases) for region in regions] == [
        ("pos", "test", codes("T")),
        ("neg", "train", codes("ACGT")),
        ("pos", "train", codes("GG")),
    ]
    tables = write(tmp_path / "csv", {"train/neg.csv.gz": "id,region,start,end,strand\n0,chr1,2,6,-\n"})
    assert read_regions(tables, "label", genome) == [LabelledRegion("neg", "train", Interval(0, 2, 6), True)]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.bed", "chr1\t2\t6\n", "a.bed, line 1: expected chrom, start, end and a label, got 'chr1 2 6'"),
        ("a.bed", "chr1\t6\t2\tx\n", "a.bed, line 1: expected 0 ≤ start < end ≤ 20, got '6' and '2'"),
        ("a.bed", "chr2\t2\t6\tx\n", "a.bed, line 1: the FASTA has no contig 'chr2'; did you mean chr1?"),
        ("a.csv", "sequence,lable\nAC,0\n", "a.csv has no column 'label'; did you mean lable?"),
        ("a.csv", "sequence,label\nAXC,0\n", "a.csv, line 2: base 2 is 'X', which is no IUPAC letter"),
        ("a.csv", "sequence,label\nAC,\n", "a.csv, line 2: the column 'label' is empty"),
        ("a.fa", ">s\nAC\n", "a.fa, record s: expected a name with its label, as in name|1"),
        ("a.parquet", "PAR1", "expected a folder, or a file that ends in .bed, .fa, .fasta, .fna, .tsv, .csv, .tab"),
        ("b/a.fa", ">s|1\nAC\n", "in holds no labelled region"),
    ],
)
def test_what_is_malformed(name: str, text: str, sentence: str, genome: Genome, tmp_path: Path):
    folder = write(tmp_path, {name: text})
    with pytest.raises(UserError) as error:
        read_regions(folder if "/" in name else folder / name, "label", genome)
    assert sentence in str(error.value).replace("\\t", " ")


def test_a_file_that_is_not_there(genome: Genome, tmp_path: Path):
    with pytest.raises(UserError, match=r"task.file=.*none.bed does not exist"):
        read_regions(tmp_path / "none.bed", "label", genome)
