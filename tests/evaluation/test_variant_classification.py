"""Labelled variants: read from VCF and table, split by gene, in both windows, classified and evaluated."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_matthews_corrcoef

from genoattn.cli.main import main
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.evaluation.baselines.regression import logistic_regression
from genoattn.evaluation.bootstrap import resample
from genoattn.evaluation.class_metrics import classification_metrics, matthews
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.intervals import read_bed, split_genes
from genoattn.genome.labelled_variants import LabelledVariant, in_intervals, read_labelled
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.training.loss import loss

CLASSES = {"weak": ["W"], "strong": ["S", "SS"]}
OVERRIDE = "task.classes={benign: [W], pathogenic: [S]}"
LENGTH = 12_000


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome, and a table of variants labelled by the base that comes: S for C and G, W for A and T."""
    folder = tmp_path_factory.mktemp("variants")
    rng = np.random.default_rng(0)
    bases = decode_bases(rng.integers(0, 4, LENGTH, np.uint8))
    (folder / "a.fa").write_text(f">chr1\n{bases}\n")
    rows, records = ["chrom\tpos\tref\talt\tkind"], []
    for start in range(5, LENGTH - 5, 10):
        here = bases[start]
        other = "ACGT"[("ACGT".index(here) + int(rng.integers(1, 4))) % 4]
        label = "S" if other in "CG" else "W"
        rows.append(f"chr1\t{start + 1}\t{here}\t{other}\t{label}")
        records.append(f"chr1\t{start + 1}\t.\t{here}\t{other}\t.\t.\tKIND={label}")
    (folder / "a.tsv").write_text("\n".join(rows) + "\n")
    head = ["##fileformat=VCFv4.2", f"##contig=<ID=chr1,length={LENGTH}>"]
    head += ['##INFO=<ID=KIND,Number=.,Type=String,Description="x">', "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    (folder / "a.vcf").write_text("\n".join(head + records) + "\n")
    genes = [f"chr1\t{start}\t{start + 300}" for start in range(0, LENGTH - 300, 400)]
    (folder / "genes.bed").write_text("\n".join([*genes, "chr1\t250\t420"]) + "\n")
    return folder


@pytest.fixture(scope="module")
def genome(inputs: Path) -> Genome:
    return open_genome([inputs / "a.fa"], inputs / "cache")


def test_table_and_vcf_give_the_same_variants(inputs: Path, genome: Genome):
    table, _ = read_labelled(inputs / "a.tsv", "kind", CLASSES, genome, 20)
    vcf, _ = read_labelled(inputs / "a.vcf", "KIND", CLASSES, genome, 20)
    assert table == vcf and len(table) == 1199
    first = table[0]
    assert (first.mutation.start, first.mutation.stop) == (5, 6)  # the tables count from 1
    assert first.label == int(first.mutation.inserted in (b"\1", b"\2"))
    packed = inputs / "packed.tsv.gz"
    packed.write_bytes(gzip.compress((inputs / "a.tsv").read_bytes()))
    assert read_labelled(packed, "kind", CLASSES, genome, 20)[0] == table
    weak, left_out = read_labelled(inputs / "a.tsv", "kind", {"a": ["W"], "b": ["none such"]}, genome, 20)
    assert left_out == {"labelled S": len(table) - len(weak)}


def test_variants_that_do_not_fit_are_skipped_and_counted(inputs: Path, genome: Genome):
    bases = decode_bases(genome.fetch(0, 99, 130))
    head = (inputs / "a.vcf").read_text().split("chr1\t6")[0]
    rows = [f"{bases[0]}\t<DEL>", f"{bases}\t{bases[0]}", f"{bases[0]}\t{'C' if bases[0] != 'C' else 'G'}"]
    file = inputs / "long.vcf"
    file.write_text(head + "".join(f"chr1\t100\t.\t{row}\t.\t.\tKIND=S\n" for row in rows))
    variants, left_out = read_labelled(file, "KIND", CLASSES, genome, 20)
    assert [variant.mutation.start for variant in variants] == [99]
    assert left_out == {"symbolic ALT": 1, "longer than 20 bases": 1}


@pytest.mark.parametrize(
    ("mutation", "sites"),
    [
        (Mutation(100, 101, b"\2"), ((20, 21), (20, 21))),
        (Mutation(100, 103, b""), ((19, 22), (19, 20))),
        (Mutation(100, 100, b"\1\1"), ((20, 21), (20, 22))),
        (Mutation(3, 4, b"\2"), ((20, 21), (20, 21))),
        (Mutation(LENGTH - 1, LENGTH, b"\2"), ((20, 21), (20, 21))),
    ],
)
def test_both_windows_and_the_allele_spans(mutation: Mutation, sites: tuple, genome: Genome):
    task = VariantClassification("x.tsv", "kind", CLASSES)
    example = task.window_around(genome, LabelledVariant(0, mutation, 1), 40)
    start, stop, inserted = mutation
    assert example.reference is not None and len(example.reference) == 40
    assert example.allele_spans == sites and example.targets["class"].tolist() == [1]
    (low, high), (first, last) = sites
    deleted = genome.fetch(0, start, stop).tolist()
    assert example.reference[low:high].tolist()[: len(deleted)] == deleted
    assert example.bases[first:last].tolist()[: len(inserted)] == list(inserted)
    assert len(example.bases) == 40 - len(deleted) + len(inserted)
    assert example.bases[:low].tolist() == example.reference[:low].tolist()
    assert example.bases[first + len(inserted) :].tolist() == example.reference[low + len(deleted) :].tolist()


def test_each_gene_goes_to_one_split(inputs: Path, genome: Genome):
    bed = read_bed(inputs / "genes.bed", genome)
    splits = split_genes(bed, seed=0)
    genes = [(gene.start, gene.stop) for split in splits for gene in split]
    assert len(genes) == len(set(genes)) == 29  # of 30, two are joined by a gene that overlaps both
    assert (0, 700) in genes
    variants, _ = read_labelled(inputs / "a.tsv", "kind", CLASSES, genome, 20)
    assigned = [in_intervals(variants, split) for split in splits]
    assert all(assigned) and len(set().union(*assigned)) == sum(map(len, assigned)) < len(variants)
    assert split_genes(bed, seed=0) == splits != split_genes(bed, seed=1)


def test_balanced_weights_by_hand():
    task = VariantClassification("x.tsv", "kind", CLASSES, "balanced")
    task.set_class_weights([LabelledVariant(0, Mutation(0, 1, b"\1"), label) for label in (0, 0, 0, 1)])
    balance = task.outputs["class"].balance
    assert balance == pytest.approx((4 / 6, 4 / 2))
    logits = {"class": torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])}
    target = {"class": torch.tensor([[0], [0]], dtype=torch.int8)}
    plain = loss(logits, target, {"class": TargetSpec(2, 1.0, level="window")}).total
    assert float(loss(logits, target, task.outputs).total) == pytest.approx(float(plain) * 4 / 6)
    with pytest.raises(UserError, match=r"no variant of class 'strong'"):
        task.set_class_weights([LabelledVariant(0, Mutation(0, 1, b"\1"), 0)])


