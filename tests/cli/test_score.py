"""A VCF in, the same rows out with scores: every kind of row, whatever the file around it looks like."""

import gzip
import json
from pathlib import Path

import numpy as np
import pysam
import pytest
from pysam import bcftools

from genoattn.cli import score
from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases
from tests.toy_models import CAUSAL, MASKED, SHARES, VARIANTS, memoryless, saved, toy_model

pytestmark = [pytest.mark.usefixtures("alone"), pytest.mark.filterwarnings("ignore")]
HEADER = (
    '##fileformat=VCFv4.2\n##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">\n##contig=<ID=one,length=300>\n'
)
HEADER += '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS\n"
PLACE = 100
SITE = "ACGTTGCA"
"""Bases 101 to 108 of record `one`."""

CASES = {
    "SNV": ("101 A C", ""),
    "lower case": ("101 a g", ""),
    "MNV": ("102 CG TT", ""),
    "insertion": ("104 T TGG", ""),
    "deletion": ("103 GTT G", ""),
    "complex": ("103 GTT CA", ""),
    "several ALTs": ("101 A C,<DEL>,G", ",symbolic,"),
    "IUPAC": ("101 A R", "ambiguous"),
    "N": ("101 A N", "ambiguous"),
    "no letters": ("101 A X1", "not_bases"),
    "wrong REF": ("102 A G", "wrong_ref"),
    "swapped REF": ("102 A C", "wrong_ref"),
    "star": ("103 G *", "star"),
    "symbol": ("103 G <DEL>", "symbolic"),
    "breakend": ("104 T T[two:5[", "breakend"),
    "single breakend": ("104 T T.", "breakend"),
    "no ALT": ("105 T .", "no_alt"),
    "same": ("105 T T", "same"),
    "duplicate": ("101 A C", ""),
    "first base": ("1 G T", ""),
    "last base": ("300 {last} {last}A", ""),
    "deletion at the end": ("299 {pair} {before}", ""),
    "beyond the end": ("300 {last}A {last}", "outside"),
    "before the first base": ("0 N A", "outside"),
    "unknown contig": ("five:7 A C", "unknown_contig"),
    "too long": ("60 {long} {first}", "too_long"),
}
"""POS, REF and ALT of a row, and the reasons of its ALTs."""


