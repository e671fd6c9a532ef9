"""A VCF in, the same rows out with scores: every kind of row, whatever the file around it looks like."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
from pysam import bcftools

from genoattn.cli import score
from genoattn.cli.main import main
from genoattn.comparison import launcher
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.sequence_store import Genome
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
    if look == "bgzip":  # as annotation for another program
        bcftools.index("--tbi", str(vcf), catch_stdout=False)
        annotated = str(bcftools.annotate("-a", str(out), "-c", "INFO/GA_LLR", str(vcf)))
        assert annotated.count("GA_LLR=") == sum("GA_LLR" in info(row) for row in read(out))


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


def outputs(folder: Path, name: str = "out") -> list[bytes]:
    return [(folder / f"{name}{ending}").read_bytes() for ending in (".vcf.gz", ".vcf.gz.tbi", ".tsv")]


@pytest.fixture
def some_rows(tmp_path: Path, place: Path) -> Path:
    """Six rows with eight ALTs, of which two have no scores."""
    vcf = tmp_path / "in.vcf"
    vcf.write_text(HEADER + COLUMNS + "".join(rows_of(place, SORTED[:6])))
    return vcf


@pytest.fixture
def scored_alleles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of alleles of each call of the scorer."""
    numbers: list[int] = []
    real = score.VariantScorer.score

    def counted(self: score.VariantScorer, genome: Genome, alleles: list) -> list:
        numbers.append(len(alleles))
        return real(self, genome, alleles)

    monkeypatch.setattr(score.VariantScorer, "score", counted)
    return numbers


def test_the_same_bytes_of_any_number_of_shards(place: Path, some_rows: Path) -> None:
    home = some_rows.parent
    for shards in (1, 2, 7):
        words = [f"shards={shards}", f"hydra.run.dir={home}/{shards}"]
        assert run(place, some_rows, *words, out=f"{shards}.vcf.gz") == 0
        assert outputs(home, str(shards)) == outputs(home, "1")
        metrics = json.loads((home / str(shards) / "metrics.json").read_text())
        assert [metrics[f"cost/{name}"] for name in ("rows", "alternates", "symbolic", "breakend")] == [6, 8, 1, 1]
    assert len(read(home / "7.vcf.gz")) == 6 and len(list((home / "7" / "parts").iterdir())) == 7


