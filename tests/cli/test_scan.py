"""A region in, a table and a heat map of all mutants out: the numbers are those of `genoattn score`."""

from pathlib import Path

import numpy as np
import pysam
import pytest

from genoattn.cli import scan
from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases
from genoattn.models import variant_scan
from tests.fuzz.cases import bgzip
from tests.toy_models import CAUSAL, VARIANTS, saved, toy_model

pytestmark = pytest.mark.usefixtures("alone")
LETTERS = decode_bases(np.random.default_rng(0).integers(0, 4, 80, np.uint8))
LETTERS = f"{LETTERS[:45]}N{LETTERS[46:]}"


@pytest.fixture(scope="module")
def place(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    (folder / "x.fa").write_text(f">a:1\n{LETTERS}\n")
    for name, task in {"causal": CAUSAL, "classes": VARIANTS}.items():
        saved(folder / name, toy_model(task, length=16))
    return folder


def run(place: Path, folder: Path, region: str, *words: str, model: str = "causal") -> int:
    given = [f"checkpoint={place}/{model}", f"fasta={place}/x.fa", f"region={region}", f"out={folder}/s"]
    return main(["scan", *given, f"hydra.run.dir={folder}/run", *words])


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as saved:
        return dict(saved)


def test_a_scan_is_the_score_of_every_mutant(place: Path, tmp_path: Path) -> None:
    assert run(place, tmp_path, "a:1:41-47") == 0
    found = arrays(tmp_path / "s.npz")
    assert found["scores"].shape == (7, 5) and "".join(found["reference"]) == LETTERS[40:47]
    assert "".join(found["mutants"]) == "ACGT-" and (str(found["contig"]), int(found["first"])) == ("a:1", 41)
    rows, places = [], []
    for number in (0, 1, 2, 3, 4, 6):
        for column, letter in enumerate("ACGT"):
            if letter != LETTERS[40 + number]:
                rows.append(f"a:1\t{41 + number}\t.\t{LETTERS[40 + number]}\t{letter}\t.\t.\t.\n")
                places.append((number, column))
    rows.append(f"a:1\t42\t.\t{LETTERS[41:43]}\t{LETTERS[41]}\t.\t.\t.\n")
    (tmp_path / "in.vcf").write_text("".join(rows))
    files = [f"fasta={place}/x.fa", f"vcf={tmp_path}/in.vcf", f"out={tmp_path}/out.vcf", f"hydra.run.dir={tmp_path}/x"]
    assert main(["score", f"checkpoint={place}/causal", "embeddings=false", *files]) == 0
    scores = [float(line.split("\t")[4]) for line in (tmp_path / "out.tsv").read_text().splitlines()[1:]]
    assert [found["scores"][place] for place in [*places, (2, 4)]] == pytest.approx(scores, abs=1e-5)
    assert np.isnan(found["scores"][5]).all() and found["scores"][0, "ACGT".index(LETTERS[40])] == 0
    lines = [line.split("\t") for line in (tmp_path / "s.tsv").read_text().splitlines()]
    assert lines[0] == ["chrom", "pos", "ref", "A", "C", "G", "T", "del"] and lines[6] == [
        "a:1",
        "46",
        "N",
        *["NA"] * 5,
    ]
    assert [float(value) for value in lines[1][3:]] == pytest.approx(found["scores"][0])
    assert (tmp_path / "s.png").read_bytes()[1:4] == b"PNG" and b"<svg" in (tmp_path / "s.svg").read_bytes()


def test_a_classifier_and_one_base(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, tmp_path, "a:1:80", model="classes") == 0
    found = arrays(tmp_path / "s.npz")
    assert str(found["meaning"]) == "log odds of benign" and np.isfinite(found["scores"]).sum() == 4
    assert "1 bases in " in capsys.readouterr().out


def test_the_same_bytes_of_any_number_of_shards(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows of 16 bases reach beyond the contig in the last piece of eight bases."""
    for module in (scan, variant_scan):
        monkeypatch.setattr(module, "PIECE", 8)
    monkeypatch.setattr(scan, "save_figure", lambda *_: None)
    files = [tmp_path / "s.npz", tmp_path / "s.tsv"]
    assert run(place, tmp_path, "a:1:20-76") == 0
    whole, shared = [file.read_bytes() for file in files], f"parts={tmp_path}/shared"
    for words in (["shard=2/3", shared], ["shards=3", shared], ["shards=9", f"hydra.run.dir={tmp_path}/9"]):
        for file in files:
            file.unlink(missing_ok=True)
        assert run(place, tmp_path, "a:1:20-76", *words) == 0
        if "shard=2/3" in words:
            assert not any(file.exists() for file in files)
        else:
            assert [file.read_bytes() for file in files] == whole
    assert "1 of 3 shards are done already" in capsys.readouterr().out
    assert run(place, tmp_path, "a:1:21-76", "shards=3", shared) == 0
    assert "shard 1/3 is made again: region changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("region", "words", "sentence"),
    [
        ("a", [], "region=a: expected contig:first-last, such as chr1:1000-2000"),
        ("a:1:0-5", [], "region=a:1:0-5: expected bases within 1 and 80, the first not after the last"),
        ("a:1:5-4", [], "region=a:1:5-4: expected bases within 1 and 80, the first not after the last"),
        ("a:1:5-81", [], "region=a:1:5-81: expected bases within 1 and 80, the first not after the last"),
        ("b:5-8", [], "the genome holds no record 'b'; there are a:1"),
        ("a:1:5-8", ["out={}/no/s"], "out={}/no/s cannot be written: there is no folder {}/no"),
    ],
)
def test_mistakes(
    region: str, words: list[str], sentence: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, tmp_path, region, *(word.format(tmp_path) for word in words)) == 2
    assert capsys.readouterr().err == sentence.replace("{}", str(tmp_path)) + "\n"


def test_an_index_gives_the_same_bytes_without_a_store(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A FASTA with .fai and .gzi is read in parts; shards made so are those of a store."""
    text = (place / "x.fa").read_text().replace("T", "U").encode()
    written = []
    for name in ("plain.fa", "packed.fa.gz", "stored.fa.gz"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        monkeypatch.setenv("GENOATTN_CACHE", str(folder / "cache"))
        file = tmp_path / name
        file.write_bytes(bgzip(text) if "gz" in name else text)
        if folder.name != "stored":
            pysam.faidx(str(file))  # type: ignore[attr-defined]
        assert run(place, folder, "a:1:41-47", f"fasta={file}", f"parts={tmp_path}/{file.suffix}") == 0
        written.append([(folder / f"s.{ending}").read_bytes() for ending in ("tsv", "npz")])
        assert bool(list((folder / "cache").glob("genome-*/"))) == (folder.name == "stored")
    out = capsys.readouterr().out
    assert written[0] == written[1] == written[2] and "1 of 1 shards are done already" in out
    assert f"{tmp_path}/plain.fa: its letters U are read as T" in out and "stored.fa.gz: " in out
