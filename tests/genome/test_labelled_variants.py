"""Tables of labelled variants: every row is a variant, a row that is counted with its reason, or a sentence."""

import gzip
from pathlib import Path

import pytest

from genoattn.errors import UserError
from genoattn.genome.intervals import Interval
from genoattn.genome.labelled_variants import LabelledVariant, in_intervals, read_labelled
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import Genome, open_genome

HEAD = "chrom\tpos\tref\talt\tkind\n"
CLASSES = {"weak": ["W"], "strong": ["S"]}


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    folder = tmp_path_factory.mktemp("genome")
    (folder / "a.fa").write_text(f">chr1\n{'ACGT' * 25}\n>chr2\n{'ACGT' * 5}\n")
    return open_genome([folder / "a.fa"], folder / "cache")


def test_rows_read_and_rows_left_out_are_all_rows(genome: Genome, tmp_path: Path) -> None:
    labels = ["W", "S", '"', '"W', 'W"', "", "5'", "W", "'S", "x" * 200, "W\x0b", "S\x85", "S"]
    rows = [f"chr{number % 2 + 1}\t{4 * number % 20 + 1}\tA\tC\t{label}" for number, label in enumerate(labels)]
    rows += ["chr1\t1\tACGTACGT\tA\tS", "chr1\t1\ta\tg"]
    path = tmp_path / "a.tsv"
    path.write_text(HEAD + "\n\n".join(rows))
    variants, skipped = read_labelled(path, "kind", CLASSES, genome, 4)
    assert len(variants) + sum(skipped.values()) == len(rows)
    assert [variant.label for variant in variants] == [0, 1, 0, 1]
    assert skipped["without a label"] == 2 and skipped["longer than 4 bases"] == 1
    assert skipped['labelled "'] == skipped['labelled "W'] == skipped[f"labelled {'x' * 79}…"] == 1


def test_rows_of_a_vcf_add_up_too(genome: Genome, tmp_path: Path) -> None:
    alternates = ["C", "<DEL>", "A", ".", "*", "G", "CCCCC"]
    infos = ["KIND=W", "KIND=S", "KIND=S", ".", "KIND=S", "KIND=other", "KIND=S"]
    head = '##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##INFO=<ID=KIND,Number=1,Type=String,Description="x">\n'
    head += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    path = tmp_path / "a.vcf"
    rows = [f"chr1\t1\t.\tA\t{alternate}\t.\t.\t{info}\n" for alternate, info in zip(alternates, infos, strict=True)]
    path.write_text(head + "".join(rows))
    variants, skipped = read_labelled(path, "KIND", CLASSES, genome, 4)
    assert len(variants) == 1 and len(variants) + sum(skipped.values()) == len(rows)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"chr1\t{'1' * 5000}\tA\tC\tW", f", line 2: pos must lie within 1 and 100, got '{'1' * 79}…'"),
        (f"chr1\t1\tA\tC\t{'W' * 140_000}", ", line 2: field larger than field limit (131072)"),
        (f"{'c' * 140_000}\t1\tA\tC\tW", ", line 2: field larger than field limit (131072)"),
        (f"{'c' * 130_000}\t1\tA\tC\tW", f", line 2: the FASTA has no contig '{'c' * 79}…'; there are chr1, chr2"),
        (f"chr1\t1\t{'!' * 90}\tC\tW", f", line 2: ref must be bases (A, C, G, T, N), got '{'!' * 79}…'"),
        ("chr1\t1\tA\tC\tW" * 200_000, ", line 2 has more than 1,048,576 characters; expected a row of a table"),
        ("chr1\t\x1b[31m\tA\tC\tW", r", line 2: pos must lie within 1 and 100, got '\x1b[31m'"),
        ("\xff1\t1\tA\tC\tW", ", line 2: the FASTA has no contig 'ÿ1'"),
        ("chr1", ", line 2: pos must lie within 1 and 100, got ''"),
    ],
)
def test_a_row_that_is_no_variant(row: str, words: str, genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"{HEAD}{row}\n", "utf-8")
    with pytest.raises(UserError) as caught:
        read_labelled(path, "kind", CLASSES, genome, 4)
    assert str(caught.value).startswith(f"{path}{words}") and len(str(caught.value)) < 400


def test_a_column_that_stands_twice(genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(HEAD.replace("\n", "\tpos\n") + "chr1\t1\tA\tC\tW\t5\n")
    with pytest.raises(UserError, match=r"a\.tsv has 2 columns 'pos'; expected one"):
        read_labelled(path, "kind", CLASSES, genome, 4)


def test_a_damaged_table(genome: Genome, tmp_path: Path) -> None:
    whole = gzip.compress((HEAD + "chr1\t1\tA\tC\tW\n" * 50).encode())
    bent = bytearray(whole)
    bent[-6] ^= 1  # of the checksum
    contents = {"cut": whole[:-20], "stub": whole[:2], "bent": bytes(bent), "tail": whole + b"rubbish"}
    for name, content in contents.items():
        path = tmp_path / f"{name}.tsv.gz"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}\.tsv\.gz is a (truncated|damaged) gzip file"):
            read_labelled(path, "kind", CLASSES, genome, 4)


def test_intervals_hold_their_first_base_and_not_their_stop() -> None:
    intervals = [Interval(1, 4, 9), Interval(0, 20, 30), Interval(0, 5, 10), Interval(0, 10, 12)]
    variants = [
        LabelledVariant(record, Mutation(start, start + 1, b"\1"), 0)
        for record, start in [
            (0, 4),
            (0, 5),
            (0, 9),
            (0, 10),
            (0, 11),
            (0, 12),
            (0, 30),
            (1, 3),
            (1, 8),
            (1, 9),
            (2, 4),
        ]
    ]
    inside = [(variant.record, variant.mutation.start) for variant in in_intervals(variants, intervals)]
    assert inside == [(0, 5), (0, 9), (0, 10), (0, 11), (1, 8)]