def test_metrics_by_hand():
    table = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    resamples = resample(range(4), 20)
    metrics = classification_metrics(table, np.array([0, 0, 1, 1]), resamples)
    assert metrics.auroc == pytest.approx(3 / 4) and metrics.accuracy == 0.5 and metrics.mcc == 0
    assert metrics.auroc_low <= metrics.auroc <= metrics.auroc_high
    assert np.isnan(classification_metrics(table, np.array([1, 1, 1, 1]), resamples).auroc)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_mcc_of_a_constant_answer_is_zero(classes: int):
    """The limit of another definition, 0/0, depends on rounding and was about 1 for some shares of classes."""
    truth = np.array([0, 1, 1, 1, 0, 1, 1])
    assert matthews(np.ones(7, np.int64), truth, classes) == 0
    assert matthews(np.zeros(7, np.int64), truth, classes) == 0
    assert matthews(truth, truth, classes) == pytest.approx(1)
    metrics = classification_metrics(np.tile([0.3, 0.7], (7, 1)), truth, resample(range(7), 5))
    assert metrics.mcc == 0 and metrics.auroc == 0.5


@pytest.mark.parametrize("classes", [2, 3])
def test_the_mcc_is_that_of_torchmetrics(classes: int):
    rng = np.random.default_rng(classes)
    predicted, truth = rng.integers(0, classes, (2, 60))
    expected = multiclass_matthews_corrcoef(torch.from_numpy(predicted), torch.from_numpy(truth), classes)
    assert matthews(predicted, truth, classes) == pytest.approx(float(expected))


