"""The evaluation of a model from Python, and the settings of its data."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from genoattn.attention.none import NoAttention
from genoattn.cli.evaluate import set_labelled_file
from genoattn.data.settings import DataSettings
from genoattn.data.source import open_data_source
from genoattn.data.tasks.language_modeling import LanguageModeling
from genoattn.data.tasks.paired import Paired
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.evaluation import build_evaluator, evaluate
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.by_length import windows_at
from genoattn.evaluation.detection.evaluator import MutationDetectionEvaluator
from genoattn.evaluation.metrics import MetricKey
from genoattn.evaluation.settings import EvaluationData, TestSettings
from genoattn.models.predictor import Predictor
from genoattn.models.sequence_model import SequenceModel

TEST = TestSettings(windows=4, threshold_windows=4, resamples=5)


@pytest.fixture
def predictor() -> Predictor:
    task, tokenizer = SideBySide(max_shift=4), NucleotideTokenizer()
    torch.manual_seed(0)
    heads = dict.fromkeys(task.outputs, 1) | {"shift": task.outputs["shift"].classes}
    model = SequenceModel(
        tokenizer.vocabulary_size, heads, task.max_shift, partial(NoAttention), segment_count=1, dim=8
    )
    return Predictor(tokenizer, task, model)


@pytest.fixture
def data(tmp_path: Path) -> DataSettings:
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 6000))
    (tmp_path / "a.fa").write_text(f">a\n{letters}\n")
    return DataSettings(length=64, fasta=str(tmp_path / "a.fa"), cache=str(tmp_path / "cache"))


def test_a_predictor_is_evaluated_beside_the_baselines(predictor: Predictor, data: DataSettings):
    result = evaluate(predictor, data, TEST)
    assert str(result.primary) == "model/test/all/auprc" and 0 <= result.metrics[result.primary] <= 1
    assert result.metrics.select(candidate="aligner", subset="all", metric="f1")
    assert set(result.calibration["model"]["thresholds"]) == {"substitution", "insertion", "deletion"}
    assert result.replicates is not None and len(result.replicates.replicates[result.primary]) == 5


def test_further_lengths_have_metrics_of_their_own(
    predictor: Predictor, data: DataSettings, capsys: pytest.CaptureFixture[str]
):
    result = evaluate(predictor, data, replace(TEST, lengths=(16, 64, 128, 4096)))
    keys = {key.test_set for key in result.metrics}
    assert keys == {"test", "test_16", "test_128"} and "test.lengths: 4096 is left out" in capsys.readouterr().out
    assert result.replicates is not None
    there = result.primary._replace(test_set="test_16")
    assert len(result.replicates.replicates[there]) == 5 and there in result.metrics
    rows = {row[0]: row for row in result.tables[-1].rows}
    assert [*rows] == ["16", "64", "128"] and rows["64"][1] == f"{result.metrics[result.primary]:.3f}"
    counts = [windows_at(length, data, replace(TEST, windows=200)) for length in (16, 32, 128, 6400)]
    assert counts == [800, 400, 100, 16]


def test_restored_bases_are_counted_where_they_are_masked(data: DataSettings):
    task, tokenizer = Paired(mask_fraction=0.2), NucleotideTokenizer()
    heads = {name: output.classes for name, output in task.outputs.items()}
    torch.manual_seed(0)
    model = SequenceModel(tokenizer.vocabulary_size + 1, heads, None, partial(NoAttention), segment_count=2, dim=8)
    assert model.token_head is not None and [*heads][-1] == "restore"
    with torch.no_grad():  # every base is told to be an A
        model.token_head.weight.zero_()
        model.token_head.bias[-4:] = torch.tensor([1.0, 0, 0, 0])
    evaluator = build_evaluator(open_data_source(data, task, 0), data, TEST, task, False)
    result = evaluator.evaluate([Candidate("model", "none", Predictor(tokenizer, task, model))])
    assert isinstance(evaluator, MutationDetectionEvaluator)
    told = np.concatenate([example.targets["restore"] for example in evaluator.masked])
    key = MetricKey("model", "test", "all", "restored")
    assert result.metrics[key] == pytest.approx(np.mean(told[told >= 0] == 0)) and (told >= 0).sum() > 30
    assert result.replicates is not None and len(result.replicates.replicates[key]) == 5


def test_a_predictor_needs_a_length(predictor: Predictor):
    with pytest.raises(UserError, match=r"data\.length must be given"):
        evaluate(predictor, EvaluationData(), TEST)


def test_the_length_is_that_of_training_by_default(capsys: pytest.CaptureFixture[str]):
    assert EvaluationData(batch=3).at(256) == DataSettings(batch=3, length=256)
    assert capsys.readouterr().out == "windows of 256 bases, as in training\n"
    assert EvaluationData(length=64).at(256).length == 64
    assert capsys.readouterr().out == "windows of 64 bases; the model was trained on windows of 256 bases\n"


def test_a_vcf_is_refused_for_a_model_that_detects_no_mutations(data: DataSettings):
    task = LanguageModeling()
    source = open_data_source(data, task, 0)
    with pytest.raises(UserError, match=r"data\.vcf=x\.vcf has mutations to detect, but LanguageModeling reads none"):
        build_evaluator(source, DataSettings(length=64, vcf="x.vcf"), TEST, task, False)


def test_records_that_the_filter_leaves_out_are_not_tested(data: DataSettings, tmp_path: Path):
    row = "a\t9\t.\tN\tC\t3\tLOW\t.\n"  # N is not what the FASTA holds, which only a record that is kept must
    header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "x.vcf").write_text(header + 2 * row)
    filtered = replace(data, vcf=str(tmp_path / "x.vcf"), vcf_filter="PASS")
    source = open_data_source(filtered, SideBySide(), 0)
    with pytest.raises(UserError, match=r"x\.vcf holds no mutation to test \(2 by data\.vcf_filter\)"):
        build_evaluator(source, filtered, TEST, SideBySide(), False)


def test_another_labelled_file_is_for_variant_models():
    task = VariantClassification("a.vcf", "CLNSIG", {"a": ["x"], "b": ["y"]})
    set_labelled_file(task, "b.tsv", None)
    assert (task.file, task.label) == ("b.tsv", "CLNSIG")
    set_labelled_file(SideBySide(), None, None)
    with pytest.raises(
        UserError, match=r"task\.file=b\.tsv is for models of task=variant and task=region; .* for SideBySide"
    ):
        set_labelled_file(SideBySide(), "b.tsv", None)
