"""Runs of the tasks with a class for each window: they learn a plain rule, and stand beside their baselines."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.regions import bed_rows
from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.sequence_store import open_genome
from genoattn.paths import genomes_dir

pytestmark = pytest.mark.usefixtures("alone", "quick")

SMALL = ("experiment=smoke", "curriculum=none", "trainer.threads=1", "test.resamples=20", "control=null")
FAST = ("data.batch=16", "optimizer.lr=0.01", "schedule.warmup=5", "test.windows=60", "heads=default", "model=small")
FAST += ("model.dim=16", "model.depth=1", "data.validation_windows=8")


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A circle with much G and little C before its middle, and the reverse after it."""
    rng = np.random.default_rng(0)
    halves = [rng.choice(4, 10_000, p=share) for share in ((0.25, 0.15, 0.35, 0.25), (0.25, 0.35, 0.15, 0.25))]
    file = tmp_path_factory.mktemp("windows") / "a.fa"
    file.write_text(f">chr\n{decode_bases(np.concatenate(halves).astype(np.uint8))}\n")
    return file


def run(folder: Path, fasta: Path, words: Sequence[str]) -> dict[str, float]:
    given = {word.split("=")[0]: word for word in (*SMALL, *FAST, *words)}
    assert main(["train", *given.values(), f"data.fasta={fasta}", f"hydra.run.dir={folder}"]) == 0
    return json.loads((folder / "metrics.json").read_text())


def test_a_strand_is_learned(fasta: Path, tmp_path: Path):
    words = ("task=strand", "attention=none", "data.length=64", "trainer.max_steps=40")
    metrics = run(tmp_path / "run", fasta, words)
    model, skew = (metrics[f"{key}/test/all/auroc"] for key in ("model", "gc_skew"))
    assert model > 0.85 and skew > 0.85 and metrics["majority_class/test/all/auroc"] == 0.5
    assert metrics["kmers_3/test/all/auroc"] > 0.8
    bootstrap = json.loads((tmp_path / "run" / "bootstrap.json").read_text())
    assert bootstrap["primary_metric"] == "model/test/all/auroc"
    assert {key.split("/")[0] for key in bootstrap["replicates"]} == {
        *("model", "untrained", "gc_skew", "kmers_3", "majority_class")
    }
    context = ["context", f"checkpoint={tmp_path / 'run'}", f"data.fasta={fasta}", "windows=2"]
    assert main([*context, "positions=4", f"hydra.run.dir={tmp_path / 'context'}"]) == 0


def test_frames_are_told_beside_the_codon_model(fasta: Path, tmp_path: Path):
    words = ("task=frame", "task.shortest=60", "data.length=64", "trainer.max_steps=2", "reverse_complement=average")
    metrics = run(tmp_path / "run", fasta, words)
    kinds = {key.split("/")[2] for key in metrics if key.startswith("model/")}
    assert kinds == {"all", "insertion", "deletion", "stop"}
    assert {f"codons_{reach}/test/all/auroc" for reach in (15, 30, 60)} < set(metrics)


@pytest.mark.parametrize("word", ["augment", "average", "equivariant"])
def test_the_strand_cannot_be_learned_from_both(word: str, fasta: Path, tmp_path: Path, capsys):
    words = (*SMALL, "task=strand", f"data.fasta={fasta}", f"reverse_complement={word}")
    assert main(["train", *words, f"hydra.run.dir={tmp_path}"]) == 2
    assert "reverse_complement must be none for Strand" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of 30 bases, rich in G and C or in A and T, with their class and their share of G and C."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sequences")
    for split, count in (("train", 150), ("test", 60)):
        rows = ["sequence,label,share"]
        for number in range(count):
            rich = number % 2
            bases = rng.choice(4, 30, p=[0.2, 0.3, 0.3, 0.2] if rich else [0.3, 0.2, 0.2, 0.3]).astype(np.uint8)
            rows.append(f"{decode_bases(bases)},{'rich' if rich else 'poor'},{np.isin(bases, [1, 2]).mean()}")
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_classes_and_numbers_of_sequences(fasta: Path, sequences: Path, tmp_path: Path):
    words = ("task=region", "attention=none", "data.length=32", "trainer.max_steps=40", f"task.file={sequences}")
    words += ("reverse_complement=average",)
    metrics = run(tmp_path / "class", fasta, (*words, "task.classes=[poor,rich]"))
    assert metrics["model/test/all/auroc"] > 0.8 and metrics["kmers_4/test/all/auroc"] > 0.6
    numbers = run(tmp_path / "score", fasta, (*words, "task.target=score", "task.label=share"))
    assert numbers["model/test/all/spearman"] > 0.8 and numbers["kmers_4/test/all/spearman"] > 0.5
    again = ["evaluate", "test.resamples=20", f"checkpoint={tmp_path / 'score'}", f"data.fasta={fasta}"]
    assert main([*again, f"task.file={sequences}", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    later = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert later["model/test/all/spearman"] == pytest.approx(numbers["model/test/all/spearman"], abs=1e-6)


def test_regions_of_a_genome_by_its_open_reading_frames(tmp_path: Path):
    genome = open_genome([genomes_dir() / "NCTC8325.fa.gz"], tmp_path)
    rows = [row.split("\t") for row in bed_rows(genome)]
    counts = Counter(row[3] for row in rows)
    assert counts["coding"] > 2000 and counts["promoter"] > 500 and counts["intergenic"] > 50
    assert all(int(stop) - int(start) == 150 for _, start, stop, *_ in rows)
