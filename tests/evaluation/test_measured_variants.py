"""Measured effects of variants: numbers, groups and their folds, rivals, and the figures of the data that ships."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from genoattn.cli.evaluate import set_labelled_file
from genoattn.cli.main import main
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource, describe_source, open_data_source
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.variant_classification import Fold, VariantClassification, parse_fold
from genoattn.data.variant_splits import split_groups
from genoattn.errors import UserError
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.baselines.regression import features, linear_regression, logistic_regression
from genoattn.evaluation.bootstrap import resample
from genoattn.evaluation.run import build_evaluator
from genoattn.evaluation.score_metrics import ranking, score_metrics, spearman
from genoattn.evaluation.settings import TestSettings
from genoattn.evaluation.variant_rivals import column_numbers, oriented
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.consequence import SEVERITY, Consequences
from genoattn.genome.labelled_variants import Beside, read_labelled
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.training.loss import loss
from tests.toy_models import CAUSAL, memoryless, saved, toy_model

DATA = Path(__file__).parents[2] / "data" / "variants"
LENGTH = 3_000
ROWS = range(5, LENGTH - 5, 10)


@pytest.fixture(scope="module")
def inputs(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome, and a table whose number is 2 for a new C or G and −1 for a new A or T, and a little noise."""
    folder = tmp_path_factory.mktemp("measured")
    rng = np.random.default_rng(0)
    bases = decode_bases(rng.integers(0, 4, LENGTH, np.uint8))
    (folder / "a.fa").write_text(f">chr1\n{bases}\n")
    rows = ["chrom\tpos\tref\talt\tkind\tmeasured\tpart\tguess\tword"]
    for start in ROWS:
        other = "ACGT"[("ACGT".index(bases[start]) + int(rng.integers(1, 4))) % 4]
        strong = other in "CG"
        number = "NA" if start == 15 else f"{(2 if strong else -1) + 0.1 * rng.normal():.3f}"
        kind = "M" if start % 100 == 5 else "S" if strong else "W"
        place = f"chr1\t{start + 1}\t{bases[start]}\t{other}"
        rows.append(f"{place}\t{kind}\t{number}\texon{start * 12 // LENGTH}\t{-5.0 * strong}\t{'up' if strong else ''}")
    (folder / "a.tsv").write_text("\n".join(rows) + "\n")
    (folder / "a.gff3").write_text("chr1\t.\tCDS\t1\t2700\t.\t+\t0\tID=c\n")
    return folder


def task_of(inputs: Path, **settings: object) -> VariantClassification:
    given = {"score": "measured", "groups": "part", "fold": "2/4", "target": "score"} | settings
    classes = {"weak": ["W"], "strong": ["S"]}
    return VariantClassification(str(inputs / "a.tsv"), "kind", classes, **given)  # type: ignore[arg-type]


def opened(inputs: Path, task: VariantClassification) -> DataSource:
    return open_data_source(DataSettings(fasta=str(inputs / "a.fa"), length=32), task, 0)


def test_numbers_groups_and_rivals_are_read(inputs: Path) -> None:
    genome = open_genome([inputs / "a.fa"])
    beside = Beside("measured", 1000, ("guess", "word"), by_score=True)
    variants, skipped = read_labelled(inputs / "a.tsv", "kind", {"w": ["W"], "s": ["S"]}, genome, 9, beside=beside)
    assert skipped == {"without a number": 1} and len(variants) == len(ROWS) - 1
    assert {variant.group for variant in variants} == {"chr1:1", "chr1:2", "chr1:3"}
    assert {variant.label for variant in variants} == {-1, 0, 1}  # M has a number and no class
    assert all(variant.rivals == (("-5.0", "up") if variant.score > 0 else ("-0.0", "")) for variant in variants)
    by_class, skipped = read_labelled(inputs / "a.tsv", "kind", {"w": ["W"], "s": ["S"]}, genome, 9)
    assert skipped == {"labelled M": 30} and len(by_class) == len(ROWS) - 30


def test_each_group_is_tested_once_and_validation_is_apart() -> None:
    groups = [f"g{number}" for number in range(13)]
    splits = [split_groups(groups, Fold(number, 5)) for number in range(1, 6)]
    tested = [[group for group in groups if split[group] == "test"] for split in splits]
    assert sorted(chain(*tested)) == sorted(groups) and tested[1] == ["g1", "g6", "g11"]
    assert all(list(split.values()).count("validation") == 1 for split in splits)
    assert split_groups(groups, Fold(2, 5)) == splits[1]
    with pytest.raises(UserError, match=r"task\.fold=1/5 needs 5 groups or more, and task\.groups gives 4"):
        split_groups(groups[:4], Fold(1, 5))


