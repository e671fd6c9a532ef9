"""Every tokenizer with every task trains two steps and is evaluated, or is refused in words; so is every experiment."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from genoattn.cli.main import main
from genoattn.data.tokenizers.kmer import KmerTokenizer
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.evaluation.tokenizer_report import changed_tokens
from genoattn.genome.alphabet import decode_bases, encode_bases
from genoattn.genome.mutations import Mutation
from genoattn.paths import conf_dir

pytestmark = pytest.mark.usefixtures("alone", "quick")
TASKS = {path.stem: [f"task={path.stem}"] for path in sorted((conf_dir() / "task").glob("*.yaml"))}
TASKS["causal"] = ["task=pretrain", "task.objective=causal", "model.causal=true"]
RECALL = ["task.pairs=1", "task.key=6", "task.value=2"]  # what 64 bases can hold
TASKS["recall"] += RECALL
TASKS["conditional"] += ["model.causal=true"]
FRAME = ["task.shortest=60"]  # what a random genome has
TASKS["frame"] += FRAME
TOKENIZERS = {path.stem: [f"tokenizer={path.stem}"] for path in sorted((conf_dir() / "tokenizer").glob("*.yaml"))}
TOKENIZERS["overlapping"] = ["tokenizer=kmer", "tokenizer.overlapping=true"]
SHORT = {"kmer": ["tokenizer.k=3"], "overlapping": ["tokenizer.k=3"], "bpe": ["tokenizer.vocabulary_size=40"]}
TEST = ["test.windows=6", "test.threshold_windows=6", "test.resamples=2"]
SMALL = ["trainer.threads=1", "trainer.max_steps=2", "control=null", *TEST]
EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml") if path.stem != "smoke")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    bases = decode_bases(np.random.default_rng(0).integers(0, 4, 9000, np.uint8))
    (folder / "a.fa").write_text(f">chr\n{bases}\n")
    rows = [
        f"chr\t{at + 1}\t{bases[at]}\t{'ACGT'['CGTA'.index(bases[at])]}\t{'xy'[at // 7 % 2]}"
        for at in range(0, 9000, 7)
    ]
    regions = [f"chr\t{at}\t{at + 40}\t{'xy'[at // 70 % 2]}" for at in range(0, 8900, 70)]
    (folder / "a.bed").write_text("\n".join(regions) + "\n")
    (folder / "a.tsv").write_text("\n".join(["chrom\tpos\tref\talt\tkind", *rows]) + "\n")
    return folder


def labels_of(place: Path, kind: str) -> list[str]:
    if kind == "region":
        return [f"task.file={place / 'a.bed'}", "task.classes=[x,y]"]
    if kind != "variant":
        return []
    return [f"task.file={place / 'a.tsv'}", "task.label=kind", "task.classes={benign: [x], pathogenic: [y]}"]


@pytest.mark.parametrize(("task", "tokenizer"), list(product(TASKS, TOKENIZERS)))
def test_a_pair(task: str, tokenizer: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    labels = labels_of(place, task)
    words = [*TASKS[task], *TOKENIZERS[tokenizer], *SHORT.get(tokenizer, []), *labels]
    run = ["train", "experiment=smoke", *SMALL, *words, f"data.fasta={place / 'a.fa'}", f"hydra.run.dir={tmp_path}/run"]
    refused = task in ("side_by_side", "interleaved", "recall") and tokenizer in ("kmer", "bpe")
    refused |= task == "conditional" and tokenizer != "nucleotide"
    assert main(run) == (2 if refused else 0)
    if refused:
        error = capsys.readouterr().err
        assert ("one token per base" in error or "single bases" in error) and "use tokenizer=nucleotide" in error
        return
    again = ["evaluate", *TEST, "data.length=64", f"data.fasta={place / 'a.fa'}", f"checkpoint={tmp_path / 'run'}"]
    assert main([*again, f"hydra.run.dir={tmp_path}/again"]) == 0
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "again"))
    shared = [key for key in first if key.startswith("model/") and first[key] is not None]
    assert shared and all(second[key] == pytest.approx(first[key], abs=1e-5) for key in shared)


@pytest.mark.parametrize("layer", ["full", "linear"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment(experiment: str, layer: str, place: Path, tmp_path: Path):
    small = ["data.length=64", "data.batch=2", "data.validation_windows=2", "model.dim=16", f"attention={layer}"]
    small += RECALL if experiment.startswith("recall") else []
    small += FRAME if experiment == "frame" else []
    small += labels_of(place, experiment)
    fasta = f"data.fasta={place / 'a.fa'}"
    assert main(["train", f"experiment={experiment}", *SMALL, *small, fasta, f"hydra.run.dir={tmp_path}"]) == 0


def test_tokens_that_change_by_hand():
    bases = encode_bases("AACCGGTTACGTACGTAAGG")
    snv, gone = Mutation(7, 8, b"\0"), Mutation(7, 8, b"")
    assert changed_tokens(NucleotideTokenizer(), bases, snv) == (1, 0)
    assert changed_tokens(NucleotideTokenizer(), bases, gone) == (0, 0)
    assert changed_tokens(KmerTokenizer(4), bases, snv) == (1, 3)  # the one from base 4 on
    assert changed_tokens(KmerTokenizer(4, True), bases, snv) == (4, 3)  # those from bases 4 to 7 on
    frame_lost = changed_tokens(KmerTokenizer(4), bases, gone)
    assert frame_lost == (6, 11)  # AACC stays; GGTA CGTA CGTA and the tail AGG as letters, the last at base 18
    assert changed_tokens(KmerTokenizer(4), bases, Mutation(8, 12, b"")) == (0, 0)  # a whole token less


@pytest.mark.parametrize(
    "words", [["tokenizer=kmer", "tokenizer.k=3"], ["tokenizer=bpe", "tokenizer.vocabulary_size=40"]]
)
def test_an_audit(words: list[str], place: Path, tmp_path: Path):
    fasta = f"data.fasta={place / 'a.fa'}"
    assert main(["tokenizer-report", *words, *TEST, "data.length=64", fasta, f"hydra.run.dir={tmp_path}"]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["tokenizer/test/snv/tokens_mean"] >= 1 and found["tokenizer/test/all/tokens_per_base"] < 1


def test_an_audit_of_a_detector_tells_of_its_frames(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fasta, words = f"data.fasta={place / 'a.fa'}", ["task=paired", "tokenizer=kmer", "tokenizer.k=3"]
    assert main(["train", "experiment=smoke", *SMALL, *words, fasta, f"hydra.run.dir={tmp_path}/run"]) == 0
    audit = ["tokenizer-report", *TEST, "data.length=64", fasta, f"checkpoint={tmp_path / 'run'}"]
    assert main([*audit, f"hydra.run.dir={tmp_path}/audit"]) == 0
    found = json.loads((tmp_path / "audit" / "metrics.json").read_text())
    assert found["tokenizer/test/all/frames"] == 3 and found["all_frames/test/substitution/spread"] > 0
    assert "over 3 frame(s)" in capsys.readouterr().out
