"""Two assemblies in, a VCF out: planted mutations come back, whatever the order and strand of the contigs."""

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pysam
import pytest
from pysam import bcftools

from genoattn.cli import calls_page, detect, detect_shards
from genoattn.cli.main import main
from genoattn.data.example import Example
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.genome import block_alignment
from genoattn.genome.alphabet import UNKNOWN, decode_bases, encode_bases, reverse_complement
from genoattn.genome.mutations import LONG, Mutation, mutated_sequence
from genoattn.genome.simulate import Rates, simulate
from genoattn.genome.vcf import read_variants, to_mutations
from genoattn.models import detection, predictor
from genoattn.models.detection import where_sequences_differ
from tests.toy_genomes import write_genome
from tests.toy_models import saved, toy_model

pytestmark = pytest.mark.usefixtures("alone", "quick")
RATES = Rates(rate=0.01, snv=0.7, mnv=0.1, insertion=0.1, deletion=0.1, longest=8)
OUTPUTS = ("substitution", "insertion", "deletion")


def perfect(examples: Sequence[Example]) -> Iterator[np.ndarray]:
    """A model that is always right, because it looks at the labels."""
    for example in examples:
        yield np.stack([(example.targets[output] == 1).astype(float) for output in OUTPUTS], 1)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program with a model that is always right."""
    card = SimpleNamespace(length=128, to_json=dict)
    loaded = SimpleNamespace(card=card, predictor=SimpleNamespace(task=SideBySide()))
    monkeypatch.setattr(detect, "saved_model", lambda config: loaded)
    monkeypatch.setattr(detect, "window_scorer", lambda *_: perfect)


def write_fasta(file: Path, records: dict[str, np.ndarray], lower: bool = False) -> None:
    letters = {name: decode_bases(codes) for name, codes in records.items()}
    letters = {name: text.lower() if lower else text for name, text in letters.items()}
    file.write_text("".join(f">{name} made up\n{text}\n" for name, text in letters.items()))


def run(tmp_path: Path, *words: str, out: str = "calls.vcf.gz", name: str = "run") -> int:
    files = [f"reference={tmp_path}/reference.fa", f"sample={tmp_path}/sample.fa", f"out={tmp_path}/{out}"]
    return main(["detect", "checkpoint=x", *files, f"hydra.run.dir={tmp_path}/{name}", *words])


def planted(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A reference of two records, and a sample of it with mutations of every size, rearranged and turned."""
    rng = np.random.default_rng(seed)
    reference = {"one": rng.integers(0, 4, 30_000, np.uint8), "two": rng.integers(0, 4, 9_000, np.uint8)}
    one = mutated_sequence(reference["one"], simulate(reference["one"], RATES, rng))
    one = np.insert(one, 3_000, rng.integers(0, 4, 300, np.uint8))
    one = np.delete(one, slice(6_000, 11_000))
    one[15_000:15_600] = reverse_complement(one[15_000:15_600])
    one[18_000:18_200] = UNKNOWN
    two = mutated_sequence(reference["two"], simulate(reference["two"], RATES, rng))
    sample = {"b": reverse_complement(two), "a2": one[21_000:], "new": rng.integers(0, 4, 500, np.uint8)}
    return reference, sample | {"a1": reverse_complement(one[:21_000])}


@pytest.mark.parametrize("seed", range(3))
def test_the_vcf_makes_the_sample_of_the_reference(seed: int, oracle: None, tmp_path: Path) -> None:
    reference, sample = planted(seed)
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample, lower=True)
    assert run(tmp_path) == 0
    variants = read_variants(tmp_path / "calls.vcf.gz", {name: len(codes) for name, codes in reference.items()})
    mutations = {
        name: to_mutations(variants.by_contig[name], codes, name, "calls").mutations
        for name, codes in reference.items()
    }
    assert sum(map(len, mutations.values())) == variants.total
    held = 0
    for row in (tmp_path / "calls.blocks.bed").read_text().splitlines():
        name, *place, contig, _, strand = row.split("\t")
        start, stop = map(int, place)
        at, to = map(int, contig.rpartition(":")[2].split("-"))
        piece = sample[contig.rpartition(":")[0]][at - 1 : to]
        piece = reverse_complement(piece) if strand == "-" else piece
        within = [
            Mutation(first - start, last - start, letters)
            for first, last, letters in mutations[name]
            if start <= first < stop
        ]
        made = mutated_sequence(reference[name][start:stop], within)
        assert np.array_equal(made[piece < 4], piece[piece < 4]) and len(made) == len(piece)
        held += len(piece)
    assert held > 0.95 * (sum(map(len, sample.values())) - 700)
    sizes = {len(alternate) - len(removed) for _, _, removed, alternate, _ in variants.by_contig["one"]}
    assert max(sizes) == 300 and -5_100 < min(sizes) < -4_900