@pytest.mark.parametrize("text", ["0/5", "6/5", "1", "1/1", "a/b", "-1/3"])
def test_folds_that_are_none(text: str) -> None:
    assert parse_fold("5/5") == (5, 5)
    with pytest.raises(UserError, match=r"task\.fold must be a number and a count"):
        parse_fold(text)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"score": None}, r"task\.target=score needs task\.score"),
        ({"groups": None}, r"task\.fold=2/4 needs task\.groups"),
        ({"weights": "balanced"}, r"task\.weights=balanced is for classes"),
        ({"target": "rank"}, r"task\.target must be 'class' or 'score', got 'rank'"),
    ],
)
def test_settings_that_contradict(settings: dict, sentence: str, inputs: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        task_of(inputs, **settings)
    with pytest.raises(UserError, match="another file or label has other folds"):
        set_labelled_file(task_of(inputs), "b.tsv", None)


def test_a_fold_splits_whole_groups_and_sets_the_unit_of_the_number(inputs: Path) -> None:
    task = task_of(inputs)
    source = opened(inputs, task)
    groups = {name: {variant.group for variant in variants} for name, variants in source.labelled.items()}
    assert groups["test"] == {"exon1", "exon5", "exon9"} and len(groups["validation"]) == 1
    assert "; test exon1, exon5, exon9" in describe_source(source)
    longer = open_data_source(DataSettings(fasta=str(inputs / "a.fa"), length=8192), task, 0)  # longer than the genome
    assert longer.labelled == source.labelled
    task.set_targets(source.labelled["train"])
    window = [task.window_around(source.genome, variant, 32) for variant in source.labelled["train"]]
    numbers = np.concatenate([example.targets["score"] for example in window])
    assert numbers.mean() == pytest.approx(0, abs=1e-6) and numbers.std() == pytest.approx(1, abs=1e-6)


def test_the_loss_of_a_number_is_its_squared_error() -> None:
    output = {"score": TargetSpec(1, 1.0, level="window", number=True)}
    logits, target = {"score": torch.tensor([[[1.0]], [[-2.0]]])}, {"score": torch.tensor([[0.5], [-1.0]])}
    assert float(loss(logits, target, output).total) == pytest.approx((0.25 + 1) / 2)


def test_metrics_of_numbers() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=60).round(1)
    numbers = 1e6 * (scores + rng.normal(size=60))  # far beyond 1, where a sigmoid would make them equal
    assert spearman(numbers, scores) == pytest.approx(spearmanr(numbers, scores).statistic)
    labels = np.where(scores > 0.3, 0, np.where(scores < -0.3, 1, -1))
    metrics = score_metrics(numbers, scores, labels, -1.0, resample(range(60), 50))
    pairs = numbers[labels == 0][:, None] > numbers[labels == 1]
    assert metrics.auroc == pytest.approx(pairs.mean())
    assert metrics.spearman_low < metrics.spearman < metrics.spearman_high and metrics.auprc > 0.5
    assert np.isnan(spearman(np.ones(60), scores)) and np.isnan(ranking(numbers, np.ones(60, int)).auroc)
    few = resample([number // 10 for number in range(60)], 50, least=5)
    assert few.weights.shape == (50, 6) and few.units.tolist() == [number // 10 for number in range(60)]


def test_the_sign_and_the_words_of_a_column_are_learned_in_training() -> None:
    targets = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    assert column_numbers(["3", "2", "1", "NA", "0"], ["5", "", "1"], targets).tolist() == [-5, -1.5, -1]
    assert column_numbers(["a", "b", "b", "c", "c"], ["c", "a", "new", "b"], targets).tolist() == [2, 0, 1, 1]
    assert oriented(np.arange(5.0), np.array([7.0]), targets).tolist() == [7]


def test_an_evaluation_beside_rivals(inputs: Path) -> None:
    """The regression and the column `guess`, whose sign is turned, know the rule; the consequence knows nothing.

    A language model to which C and G are likely has the rule in its likelihood ratio.
    """
    task = task_of(inputs, rivals=["guess", "word"], gff=str(inputs / "a.gff3"))
    source = opened(inputs, task)
    data = DataSettings(fasta=str(inputs / "a.fa"), length=32)
    evaluator = build_evaluator(source, data, TestSettings(resamples=5), task, False)
    model = memoryless(toy_model(CAUSAL))
    head = model.predictor.model.token_head
    with torch.no_grad():
        head.bias[:4] = torch.tensor([0.1, 0.4, 0.4, 0.1]).log()  # type: ignore[index, union-attr]
    metrics = evaluator.evaluate([Candidate("zero_shot", "zero-shot", model.predictor)]).metrics.flat()
    assert metrics["rival_guess/test/all/spearman"] > 0.8 and metrics["rival_word/test/all/auroc"] == 1
    assert metrics["linear_regression/test/all/spearman"] > 0.6
    assert abs(metrics["consequence/test/all/spearman"]) < 0.5
    assert metrics["zero_shot/test/all/auroc"] > 0.7


@pytest.mark.usefixtures("quick")
def test_a_run_learns_a_number_and_scores_with_it(inputs: Path, tmp_path: Path) -> None:
    words = ("experiment=smoke", "task=variant", "curriculum=none", "control=null", "trainer.threads=1")
    task = (f"task.file={inputs / 'a.tsv'}", "task.target=score", "task.score=measured", "task.groups=part")
    budget = ("trainer.max_steps=120", "trainer.validate_every=60", "optimizer.lr=0.01", "schedule.warmup=5")
    given = (*words, *task, *budget, "task.fold=1/4", "data.batch=16", "data.length=16", "test.resamples=5")
    fasta = f"{inputs / 'a.fa'}"
    assert main(["train", *given, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["model/test/all/spearman"] > 0.7 and metrics["model/test/all/auroc"] is None
    bases = (inputs / "a.fa").read_text().splitlines()[1]
    changes = [(f"chr1\t{at + 1}\t.\t{bases[at]}\t{to}\t.\t.\t.\n", to) for at in range(90, 130) for to in "ACGT"]
    changes = [(row, to) for row, to in changes if row.split("\t")[3] != to]
    head = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "in.vcf").write_text(head + "".join(row for row, _ in changes))
    files = (f"vcf={tmp_path / 'in.vcf'}", f"fasta={fasta}", f"out={tmp_path / 'out.vcf'}", "embeddings=false")
    assert main(["score", *files, f"checkpoint={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'score'}"]) == 0
    rows = [line.split("\t") for line in (tmp_path / "out.vcf").read_text().splitlines() if line[0] != "#"]
    numbers = np.array([float(row[7].removeprefix("GA_SCORE=")) for row in rows])
    assert spearman(numbers, np.array([float(to in "CG") for _, to in changes])) > 0.7


@pytest.mark.usefixtures("quick")
def test_fine_tuning_stands_beside_the_likelihood_ratio(inputs: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "language" / "model", toy_model(CAUSAL, length=16))
    task = (f"task.file={inputs / 'a.tsv'}", "task.label=kind", "task.classes={weak: [W], strong: [S]}")
    fold = ("task=variant", "task.groups=part", "task.fold=1/4", "test.resamples=3", "trainer.threads=1")
    budget = ("trainer.max_steps=1", "data.batch=2", "data.length=16", "data.validation_windows=2")
    given = (f"checkpoint={model.parent}", *fold, *task, *budget, f"data.fasta={inputs / 'a.fa'}")
    assert main(["finetune", *given, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 <= metrics["zero_shot/test/all/auroc"] <= 1 and metrics["zero_shot/test/all/accuracy"] is None
    assert "pretrained/test/all/auroc" not in metrics


@pytest.fixture(scope="module")
def brca1(alone: None) -> Genome:
    return open_genome([DATA / "brca1.fa.gz"])


def test_the_figures_of_the_data_brca1(brca1: Genome) -> None:
    """data/README.md: each exon left out in turn; CADD and phyloP as they are."""
    classes = {"tolerated": ["FUNC"], "damaging": ["LOF"]}
    beside = Beside("score", "exon", ("cadd", "phylop"))
    variants, _ = read_labelled(DATA / "brca1.tsv.gz", "class", classes, brca1, 50, beside=beside)
    labels, exons = np.array([one.label for one in variants]), np.array([one.group for one in variants])
    assert len(variants) == 3644 and labels.mean() == pytest.approx(0.226, abs=5e-4) and len(set(exons)) == 13
    for number, figures in enumerate([(0.817, 0.606), (0.793, 0.471)]):
        column = np.array([float(one.rivals[number]) for one in variants])
        assert ranking(column, labels) == pytest.approx(figures, abs=5e-4)
    task = VariantClassification("brca1.tsv.gz", "class", classes)
    facts = np.stack([features(one, task.window_around(brca1, one, 128)) for one in variants])
    pooled, by_exon = np.zeros(len(labels)), []
    for exon in dict.fromkeys(exons.tolist()):
        out = exons == exon
        pooled[out] = logistic_regression(facts[~out], labels[~out], facts[out], 2)[:, 1]
        by_exon.append(ranking(pooled[out], labels[out]).auroc)
    assert ranking(pooled, labels) == pytest.approx((0.651, 0.356), abs=1e-3)
    assert (min(by_exon), max(by_exon)) == pytest.approx((0.597, 0.774), abs=1e-3)
    numbers = np.array([one.score for one in variants])
    own = linear_regression(facts[exons != "X5"], numbers[exons != "X5"], facts[exons == "X5"])
    assert spearman(own, numbers[exons == "X5"]) > 0.15


def test_the_figures_of_the_data_sars2(alone: None) -> None:
    """data/README.md: stop, missense and silent alone."""
    genome = open_genome([DATA / "sars2.fa.gz"])
    classes = {"tolerated": ["tolerated"], "dead": ["dead"]}
    variants, _ = read_labelled(DATA / "sars2.tsv.gz", "class", classes, genome, 50, beside=Beside(group=3000))
    assert len(variants) == 36_098 and len({one.group for one in variants}) == 10
    known = Consequences(genome, DATA / "sars2.gff3")
    kinds = np.array([SEVERITY.get(known.of(one.record, one.mutation), 2) for one in variants], float)
    figures = ranking(kinds, np.array([one.label for one in variants]))
    assert figures == pytest.approx((0.757, 0.572), abs=3e-3)