def test_the_regression_learns_a_plain_rule():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3))
    labels = (features[:, 1] > 0).astype(np.int64)
    assert ((logistic_regression(features, labels, features, 2).argmax(1) == labels).mean()) > 0.97


def run(folder: Path, inputs: Path, *words: str) -> int:
    small = ("experiment=smoke", "task=variant", "curriculum=none", "trainer.threads=1", "test.resamples=5")
    settings = (f"data.fasta={inputs / 'a.fa'}", "data.length=16", "task.label=kind", OVERRIDE)
    given = {word.split("=")[0]: word for word in (*small, *settings, f"task.file={inputs / 'a.tsv'}", *words)}
    return main(["train", *given.values(), f"hydra.run.dir={folder}"])


@pytest.mark.usefixtures("alone", "quick")
def test_a_run_learns_the_rule_and_is_evaluated_again(inputs: Path, tmp_path: Path):
    words = ("trainer.max_steps=150", "optimizer.lr=0.01", "schedule.warmup=5", "data.batch=16", "control=null")
    assert run(tmp_path / "run", inputs, *words, "reverse_complement=average", "task.weights=balanced") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["model/test/all/auroc"] > 0.9 > metrics["untrained/test/all/auroc"]
    assert metrics["logistic_regression/test/all/auroc"] > 0.9 and metrics["majority_class/test/all/mcc"] == 0
    again = ["evaluate", "test.resamples=5", f"data.fasta={inputs / 'a.fa'}", "data.length=16"]
    assert main([*again, f"checkpoint={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    metrics_again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    same = [key for key in metrics_again if not key.startswith("cost/")]
    assert same and all(
        metrics_again[key] == pytest.approx(metrics[key], abs=1e-6, nan_ok=True) for key in same if metrics_again[key]
    )
    vcf = (f"task.file={inputs / 'a.vcf'}", "task.label=KIND", f"checkpoint={tmp_path / 'run'}")
    assert main([*again, *vcf, f"hydra.run.dir={tmp_path / 'vcf'}"]) == 0  # the same variants in another file
    other_file = json.loads((tmp_path / "vcf" / "metrics.json").read_text())
    assert other_file["model/test/all/auroc"] == metrics_again["model/test/all/auroc"]
    assert main([*again, "seed=3", f"checkpoint={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'seed'}"]) == 0
    assert (
        json.loads((tmp_path / "seed" / "metrics.json").read_text())["model/test/all/auroc"]
        == metrics_again["model/test/all/auroc"]
    )


@pytest.mark.usefixtures("alone", "quick")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task.file=null",), "task.file must be given"),
        (("task.file=nowhere.tsv",), "task.file=nowhere.tsv does not exist"),
        (("task.label=knd",), "has no column 'knd'; did you mean kind?"),
        (("task.file=a.vcf", "task.label=KINDS"), "its header has no INFO field 'KINDS'; did you mean KIND?"),
        (("task.classes={benign: [W, S], pathogenic: [W]}",), "task.classes must give each label to one class"),
        (("task.classes={benign: [W], pathogenic: [X]}",), "the training split has no variant of class 'pathogenic'"),
        (("task.split_bed=bad.bed",), "bad.bed, line 1: expected a name, a start and an end"),
        (("task.file=bad.tsv",), "chr1:1 holds"),
        (("task.file=odd.tsv",), "odd.tsv, line 2: pos must lie within 1 and 12000, got"),
        (("task.file=binary.tsv",), "has no column 'chrom'"),
    ],
)
def test_error_messages(words, sentence, inputs: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(inputs)
    (inputs / "bad.bed").write_text("chr1\tone\ttwo\n")
    wrong = {"A": "C", "C": "A", "G": "A", "T": "A"}[(inputs / "a.fa").read_text().splitlines()[1][0]]
    (inputs / "bad.tsv").write_text(
        f"chrom\tpos\tref\talt\tkind\nchr1\t1\t{wrong}\t{'T' if wrong != 'T' else 'G'}\tW\n"
    )
    (inputs / "odd.tsv").write_text("chrom\tpos\tref\talt\tkind\nchr1\t²\tA\tC\tW\n", "utf-8")
    (inputs / "binary.tsv").write_bytes(b"\xff\xfe\x00\x80\n")
    assert run(tmp_path / "run", inputs, *words) == 2
    assert sentence in capsys.readouterr().err