def test_what_was_not_tested_is_written(oracle: None, tmp_path: Path) -> None:
    reference, sample = planted(0)
    del sample["b"]
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    assert run(tmp_path) == 0
    rows = [row.split("\t") for row in (tmp_path / "calls.untested.bed").read_text().splitlines()]
    assert ["two", "0", "9000", "absent"] in rows
    rows = [row.split("\t") for row in (tmp_path / "calls.unplaced.bed").read_text().splitlines()]
    assert ["new", "0", "500", "absent"] in rows and "unknown" in {row[3] for row in rows}
    track = [row.split("\t") for row in (tmp_path / "calls.bedgraph").read_text().splitlines()]
    assert {row[0] for row in track} == {"one"} and {row[3] for row in track} == {"0", "1"}
    assert all(int(left[2]) <= int(right[1]) for left, right in pairwise(track))


@pytest.mark.filterwarnings("ignore")
def test_bcftools_accepts_the_vcf_and_changes_nothing(oracle: None, tmp_path: Path) -> None:
    reference, sample = planted(1)
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    assert run(tmp_path) == 0
    file, fasta = str(tmp_path / "calls.vcf.gz"), str(tmp_path / "reference.fa")
    normed = str(bcftools.norm("--check-ref", "e", "--fasta-ref", fasta, file))
    before = str(bcftools.view(file))
    rows = [{line for line in text.splitlines() if line[0] != "#"} for text in (before, normed)]
    assert len(rows[0]) > 200 and len(rows[0] - rows[1]) <= 0.01 * len(rows[0])  # indels stop at another mutation
    bare = tmp_path / "bare.vcf.gz"
    bcftools.annotate("-x", "INFO", "-Oz", "-o", str(bare), file, catch_stdout=False)
    bcftools.index("--tbi", str(bare), catch_stdout=False)
    annotated = str(bcftools.annotate("-a", file, "-c", "INFO", str(bare)))  # as annotation for another program
    assert {line for line in annotated.splitlines() if line[0] != "#"} == rows[0]


