"""Every mistake a user can make gives one sentence, ends a program with status 2 and leaves no half of a run."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases

CHECKOUT = Path(__file__).parents[2]
TINY = ("experiment=smoke", "trainer.threads=1", "test.windows=2", "test.threshold_windows=2", "test.resamples=1")
TINY = (*TINY, "control=null", "trainer.max_steps=1")
BASES = decode_bases(np.random.default_rng(0).integers(0, 4, 3000, np.uint8))
GOOD = f">chr1 made up\n{BASES[:2000]}\n{BASES[2000:]}\n"
HEADER = "##fileformat=VCFv4.2\n##contig=<ID=chr1,length=3000>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


pytestmark = pytest.mark.usefixtures("alone", "quick")


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    """A FASTA without a mistake."""
    file = tmp_path / "good.fa"
    file.write_text(GOOD)
    return file


def complaint(capfd: pytest.CaptureFixture[str], run: Path, *words: str) -> str:
    """The one line on stderr with which a program ends, having made nothing but what says how it was called."""
    capfd.readouterr()
    assert main([*words, f"hydra.run.dir={run}"]) == 2
    message, error = capfd.readouterr()
    assert error.endswith("\n")
    assert error.count("\n") == 1, error
    assert "Traceback" not in message + error
    left = {file.name for file in run.rglob("*") if file.is_file()}
    assert left <= {"config.yaml", "hydra.yaml", "overrides.yaml", "train.log", "evaluate.log"}
    return error.strip()


def packed(text: str, keep: int | None = None) -> bytes:
    """Gzip, cut short after `keep` bytes."""
    return gzip.compress(text.encode())[:keep]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "{file} does not exist; did you mean {folder}/good.fa?"),
        (
            "chr1\tgene\t1\t100\n",
            "{file} is not FASTA: expected '>' as the first character, found 'chr1\\tgene",
        ),
        (HEADER, "{file} is not FASTA: expected '>' as the first character, found '##fileformat=VCFv4."),
        (b"\x89PNG\r\n\0\0", "{file} is not FASTA: expected '>' as the first character, found "),
        (
            GOOD + ">chr2\nACGT\n\nACGTAC-T\n",
            "{file}, record chr2, line 7, column 7: '-' is no base; expected one of ACGTRYSWKMBDHVN in either case",
        ),
        (GOOD + GOOD, "the record name chr1 stands twice in {file}; names must differ"),
        (packed(GOOD, 500), "{file} is a truncated gzip file: it ends in the middle; fetch or copy it again"),
        ("", "{file} is empty; expected FASTA"),
        ("\n\n", "{file} is empty: it holds nothing but blank lines; expected FASTA"),
        (">chr1\n>chr2\n", "{file} holds headers but no bases"),
        (
            ">chr1\nACGTACGT\n>longer\nACGTACGTACGT\n",
            "the FASTA is shorter than a window: its longest record, longer, has 12 bases, and a window takes 112"
            " (data.length and the flanks of the task); choose a shorter data.length",
        ),
        (
            f">chr1\n{BASES[:500]}\n",
            "no record can be split: the longest, chr1, has 500 bases, and three blocks of a window with gaps of a"
            " window need 560, a window taking 112 (data.length and the flanks of the task); choose a shorter"
            " data.length",
        ),
        (f">chr1\n{'N' * 3000}\n", "1000 windows of 112 bases were drawn and each is more than 50% N"),
    ],
)
def test_a_fasta(
    content: str | bytes | None, sentence: str, fasta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "goode.fa"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    message = complaint(capfd, tmp_path / "run", "train", *TINY, f"data.fasta={file}")
    assert message.startswith(sentence.format(file=file, folder=tmp_path))


def row(position: int, reference: str, alternate: str, contig: str = "chr1") -> str:
    return f"{contig}\t{position}\t.\t{reference}\t{alternate}\t.\t.\t.\n"


OTHER = "ACGT"[("ACGT".index(BASES[99]) + 1) % 4]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "{file} does not exist"),
        (GOOD, "{file} is not a VCF; expected a header from ##fileformat=VCF to #CHROM"),
        (HEADER + row(100, OTHER, BASES[99]), f"chr1:100 holds {BASES[99]} in the FASTA; {{file}} says {OTHER}"),
        (
            HEADER.replace("chr1", "chrI") + row(7, "A", "C", "chrI"),
            "{file}, record 1 (chrI:7): the FASTA has no contig 'chrI'; did you mean chr1?",
        ),
        (
            HEADER + row(3001, "A", "C"),
            "{file}, record 1 (chr1:3001): REF ends at base 3001, but chr1 in the FASTA has",
        ),
        (HEADER, "{file} holds no mutation to test"),
    ],
)
def test_a_vcf(
    content: str | None, sentence: str, fasta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mutations.vcf"
    if content is not None:
        file.write_text(content)
    message = complaint(capfd, tmp_path / "run", "train", *TINY, f"data.fasta={fasta}", f"data.vcf={file}")
    assert message.startswith(sentence.format(file=file))


def test_too_few_records(fasta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = complaint(capfd, tmp_path / "run", "train", *TINY, f"data.fasta={fasta}", "data.split=record")
    assert message == (
        "data.split=record needs at least three records of a window or more (112 bases: data.length and the flanks of"
        " the task), found 1; use data.split=block"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["train", "trainer.max_stepz=3"],
            "Key 'trainer.max_stepz' is not in the config; did you mean trainer.max_steps?",
        ),
        (["train", "atention=full"], "Key 'atention' is not in the config; did you mean attention?"),
        (
            ["train", "attention=liner"],
            f"attention=liner: there is no conf/attention/liner.yaml (searched in {CHECKOUT / 'conf'}); did you mean",
        ),
        (["train", "model.dim=abc"], "model.dim: expected an integer, got 'abc'"),
        (["train", "+attention.hedas=2"], "Key 'attention.hedas' is not a setting of genoattn.attention.linear."),
        (["train", "trainer.max_steps=0"], "trainer.max_steps: expected at least 1, got 0"),
        (["train", "attention=null"], "attention=null: "),
        (
            ["train", "tokenizer=kmer", "tokenizer.vocabulary_size=9"],
            "Key 'tokenizer.vocabulary_size' is not in the config",
        ),
        (["train", "tokenizer=kmers"], "tokenizer=kmers: there is no conf/tokenizer/kmers.yaml (searched in "),
        (
            ["train", "tokenizer=kmer", "tokenizer.overlapping=6"],
            "tokenizer.overlapping: expected true or false, got",
        ),
        (["evaluate"], "checkpoint must be given: checkpoint=…"),
        (["evaluate", "chekpoint=x"], "Key 'chekpoint' is not in the config; did you mean checkpoint?"),
    ],
)
def test_a_setting(words: Sequence[str], sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert complaint(capfd, tmp_path / "run", *words).startswith(sentence)
    assert not (tmp_path / "run").exists()


TURNS = (
    "this task cannot be set to this model: reference and sample take turns, which needs one token per"
    " base, and a token of this tokenizer"
)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("trainer.accelerator=gpu", "trainer.accelerator=gpu cannot run here: "),
        ("heads.count=3", "heads.count must divide the model's dim of 16, got 3"),
        ("task=side_by_side model.alignment_kernel=4", "model.alignment_kernel must be odd"),
        ("tokenizer=kmer tokenizer.k=9", "tokenizer.k must lie within 1 and 8 bases, got 9"),
        (
            "tokenizer=kmer",
            f"{TURNS} owns up to 6; use tokenizer=nucleotide, tokenizer=kmer tokenizer.overlapping=",
        ),
        ("tokenizer=bpe", f"{TURNS} owns up to "),
        (
            "tokenizer=bpe tokenizer.vocabulary_size=17",
            "tokenizer.vocabulary_size must be at least 18 ids (15 letters, ",
        ),
        ("tokenizer=bpe tokenizer.longest=0", "tokenizer.longest must lie within 2 and 127 bases, got 0"),
        ("tokenizer=bpe tokenizer.bases=0", "tokenizer.bases must be at least 2 bases to learn from, got 0"),
        ("tokenizer=bpe +tokenizer.merges=[A]", "tokenizer.merges[0] must join two words of A, C, G, T or of earlier"),
    ],
)
def test_what_only_building_shows(
    word: str, sentence: str, fasta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if word == "trainer.accelerator=gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert complaint(capfd, tmp_path / "run", "train", *TINY, f"data.fasta={fasta}", *word.split()).startswith(sentence)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "good.fa").write_text(GOOD)
    assert main(["train", *TINY, f"data.fasta={folder / 'good.fa'}", f"hydra.run.dir={folder / 'run'}"]) == 0
    return folder / "run"


def test_a_checkpoint_to_resume(trained: Path, fasta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def error_of(path: Path, *words: str) -> str:
        words = (*TINY, f"data.fasta={fasta}", f"trainer.resume={path}", *words)
        return complaint(capfd, tmp_path / "run", "train", *words)

    last = trained / "checkpoints" / "last.ckpt"
    assert error_of(tmp_path / "no.ckpt") == f"trainer.resume={tmp_path / 'no.ckpt'} does not exist"
    assert error_of(trained).startswith(f"trainer.resume={trained} is a folder; expected its checkpoints/last.ckpt")
    broken = {"cut.ckpt": last.read_bytes()[:9000], "text.ckpt": b"weights\n", "empty.ckpt": b""}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        assert error_of(tmp_path / name).startswith(f"{tmp_path / name} is damaged: ")
    torch.save({"weights": [1, 2]}, tmp_path / "other.ckpt")
    assert error_of(tmp_path / "other.ckpt").endswith("other.ckpt is no checkpoint of a run")
    torch.save([1, 2], tmp_path / "list.ckpt")
    assert error_of(tmp_path / "list.ckpt").endswith("list.ckpt is no checkpoint of a run")


def test_a_checkpoint_to_evaluate(
    trained: Path, fasta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def error_of(path: Path) -> str:
        words = ("data.length=64", "test.windows=2", "test.resamples=1", f"data.fasta={fasta}", f"checkpoint={path}")
        return complaint(capfd, tmp_path / "run", "evaluate", *words)

    assert error_of(tmp_path / "none") == f"checkpoint={tmp_path / 'none'}: there is no such file or folder"
    assert error_of(tmp_path).startswith(f"checkpoint={tmp_path}: no model.json is there; expected a run folder")
    copy = tmp_path / "copy"
    shutil.copytree(trained / "model", copy)
    weights, description = copy / "weights.safetensors", copy / "model.json"
    about = json.loads(description.read_text())
    description.write_text(json.dumps({**about, "model": {**about["model"], "dim": 32}}))
    assert error_of(copy).startswith(f"{weights} does not fit this model: it holds ")
    description.write_text(json.dumps({**about, "format": 99}))
    assert error_of(copy).startswith(f"{description} is not a model description of format 6")
    description.write_text(json.dumps({key: value for key, value in about.items() if key != "calibration"}))
    assert error_of(copy) == f"{description} lacks calibration"
    description.write_text("{")
    assert error_of(copy).startswith(f"{description} is not json")
    description.write_text(json.dumps(about))
    weights.write_bytes(weights.read_bytes()[:2000])
    assert error_of(copy).startswith(f"{weights} cannot be read as safetensors: ")
    weights.unlink()
    assert error_of(copy).startswith(f"{weights} cannot be read as safetensors: ")


def test_a_run_folder_that_cannot_be_made(capfd: pytest.CaptureFixture[str]) -> None:
    message = complaint(capfd, Path("/dev/null/x"), "train", *TINY)
    assert message == "hydra.run.dir: the run folder /dev/null/x cannot be made (Not a directory)"


def test_from_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "scripts" / "train.py"), *TINY, "data.fasta=no.fa", "hydra.run.dir=run"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "no.fa does not exist\n")
