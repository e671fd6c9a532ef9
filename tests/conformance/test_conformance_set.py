"""The conformance set says what a slow construction and bcftools say, genoattn reads it so, and the check can fail."""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pysam
import pytest
from pysam import bcftools

from genoattn.genome.alphabet import encode_bases
from genoattn.genome.vcf import read_variants, to_mutations
from tests.conformance.check import REFERENCE, Row, check, copies, main, read_set
from tests.conformance.genoattn_windows import windows

HEADER, ROWS = read_set()


def reference() -> dict[str, str]:
    """The records of the FASTA, in upper case."""
    records = [part.split("\n", 1) for part in REFERENCE.read_text().split(">")[1:]]
    return {name: letters.replace("\n", "").upper() for name, letters in records}


class Change(NamedTuple):
    """A row that is read: its 0-based position, REF, and the ALT that its genotype names."""

    row: Row
    contig: str
    at: int
    bases: str
    alternate: str


def changes() -> list[Change]:
    """The rows that are read, by position."""
    found = []
    for row in ROWS:
        if row.outcome == "read":
            contig, position, _, bases, alternates, *_, genotype = row.line.split("\t")
            number = next(int(one) for one in genotype.replace("|", "/").split("/") if one not in ".0")
            alternate = alternates.split(",")[number - 1].upper()
            found.append(Change(row, contig, int(position) - 1, bases.upper(), alternate))
    return sorted(found, key=lambda change: change[1:3])


def slow_places(rows: list[Change]) -> dict[str, list[str]]:
    """What stands in the place of each reference base in the sample."""
    genome = reference()
    places = {name: list(letters) for name, letters in genome.items()}
    for _, contig, at, bases, alternate in rows:
        is_changed = places[contig][at] != genome[contig][at]  # by the row before, whose base is the anchor of this one
        places[contig][at] = places[contig][at] + alternate[1:] if is_changed else alternate
        places[contig][at + 1 : at + len(bases)] = [""] * (len(bases) - 1)
    return places


def sample_of(rows: list[Change]) -> dict[str, str]:
    return {name: "".join(letters) for name, letters in slow_places(rows).items()}


def write(path: Path, rows: list[Change]) -> str:
    """A bgzipped and indexed VCF of rows, without genotypes; REF is what the FASTA holds."""
    genome = reference()
    lines = [line for line in HEADER if line.startswith("##") and "FORMAT" not in line]
    lines.append("#CHROM POS ID REF ALT QUAL FILTER INFO".replace(" ", "\t"))
    for row, contig, at, bases, alternate in rows:
        reference_bases = genome[contig][at : at + len(bases)]
        lines.append("\t".join([contig, str(at + 1), row.name, reference_bases, alternate, ".", ".", "."]))
    path.write_text("\n".join(lines) + "\n")
    return pysam.tabix_index(str(path), preset="vcf", force=True)


def consensus(fasta: Path, vcf: str) -> dict[str, str]:
    """The sample that bcftools makes, in upper case."""
    records = [part.split("\n", 1) for part in bcftools.consensus("--fasta-ref", str(fasta), vcf).split(">")[1:]]
    return {name: letters.replace("\n", "").upper() for name, letters in records}


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    """A copy of the reference: bcftools puts an index beside it."""
    return Path(shutil.copy(REFERENCE, tmp_path))


def test_genoattn_reads_the_set_as_expected() -> None:
    assert list(check(windows, sentences=True)) == []


def test_genoattn_skips_for_the_reasons_in_the_set(tmp_path: Path) -> None:
    (tmp_path / "read.vcf").write_bytes(copies(HEADER, ROWS)["plain.vcf"])
    reasons = Counter(row.reason for row in ROWS if row.outcome == "skipped")
    overlapping, codes = reasons.pop("overlapping"), encode_bases(reference()["chr"])
    variants = read_variants(tmp_path / "read.vcf", {name: len(letters) for name, letters in reference().items()})
    assert variants.skipped == reasons
    assert to_mutations(variants.by_contig["chr"], codes, "chr", "read.vcf").overlapping == overlapping


def test_windows_are_those_of_a_slow_construction() -> None:
    rows = changes()
    places = slow_places(rows)
    found = {
        row.name: "".join(places[contig][:at])[-20:] + "".join(places[contig][at:])[:20] for row, contig, at, *_ in rows
    }
    assert found == {row.name: row.window for row in ROWS if row.outcome == "read"}
    assert {len(window) for name, window in found.items() if "_base" not in name} == {40}


def test_bcftools_makes_the_same_sample_before_and_after_it_moves_indels(fasta: Path, tmp_path: Path) -> None:
    rows = changes()
    assert consensus(fasta, write(tmp_path / "all.vcf", rows)) == sample_of(rows)
    rows = [change for change in rows if not change.row.name.startswith(("reference_r", "alt_r"))]  # norm knows no R
    normal = tmp_path / "normal.vcf.gz"
    words = ("--check-ref", "e", "--fasta-ref", str(fasta), "--output-type", "z", "--output", str(normal))
    bcftools.norm(*words, write(tmp_path / "some.vcf", rows), catch_stdout=False)
    assert consensus(fasta, pysam.tabix_index(str(normal), preset="vcf")) == sample_of(rows)
    with pysam.VariantFile(str(normal)) as records:
        places = {record.id: record.pos - 1 for record in records}
    assert sum(places[change.row.name] != change.at for change in rows) > 5


@pytest.mark.parametrize("name", ["wrong_ref", "wrong_ref_second_base"])
def test_bcftools_norm_refuses_a_wrong_ref_too(name: str, fasta: Path, tmp_path: Path) -> None:
    line = next(row.line for row in ROWS if row.name == name)
    (tmp_path / "wrong.vcf").write_text("\n".join([*HEADER, line, ""]))
    with pytest.raises(pysam.SamtoolsError, match="Reference allele mismatch"):
        bcftools.norm("--check-ref", "e", "--fasta-ref", str(fasta), str(tmp_path / "wrong.vcf"))


def first_alternate(fasta: Path, vcf: Path) -> Mapping[str, str | None]:
    """A reader that ignores genotypes."""
    text = vcf.read_bytes()
    if vcf.suffix == ".vcf":
        vcf.write_bytes(text.replace(b"\t0/2", b"\t1").replace(b"\t2|1", b"\t1"))
    return windows(fasta, vcf)


def test_a_reader_that_differs_is_told_where(capsys: pytest.CaptureFixture[str]) -> None:
    complaints = list(check(first_alternate))
    wrong = ("two_alts_second", "two_alts_both", "two_alts_of_two_lengths")
    names = [f"{copy}, {name}: expected window " for copy in ("plain.vcf", "crlf.vcf") for name in wrong]
    names.append("genotype_of_no_alt.vcf: expected an error such as ")
    assert len(complaints) == len(names)
    assert all(sentence.startswith(name) for sentence, name in zip(complaints, names, strict=True))
    assert [sentence.split(":")[0] for sentence in check(lambda *_: {"no_call": "ACGT"}) if "no_call" in sentence] == [
        f"{copy}, no_call" for copy in ("plain.vcf", "crlf.vcf", "packed.vcf.gz")
    ]
    assert main([]) == 2 and main([f"{__name__}:nothing"]) == 1
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "plain.vcf: expected no error, got ValueError: nothing" and len(output) == 3


def nothing(*_: Path) -> Mapping[str, str | None]:
    """A reader that refuses everything."""
    raise ValueError("nothing")