@pytest.fixture(scope="module")
def place(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FASTA, and a model of independent bases with windows of 32 bases."""
    folder = tmp_path_factory.mktemp("score")
    letters = decode_bases(np.random.default_rng(0).integers(0, 4, 300, np.uint8))
    letters = f"G{letters[1:PLACE]}{SITE.lower()}{letters[PLACE + len(SITE) :]}"
    (folder / "x.fa").write_text(f">one\n{letters}\n>two\n{letters[:50]}RN\n")
    saved(folder / "model", memoryless(toy_model(CAUSAL)))
    return folder


def rows_of(place: Path, names: list[str]) -> list[str]:
    letters = (place / "x.fa").read_text().split("\n")[1].upper()
    words = {"last": letters[-1], "before": letters[-2], "pair": letters[-2:], "long": letters[59:99]}
    rows = []
    for name in names:
        position, ref, alt = CASES[name][0].format(**words, first=letters[59]).split()
        contig, _, position = position.rpartition(":")
        rows.append("\t".join([contig or "one", position, name.replace(" ", "_"), ref, alt, "7.5", "PASS", "DP=3"]))
    return [f"{row}\tGT\t{'.' if number else '0|1'}\n" for number, row in enumerate(rows)]


def run(place: Path, vcf: Path, *words: str, out: str = "out.vcf.gz") -> int:
    files = [f"checkpoint={place}/model", f"fasta={place}/x.fa", f"vcf={vcf}", f"out={vcf.parent}/{out}"]
    return main(["score", *files, f"hydra.run.dir={vcf.parent}/run", *words])


def text_of(file: Path) -> str:
    data = file.read_bytes()
    return (gzip.decompress(data) if file.name.endswith(".gz") else data).decode()


def read(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in text_of(file).splitlines() if line[0] != "#"]


def info(row: list[str]) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in row[7].split(";"))


def test_every_kind_of_row(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vcf, rows = tmp_path / "in.vcf", rows_of(place, list(CASES))
    vcf.write_text(HEADER + COLUMNS + "".join(rows))
    assert run(place, vcf, "ref_policy=skip") == 0
    scored = read(tmp_path / "out.vcf.gz")
    before = [row.rstrip().split("\t") for row in rows]
    assert [row[:7] + row[8:] for row in scored] == [row[:7] + row[8:] for row in before]
    for row, (name, (_, reasons)) in zip(scored, CASES.items(), strict=True):
        found = info(row)
        assert found.pop("DP") == "3"
        assert found.get("GA_REASON", "") == ",".join(reason or "." for reason in reasons.split(",")) * bool(reasons), (
            name
        )
        values = found.get("GA_LLR", ",".join("." for _ in row[4].split(","))).split(",")
        assert [value == "." for value in values] == [bool(reason) for reason in reasons.split(",")], name
    ratios = {row[2]: info(row).get("GA_LLR") for row in scored}
    assert float(ratios["SNV"]) == pytest.approx(np.log(SHARES[1] / SHARES[0]), abs=1e-5)
    assert float(ratios["lower_case"]) == pytest.approx(np.log(SHARES[2] / SHARES[0]), abs=1e-5)
    assert (
        ratios["several_ALTs"] == f"{ratios['SNV']},.,{ratios['lower_case']}" and ratios["duplicate"] == ratios["SNV"]
    )
    assert float(ratios["MNV"]) == pytest.approx(np.log(SHARES[3] ** 2 / SHARES[1] / SHARES[2]), abs=1e-5)
    table = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert table[0][:5] == ["chrom", "pos", "ref", "alt", "GA_LLR"] and len(table) == len(rows) + 3
    assert table[1][:5] == ["one", "101", "A", "C", ratios["SNV"]] and table[1][-1] == "NA"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["cost/rows"], metrics["cost/wrong_ref"], metrics["cost/symbolic"]) == (26, 2, 2)
    assert "is not sorted" in capsys.readouterr().out and not (tmp_path / "out.vcf.gz.tbi").exists()
    assert str(bcftools.view("-H", str(tmp_path / "out.vcf.gz"))).count("\n") == len(rows)
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        assert next(file).info["GA_LLR"] == pytest.approx((np.log(2),), abs=1e-5)
        assert file.header.contigs["one"].length == 300


def test_a_swapped_row_is_scored_from_alt_to_ref(place: Path, tmp_path: Path) -> None:
    vcf = tmp_path / "in.vcf"
    vcf.write_text(HEADER + COLUMNS + "".join(rows_of(place, ["SNV", "wrong REF", "swapped REF"])))
    assert run(place, vcf, "ref_policy=flip", out="out.vcf") == 0
    first, wrong, swapped = map(info, read(tmp_path / "out.vcf"))
    assert (wrong["GA_REASON"], swapped["GA_REASON"]) == ("wrong_ref", "flipped")
    assert float(swapped["GA_LLR"]) == pytest.approx(np.log(SHARES[1] / SHARES[0]), abs=1e-5) and "GA_LLR" in first


SORTED = ["first base", "SNV", "several ALTs", "MNV", "insertion", "breakend", "last base", "unknown contig"]


@pytest.mark.parametrize("look", ["plain", "gzip", "bgzip", "crlf", "no header", "bare columns", "scored before"])
def test_files_as_they_come(look: str, place: Path, tmp_path: Path) -> None:
    rows = rows_of(place, SORTED)
    text = HEADER + COLUMNS + "".join(rows)
    if look in ("no header", "bare columns"):
        text = ("" if look == "no header" else COLUMNS) + "".join(rows)
    if look == "scored before":
        text = text.replace("DP=3", "GA_REASON=old;DP=3;;GA_LLR=1")
        text = f"##INFO=<ID=GA_LLR,Number=1,Type=Float,Description=old>\n{text}"
    vcf = tmp_path / ("in.vcf.gz" if "zip" in look else "in.vcf")
    data = text.replace("\n", "\r\n" if look == "crlf" else "\n").encode()
    vcf.write_bytes(gzip.compress(data) if look == "gzip" else data)
    if look == "bgzip":
        with pysam.BGZFile(str(vcf), "wb") as packed:
            packed.write(data)
    assert run(place, vcf, "embeddings=false") == 0
    out = tmp_path / "out.vcf.gz"
    assert [row[:5] for row in read(out)] == [row.split("\t")[:5] for row in rows]
    assert {info(row).get("DP") for row in read(out)} == {"3"} and info(read(out)[1]).keys() == {"DP", "GA_LLR"}
    with pysam.VariantFile(str(out)) as file:
        found = list(file)
        assert len(found) == len(rows) and len(file.header.samples) == 1
        assert [record.pos for record in file.fetch("one", 100, 104)] == [101, 101, 102, 104, 104]
    assert text_of(out).count("##INFO=<ID=GA_LLR,") == 1
    assert str(bcftools.view("-H", str(out), "one:101-101")).count("\n") == 2


@pytest.mark.parametrize("task", [MASKED, VARIANTS], ids=["masked", "classes"])
def test_the_same_bytes_at_any_batch(task: dict, place: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", toy_model(task))
    vcf = tmp_path / "in.vcf"
    vcf.write_text(HEADER + COLUMNS + "".join(rows_of(place, list(CASES))))
    written = []
    for batch in (1, 64):
        words = [f"checkpoint={model}", "ref_policy=skip", f"batch={batch}"]
        assert run(place, vcf, *words, out=f"{batch}.vcf") == 0
        written.append([(tmp_path / f"{batch}{ending}").read_bytes() for ending in (".vcf", ".tsv")])
    assert written[0] == written[1]
    names = {MASKED["_target_"]: "GA_LLR=", VARIANTS["_target_"]: "GA_P_not_benign="}
    assert written[0][0].count(names[task["_target_"]].encode()) > 5


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        (
            "one\t101\t.\tA\n",
            [],
            "{}/in.vcf, line 1 has 4 columns, separated by tabs, and expected are 8: 'one 101 . A'",
        ),
        (COLUMNS + "one\tx\t.\tA\tC\t.\t.\t.\tGT\t1\n", [], "{}/in.vcf, line 2: POS must be a number, got 'x'"),
        ("#CHROM POS\n", [], "{}/in.vcf, line 1: expected the columns #CHROM, POS, ID, REF, ALT, QUAL, FILTER, INFO,"),
        ("one\t1\t.\t\tC\t.\t.\t.\n", [], "{}/in.vcf, line 1: CHROM, REF and ALT must not be empty"),
        ("BCF\2\2", [], "{}/in.vcf is a BCF; expected a VCF, as `bcftools view -Oz` writes it"),
        ("\none\t102\t.\tAG\tC\t.\t.\t.\n", [], "{}/in.vcf, line 2 (one:102): REF is AG, and the FASTA holds CG; is"),
        ("", ["out={}/in.vcf"], "out={}/in.vcf is the VCF that is read; expected another name"),
        ("", ["vcf={}/none.vcf"], "{}/none.vcf does not exist"),
        ("", ["length=1"], "length: expected"),
    ],
)
def test_mistakes(
    text: str, words: list[str], sentence: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = tmp_path / "in.vcf"
    vcf.write_text(text)
    assert run(place, vcf, *(word.format(tmp_path) for word in words)) == 2
    assert capsys.readouterr().err.startswith(sentence.replace("{}", str(tmp_path)))
    assert {file.name for file in tmp_path.iterdir()} <= {"in.vcf", "run"}


def test_a_run_that_fails_leaves_nothing(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vcf = tmp_path / "in.vcf"
    vcf.write_text(HEADER + COLUMNS + "".join(rows_of(place, SORTED)))
    monkeypatch.setattr(score.VariantScorer, "score", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(place, vcf)
    assert {file.name for file in tmp_path.iterdir()} == {"in.vcf", "run"}


def test_a_position_that_no_index_holds(place: Path, tmp_path: Path) -> None:
    vcf = tmp_path / "in.vcf"
    vcf.write_text(HEADER + COLUMNS + "".join(rows_of(place, ["SNV"])).replace("101", "9999999999"))
    (tmp_path / "out.vcf.gz.tbi").write_text("of an earlier file")
    assert run(place, vcf) == 0
    assert info(read(tmp_path / "out.vcf.gz")[0])["GA_REASON"] == "outside" and not list(tmp_path.glob("*.tbi"))