def test_precision_and_recall_against_a_vcf(oracle: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta, vcf = write_genome(tmp_path, "reference", 0)
    codes = encode_bases("".join(fasta.read_text().splitlines()[1:]))
    variants = read_variants(vcf, {"reference0": len(codes)}).by_contig["reference0"]
    sample = mutated_sequence(codes, to_mutations(variants, codes, "reference0", vcf).mutations)
    write_fasta(tmp_path / "sample.fa", {"s": sample})
    assert run(tmp_path, f"truth={vcf}") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for kind in ("snv", "insertion", "deletion"):
        assert metrics[f"model/reference/{kind}/precision"] == metrics[f"aligner/reference/{kind}/recall"] == 1
    assert metrics["model/sample/snv/calls"] == 13 and metrics["model/reference/deletion_over_50/recall"] is None
    assert metrics["cost/blocks"] == 1 and "Against reference" in capsys.readouterr().out


def test_only_the_regions_of_the_truth_count(oracle: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta, vcf = write_genome(tmp_path, "reference", 0)
    codes = encode_bases("".join(fasta.read_text().splitlines()[1:]))
    write_fasta(
        tmp_path / "sample.fa", {"s": mutated_sequence(codes, simulate(codes, RATES, np.random.default_rng(1)))}
    )
    rows = vcf.read_text().splitlines(keepends=True)
    (tmp_path / "truth.vcf").write_text("".join(row for row in rows if row[0] == "#"))
    (tmp_path / "half.bed").write_text(f"reference0\t0\t{len(codes) // 2}\n")
    assert run(tmp_path, f"truth={tmp_path}/truth.vcf", f"truth_regions={tmp_path}/half.bed", out="x.vcf") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["model/truth/snv/precision"] == 0 and metrics["model/truth/snv/recall"] is None
    (tmp_path / "none.bed").write_text("")
    assert run(tmp_path, f"truth={vcf}", f"truth_regions={tmp_path}/none.bed", out="y.vcf", name="none") == 0
    assert json.loads((tmp_path / "none" / "metrics.json").read_text())["model/reference/snv/precision"] is None
    capsys.readouterr()
    assert run(tmp_path, f"truth_regions={tmp_path}/half.bed", name="third") == 2
    assert capsys.readouterr().err == "truth_regions needs truth, a VCF of the sample's true mutations\n"


def test_precision_and_recall_by_region(oracle: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Regions of a GFF3 by type, and of a BED by column 4; together they are what counts at all."""
    fasta, vcf = write_genome(tmp_path, "reference", 0)
    codes = encode_bases("".join(fasta.read_text().splitlines()[1:]))
    variants = read_variants(vcf, {"reference0": len(codes)}).by_contig["reference0"]
    mutations = to_mutations(variants, codes, "reference0", vcf).mutations
    write_fasta(tmp_path / "sample.fa", {"s": mutated_sequence(codes, mutations)})
    half, rest = len(codes) // 2, len(codes) // 2 + 100
    (tmp_path / "x.gff3").write_text(
        f"reference0\t.\tCDS\t1\t{half}\t.\t+\t0\tID=a\nreference0\t.\ttRNA\t{rest + 1}\t{len(codes)}\t.\t+\t.\t.\n"
    )
    (tmp_path / "x.bed").write_text(f"reference0\t0\t{half}\tCDS\nreference0\t{rest}\t{len(codes)}\ttRNA\n")
    found = []
    for regions in ("x.gff3", "x.bed", "x.gff3:CDS"):
        words = (f"truth={vcf}", f"truth_regions={tmp_path}/{regions}")
        assert run(tmp_path, *words, out="x.vcf", name=f"run{len(found)}") == 0
        text = (tmp_path / f"run{len(found)}" / "metrics.json").read_text()
        found.append({name: value for name, value in json.loads(text).items() if "/reference/" in name})
    assert found[0] == found[1]
    snvs = [found[0][f"model/reference/snv{place}/events"] for place in ("", "@CDS", "@tRNA")]
    assert snvs[0] == snvs[1] + snvs[2] and min(snvs) > 0
    assert found[0]["model/reference/snv@tRNA/recall"] == found[0]["model/reference/snv@CDS/precision"] == 1
    assert found[2]["model/reference/snv/events"] == found[2]["model/reference/snv@CDS/events"] == snvs[1]
    assert "Against reference, by region: model" in capsys.readouterr().out
    (tmp_path / "x.bed").write_text("".join(f"reference0\t{place}\t{place + 9}\tg{place}\n" for place in range(41)))
    assert run(tmp_path, f"truth={vcf}", f"truth_regions={tmp_path}/x.bed", out="y.vcf", name="many") == 0
    assert "x.bed has 41 names of regions; up to 40 get rows of their own" in capsys.readouterr().out


def test_all_differences_or_those_that_the_model_calls(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, sample = planted(2)
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    assert run(tmp_path, out="some.vcf") == 0
    monkeypatch.setattr(detect, "window_scorer", lambda *_: lambda examples: (0.001 * row for row in perfect(examples)))
    assert run(tmp_path, "all=true", out="all.vcf", name="again") == 0
    assert run(tmp_path, "threshold=0.05", out="low.vcf", name="third") == 0
    rows = {
        name: [line.split("\t") for line in (tmp_path / f"{name}.vcf").read_text().splitlines() if line[0] != "#"]
        for name in ("some", "all", "low")
    }
    assert [row[:5] for row in rows["some"]] == [row[:5] for row in rows["all"]] == [row[:5] for row in rows["low"]]
    assert {row[6] for row in rows["all"]} == {"LowScore", "."} and {row[6] for row in rows["low"]} == {"PASS", "."}


@pytest.mark.parametrize(
    ("probability", "rate", "expected"),
    [(0.01, 0.01, 0.5), (0.0, 0.01, 0.0), (1.0, 0.01, 1.0), (0.5, 0.5, 0.5), (0.02, 0.01, 99 / 148), (0.3, 0.0, 0.3)],
)
def test_a_difference_of_the_sequences_is_evidence(probability: float, rate: float, expected: float) -> None:
    assert where_sequences_differ(probability, rate) == pytest.approx(expected)


def test_without_a_track_only_windows_with_differences_are_scored(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, sample = planted(3)
    sample["b"] = reverse_complement(reference["two"])  # nothing differs
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    seen: list[int] = []

    def counted(examples: Sequence[Example]) -> Iterator[np.ndarray]:
        seen[-1] += len(examples)
        return perfect(examples)

    monkeypatch.setattr(detect, "window_scorer", lambda *_: counted)
    for track in ("true", "false"):
        seen.append(0)
        assert run(tmp_path, f"track={track}", out=f"{track}.vcf", name=track) == 0
    rows = [
        [row for row in (tmp_path / f"{track}.vcf").read_text().splitlines() if row[0] != "#"]
        for track in ("true", "false")
    ]
    assert rows[0] == rows[1] and len(rows[0]) > 100 and seen[1] < 0.9 * seen[0]
    assert (tmp_path / "true.bedgraph").exists() and not (tmp_path / "false.bedgraph").exists()


def test_the_track_as_bigwig(oracle: None, tmp_path: Path) -> None:
    bigwig = pytest.importorskip("pyBigWig", reason="it has no wheel for this Python")
    reference, sample = planted(1)
    del sample["b"]
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    assert run(tmp_path, out="x.vcf") == 0
    track = bigwig.open(str(tmp_path / "x.bw"))
    assert track.chroms() == {name: len(codes) for name, codes in reference.items()}
    rows = [row.split("\t") for row in (tmp_path / "x.bedgraph").read_text().splitlines()]
    written = [(name, int(start), int(stop), float(value)) for name, start, stop, value in rows]
    assert [("one", *interval) for interval in track.intervals("one")] == written
    assert track.intervals("two") is None


ENDINGS = (".vcf.gz", ".vcf.gz.tbi", ".bedgraph", ".blocks.bed", ".untested.bed", ".unplaced.bed")


@pytest.fixture
def in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A saved model that nothing was taught, and windows in fifteen chunks; the numbers of those that are scored."""
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 4, 8_000, np.uint8)
    sample = mutated_sequence(reference, simulate(reference, RATES, rng))
    write_fasta(tmp_path / "reference.fa", {"one": reference})
    write_fasta(tmp_path / "sample.fa", {"a": reverse_complement(sample[5_000:]), "b": sample[:5_000]})
    saved(tmp_path / "toy", toy_model({"_target_": "genoattn.data.tasks.side_by_side.SideBySide"}, length=64))
    monkeypatch.setattr(detection, "CHUNK", 12)
    numbers: list[int] = []
    real = detect_shards.score_chunk

    def counted(windows: detection.BlockWindows, number: int, scorer: detection.WindowScorer) -> np.ndarray:
        numbers.append(number)
        return real(windows, number, scorer)

    monkeypatch.setattr(detect_shards, "score_chunk", counted)
    return numbers


def test_shards_write_the_same_bytes_and_go_on_after_a_kill(
    in_chunks: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever their number and order; parts that are missing or half written are scored again, and no others."""
    written, parts = [], tmp_path / "parts"

    def detected(name: str, *words: str) -> int:
        in_chunks.clear()
        capsys.readouterr()
        assert run(tmp_path, f"checkpoint={tmp_path}/toy", "all=true", *words, out=f"{name}.vcf.gz", name=name) == 0
        if "shard=" not in "".join(words):
            files = [tmp_path / f"{name}{ending}" for ending in ENDINGS] + [tmp_path / name / "metrics.json"]
            written.append([file.read_bytes() for file in files])
        return len(in_chunks)

    chunks = detected("one", "shards=1")
    assert chunks == 15 and len(written[0][2]) > 10_000 and not (tmp_path / "one" / "parts").exists()
    assert detected("two", "shards=2") == chunks
    assert detected("part", "shard=2/7", f"parts={parts}") == 2 and not list(tmp_path.glob("part.*"))
    assert detected("seven", "shards=7", f"parts={parts}") == chunks - 2
    (parts / "1-of-7" / "shard.json").unlink()
    rows = parts / "6-of-7" / "scores.f32"
    rows.write_bytes(rows.read_bytes()[:-4])
    assert 3 < detected("again", "shards=7", f"parts={parts}") < 6
    printed = capsys.readouterr().out
    assert "5 of 7 shards are done" in printed and "shard 6/7 is made again: its rows are not as they" in printed
    assert written == [written[0]] * 4


def test_indels_too_long_for_the_model_are_the_aligners(oracle: None, tmp_path: Path) -> None:
    reference, sample = planted(0)
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    assert run(tmp_path, out="x.vcf") == 0
    rows = [row.split("\t") for row in (tmp_path / "x.vcf").read_text().splitlines() if row[0] != "#"]
    long = [row for row in rows if abs(len(row[3]) - len(row[4])) > LONG]
    assert len(long) >= 2 and {(row[5], row[6], "PROB" in row[7]) for row in long} == {(".", ".", False)}
    assert {row[6] for row in rows if row not in long} == {"PASS"}


def test_the_same_rows_at_any_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fasta, _ = write_genome(tmp_path, "reference", 1)
    codes = encode_bases("".join(fasta.read_text().splitlines()[1:]))
    sample = mutated_sequence(codes, simulate(codes, RATES, np.random.default_rng(0)))
    write_fasta(tmp_path / "sample.fa", {"s": sample})
    words = ("experiment=smoke", "trainer.threads=1", "test.windows=2", "test.threshold_windows=2", "test.resamples=1")
    words = (*words, "control=null", "trainer.max_steps=1", f"data.fasta={fasta}", f"hydra.run.dir={tmp_path}/model")
    assert main(["train", *words]) == 0
    written = []
    for size in (1, 1 << 20):
        monkeypatch.setattr(predictor, "BATCH_BASES", size)
        assert run(tmp_path, f"checkpoint={tmp_path}/model", "all=true", out="x.vcf", name=f"run{size}") == 0
        rows = [row for row in (tmp_path / "x.vcf").read_text().splitlines() if row[0] != "#"]
        written.append((rows, (tmp_path / "x.bedgraph").read_bytes()))
    assert written[0] == written[1] and len(written[0][0]) > 100


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample={}/none.fa"], "{}/none.fa does not exist; did you mean {}/one.fa?"),
        (["out={}/no/x.vcf"], "out={}/no/x.vcf cannot be written: there is no folder {}/no"),
        (["out={}/locked/x.vcf"], "out={}/locked/x.vcf cannot be written: you may not write into {}/locked"),
        (["out={}/x.bcf"], "out={}/x.bcf must end in .vcf or .vcf.gz"),
        (["out={}/dir.vcf"], "out={}/dir.vcf is a folder; expected the name of a file"),
        (["reference={}/comma.fa"], "the reference's record 'a,b' has a sign that no VCF may hold; rename it"),
        (["truth={}/none.vcf"], "{}/none.vcf does not exist"),
        (
            ["reference={}/other.fa"],
            "only 0.0% of the sample's bases have a place on the reference, and at least 10% are needed: the two seem"
            " to be unrelated",
        ),
    ],
)
def test_mistakes(
    words: list[str],
    sentence: str,
    oracle: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference, sample = planted(0)
    (tmp_path / "dir.vcf").mkdir()
    (tmp_path / "locked").mkdir()
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    write_fasta(tmp_path / "one.fa", sample)
    write_fasta(tmp_path / "comma.fa", {"a,b": reference["one"]})
    write_fasta(tmp_path / "other.fa", {"x": np.random.default_rng(9).integers(0, 4, 30_000, np.uint8)})
    monkeypatch.setattr(detect.os, "access", lambda folder, _: not str(folder).endswith("locked"))
    before = {file.name for file in tmp_path.iterdir()}
    assert run(tmp_path, *(word.format(tmp_path) for word in words)) == 2
    assert capsys.readouterr().err == sentence.replace("{}", str(tmp_path)) + "\n"
    assert {file.name for file in tmp_path.iterdir()} - before <= {"run"}


def contents(page: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The settings that a page of calls gives to igv.js, and the data of its tracks and of the reference by name."""
    settings = json.loads(page.read_text().rpartition('getElementById("browser"), ')[2].partition(");\n")[0])
    reference = settings["reference"]
    addresses = {track["name"]: track["url"] for track in settings["tracks"]}
    addresses["reference"] = reference.get("fastaURL") or reference["url"]
    return settings, {name: base64.b64decode(address.partition(",")[2]) for name, address in addresses.items()}


def test_the_page_of_the_calls_holds_them_and_both_assemblies(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, sample = planted(0)
    sample["</script><script>x"] = sample.pop("a1")
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    (tmp_path / "igv.min.js").write_text("igv = '</script>';")
    monkeypatch.setattr(calls_page, "igv_script", lambda: tmp_path / "igv.min.js")
    monkeypatch.setattr(block_alignment, "PIECE", 700)
    assert run(tmp_path, out="x.vcf") == 0
    source = (tmp_path / "x.html").read_text()
    assert source.count("<script>") == source.count("</script>") == 2 and source.count("<button ") > 200
    assert source.count("<td>PASS</td>") + source.count("<td>.</td>") == source.count("<button ")
    settings, data = contents(tmp_path / "x.html")
    for name, file in (("calls", "x.vcf"), ("probability", "x.bedgraph"), ("not tested", "x.untested.bed")):
        assert gzip.decompress(data[name]) == (tmp_path / file).read_bytes()
    assert gzip.decompress(data["blocks"]) == (tmp_path / "x.blocks.bed").read_bytes()
    fasta = gzip.decompress(data["reference"]).decode().split("\n")
    assert fasta == [line for name, codes in reference.items() for line in (f">{name}", decode_bases(codes))] + [""]
    assert settings["tracks"][0]["name"] == "sample" and settings["search"] is False

    (tmp_path / "sample.bam").write_bytes(data["sample"])
    with pysam.AlignmentFile(str(tmp_path / "sample.bam"), check_sq=False) as rows:
        pieces = list(rows)
    assert len(pieces) > 40 and all(row.query_length < 7_000 for row in pieces)
    matched = equal = 0
    for row in pieces:
        contig, _, place = (row.query_name or "").rpartition(":")
        first, last = map(int, place.split("-"))
        codes = sample[contig][first - 1 : last]
        assert row.query_sequence == decode_bases(reverse_complement(codes) if row.is_reverse else codes)
        record = decode_bases(reference[row.reference_name or ""])
        pairs = [(record[there], row.query_sequence[here]) for here, there in row.get_aligned_pairs(matches_only=True)]
        matched, equal = matched + len(pairs), equal + sum(left == right for left, right in pairs)
    blocks = [row.split("\t") for row in (tmp_path / "x.blocks.bed").read_text().splitlines()]
    assert sum(row.reference_length or 0 for row in pieces) == sum(int(row[2]) - int(row[1]) for row in blocks)
    assert equal > 0.98 * matched


def test_a_page_that_would_be_too_large_says_what_it_leaves_out(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, sample = planted(1)
    write_fasta(tmp_path / "reference.fa", reference)
    write_fasta(tmp_path / "sample.fa", sample)
    monkeypatch.setattr(calls_page, "igv_script", lambda: None)
    assert run(tmp_path, out="x.vcf", name="none") == 0
    assert (
        not (tmp_path / "x.html").exists()
        and f'no {tmp_path}/x.html: pip install "genoattn[tracks]"' in capsys.readouterr().out
    )
    (tmp_path / "igv.min.js").touch()
    monkeypatch.setattr(calls_page, "igv_script", lambda: tmp_path / "igv.min.js")
    monkeypatch.setattr(calls_page, "LARGEST", 14_000)
    monkeypatch.setattr(calls_page, "LISTED", 10)
    assert run(tmp_path, out="x.vcf") == 0
    source = (tmp_path / "x.html").read_text()
    assert "the page would be too large: bases of the reference, sample" in source and "The first 10 of" in source
    settings, data = contents(tmp_path / "x.html")
    assert {"calls", "blocks", "not tested"} <= data.keys() and "sample" not in data
    assert settings["reference"]["format"] == "chromsizes"
    assert gzip.decompress(data["reference"]) == b"one\t30000\ntwo\t9000\n"