def test_a_run_with_shards_goes_on_where_it_was_killed(
    place: Path, some_rows: Path, scored_alleles: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Parts that are missing, half written or without a record are done again, and no others."""
    home, words = some_rows.parent, ["shards=7", "length=24"]
    assert run(place, some_rows, *words) == 0
    whole, calls = outputs(home), len(scored_alleles)
    for file in home.glob("out.*"):
        file.unlink()
    parts = home / "run" / "parts"
    kept = {name: (parts / name / "rows.tsv").stat().st_mtime_ns for name in ("1-of-7", "4-of-7", "5-of-7", "6-of-7")}
    shutil.rmtree(parts / "2-of-7")
    (parts / "3-of-7" / "shard.json").unlink()
    rows = parts / "7-of-7" / "rows.tsv"
    rows.write_bytes(rows.read_bytes()[:-9])
    capsys.readouterr()
    assert run(place, some_rows, *words) == 0
    assert outputs(home) == whole and len(scored_alleles) == calls + 3
    assert {name: (parts / name / "rows.tsv").stat().st_mtime_ns for name in kept} == kept
    printed = capsys.readouterr().out
    assert "4 of 7 shards are done already" in printed
    assert "shard 7/7 is made again: its rows are not as they were written" in printed
    (parts / "7-of-7" / "shard.json").write_text("{")
    assert run(place, some_rows, *words) == 0 and outputs(home) == whole and len(scored_alleles) == calls + 4


def test_shards_of_other_inputs_are_not_mixed_in(
    place: Path, some_rows: Path, scored_alleles: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, some_rows, "shards=2") == 0 and len(scored_alleles) == 2
    assert run(place, some_rows, "shards=2", "batch=3") == 0 and len(scored_alleles) == 2
    assert run(place, some_rows, "shards=2", "both_strands=true") == 0 and len(scored_alleles) == 4
    assert "shard 1/2 is made again: both_strands changed\n" in capsys.readouterr().out
    some_rows.write_text(some_rows.read_text().replace("DP=3", "DP=4"))
    assert run(place, some_rows, "shards=2", "both_strands=true") == 0 and len(scored_alleles) == 6
    assert "shard 2/2 is made again: vcf changed\n" in capsys.readouterr().out
    assert {info(row)["DP"] for row in read(some_rows.parent / "out.vcf.gz")} == {"4"}


def test_shards_one_by_one_are_joined(place: Path, some_rows: Path, scored_alleles: list[int]) -> None:
    home = some_rows.parent
    assert run(place, some_rows) == 0
    whole, parts = outputs(home), f"parts={home}/shared"
    for number in (3, 1, 2):
        assert run(place, some_rows, f"shard={number}/3", parts, out="joined.vcf.gz") == 0
        assert not list(home.glob("joined*"))
    assert json.loads((home / "run" / "metrics.json").read_text())["cost/rows"] == 2
    scored_alleles.clear()
    assert run(place, some_rows, "shards=3", parts, out="joined.vcf.gz") == 0
    assert outputs(home, "joined") == whole and not scored_alleles


def test_a_launcher_starts_this_program_for_each_missing_shard(
    place: Path, some_rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = some_rows.parent
    assert run(place, some_rows, f"parts={home}/run/parts", "shard=1/3") == 0
    commands: list[list[str]] = []

    class Started:
        """A process that does nothing."""

        def __init__(self, command: list[str], **_: object):
            commands.append(command)

        def wait(self, _: object) -> int:
            return 1

    spread_words = ["shards=3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    with monkeypatch.context() as patch:
        patch.setattr(launcher.subprocess, "Popen", Started)
        assert run(place, some_rows, *spread_words) == 2
    message = f"2 of 3 shards failed: see {home}/run/parts/2-of-3/log.txt; the same command with parts='{home}/run/"
    assert message in capsys.readouterr().err and not list(home.glob("out.*"))
    assert [command[1:4] for command in commands] == [["-m", "genoattn", "score"]] * 2
    for command in commands:
        assert main(command[3:]) == 0
    assert run(place, some_rows, *spread_words) == 0
    joined = outputs(home)
    assert run(place, some_rows, f"hydra.run.dir={home}/alone") == 0 and outputs(home) == joined


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["shard=8/7", "parts=x"], "shard=8/7: expected number/total, such as 2/7\n"),
        (["shard='2'", "parts=x"], "shard=2: expected number/total, such as 2/7\n"),
        (["shard=2/7"], "shard=2/7 needs parts=…, a folder that all shards share\n"),
        (
            ["shard=2/7", "shards=3", "parts=x"],
            "shard=2/7 and shards=3 contradict each other; leave out",
        ),
        (["shards=0"], "shards: expected at least 1, got 0\n"),
        (["parts={}/in.vcf"], "{}/in.vcf/1-of-1 cannot be written: Not a directory\n"),
    ],
)
def test_mistakes_with_shards(
    words: list[str], sentence: str, place: Path, some_rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = some_rows.parent
    assert run(place, some_rows, *(word.format(home) for word in words)) == 2
    assert capsys.readouterr().err.startswith(sentence.replace("{}", str(home)))
    assert {file.name for file in home.iterdir()} <= {"in.vcf", "run"}


def test_a_vcf_that_changes_while_it_is_scored(
    place: Path, some_rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = score.report

    def change(*arguments: Any) -> None:
        some_rows.write_text(some_rows.read_text().replace("one\t101\t", "one\t1\t", 1))
        real(*arguments)

    monkeypatch.setattr(score, "report", change)
    assert run(place, some_rows) == 2
    assert capsys.readouterr().err == f"{some_rows} changed while it was scored; start again\n"
    assert not list(some_rows.parent.glob("out.*"))
