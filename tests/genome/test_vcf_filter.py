"""Records are kept by FILTER or by an expression of bcftools, whatever the header lacks, and the rest is counted."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from genoattn.errors import UserError
from genoattn.genome.labelled_variants import read_labelled
from genoattn.genome.sequence_store import open_genome
from genoattn.genome.vcf import read_variants
from genoattn.genome.vcf_filter import _message

HEADER = [
    "##fileformat=VCFv4.2",
    "##contig=<ID=chr,length=40>",
    '##FILTER=<ID=LOW,Description="x">',
    '##INFO=<ID=AF,Number=A,Type=Float,Description="x">',
    '##INFO=<ID=KIND,Number=1,Type=String,Description="x">',
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">',
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="x">',
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tsample",
]
ROWS = [  # position, REF, ALT, QUAL, FILTER, INFO, depth
    "9 A C 30 PASS AF=0.5;KIND=x 10",
    "3 A C 10 LOW AF=0.1;KIND=y 3",
    "5 A <DEL> 40 . . 30",
    "7 A T 40 LOW;q10 AF=0.2 4",  # the header has no q10
]


def write(folder: Path, without: str = "") -> Path:
    lines = [line for line in HEADER if not without or without not in line]
    for row in ROWS:
        position, reference, alternate, quality, name, info, depth = row.split()
        fields = ["chr", position, ".", reference, alternate, quality, name, info, "GT:DP", f"1:{depth}"]
        lines.append("\t".join(fields))
    path = folder / "a.vcf"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("vcf_filter", "without", "kept", "left_out"),
    [
        (None, "", [9, 3, 7], 0),
        ("PASS", "", [9], 2),
        ("QUAL>=20", "##contig", [9, 7], 1),
        ("QUAL>=20 && INFO/AF>0.3", "", [9], 3),
        ('FILTER="LOW" && FMT/DP<4', "##FILTER", [3], 3),
    ],
)
def test_the_records_that_a_filter_keeps(
    vcf_filter: str | None, without: str, kept: list[int], left_out: int, tmp_path: Path
) -> None:
    variants = read_variants(write(tmp_path, without), {"chr": 40}, vcf_filter)
    assert [(variant.start + 1, variant.record) for variant in variants.by_contig["chr"]] == [
        (position, [9, 3, 5, 7].index(position) + 1) for position in kept
    ]
    assert variants.skipped.get("by data.vcf_filter", 0) == left_out and variants.total == 4


def test_records_that_are_left_out_may_lie_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + "decoy\t5\t.\tA\tC\t3\tLOW\t.\tGT:DP\t1:2\n")
    assert read_variants(path, {"chr": 40}, "PASS").total == 5
    with pytest.raises(UserError, match="the FASTA has no contig 'decoy'"):
        read_variants(path, {"chr": 40})


@pytest.mark.parametrize(
    ("vcf_filter", "message"),
    [
        ("pass", 'the tag "pass" is not defined in the VCF header'),
        ("QUAL>>", 'Error occurred while processing the filter "QUAL>>" (1:1)'),
    ],
)
def test_what_bcftools_does_not_understand_is_said_in_a_sentence(
    vcf_filter: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path)
    with pytest.raises(UserError) as error:
        read_variants(path, {"chr": 40}, vcf_filter)
    words = f"data.vcf_filter={vcf_filter} is neither PASS nor an expression that bcftools can apply to {path}: "
    assert str(error.value) == words + message and capfd.readouterr() == ("", "")


def test_files_in_an_expression_are_those_of_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kinds.txt").write_text("x\n")
    (tmp_path / "pysam.py").write_text("raise SystemExit('not the installed one')\n")
    monkeypatch.chdir(tmp_path)
    variants = read_variants(write(tmp_path), {"chr": 40}, "INFO/KIND=@kinds.txt")
    assert [variant.start for variant in variants.by_contig["chr"]] == [8]


def test_a_crash_of_bcftools_is_said_too() -> None:
    assert _message(CompletedProcess([], -8, stderr="")) == "it was ended by SIGFPE"


def test_labelled_variants_are_filtered_with_their_own_labels(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(f">chr\n{'A' * 40}\n")
    genome = open_genome([tmp_path / "a.fa"], tmp_path / "cache")
    classes = {"cold": ["x"], "hot": ["y"]}
    labelled, skipped = read_labelled(write(tmp_path), "KIND", classes, genome, 5, "QUAL<20")
    assert [(variant.mutation.start, variant.label) for variant in labelled] == [(2, 1)]
    assert skipped == {"by data.vcf_filter": 3}
