"""Fine-tuning: the weights that a run takes over, those that it trains, and what it prints and leaves."""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases
from genoattn.models.build import load_predictor
from genoattn.models.card import ModelCard
from genoattn.models.checkpoint import save_model
from genoattn.training.finetuning import merge_adapters, select_trainable
from genoattn.training.module import SequenceModule
from genoattn.training.settings import LoraSettings
from tests.training.quick import leave_out_evaluation, trained

TEST = ("test.windows=4", "test.threshold_windows=4", "test.resamples=1")
STEPS = ("trainer.threads=1", "trainer.max_steps=4", "trainer.validate_every=2")
SMALL = (*STEPS, "data.length=64", "data.batch=4", "data.validation_windows=8", "data.vcf=[]", *TEST)
BASES = [decode_bases(np.random.default_rng(seed).integers(0, 4, 6000, np.uint8)) for seed in (0, 1)]
ALIGNED = ("task=side_by_side", "heads=default", "model=small", "curriculum=anneal")
HEADS = {"token_head.weight", "token_head.bias"}
pytestmark = pytest.mark.usefixtures("alone", "quick")


@pytest.fixture(autouse=True)
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("training.loggers.plot_training", "evaluation.detection.evaluator.plot_curves"):
        monkeypatch.setattr(f"genoattn.{name}", lambda *_: None)


def finetune(folder: Path, run: Path, fasta: Path, *words: str) -> int:
    return main(["finetune", f"checkpoint={run}", f"data.fasta={fasta}", *SMALL, f"hydra.run.dir={folder}", *words])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of full attention with two heads, and the FASTA of another genome."""
    folder = tmp_path_factory.mktemp("pretrained")
    for name, bases in zip(("one", "other"), BASES, strict=True):
        (folder / f"{name}.fa").write_text(f">{name}\n{bases}\n")
    words = ["train", "experiment=smoke", "attention=full", "heads.count=2", "control=null", *ALIGNED, *SMALL]
    assert main([*words, f"data.fasta={folder / 'one.fa'}", f"hydra.run.dir={folder / 'run'}"]) == 0
    return folder / "run", folder / "other.fa"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "weights.safetensors")


def metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize("mode", ["full", "head", "lora"])
def test_each_mode_trains_its_weights(
    mode: str, pretrained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, fasta = pretrained
    folder = tmp_path / "run"
    assert finetune(folder, run, fasta, f"finetune.mode={mode}") == 0
    output = capsys.readouterr().out
    assert "Mutations detected by attention=full" in output
    before, after = weights(run), weights(folder)
    assert list(before) == list(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {name for name in before if ".mlp." in name or ".attention.heads." in name}
    assert changed >= HEADS
    if mode == "head":
        assert changed == HEADS
        assert f"finetune.mode=head: {sum(before[name].numel() for name in HEADS):,} parameters are trained" in output
    if mode == "lora":
        assert changed == HEADS | {name for name in linear if name.endswith(".weight")}
        layers = ", ".join(f"attention.heads.{name}" for name in ("query", "key", "value", "out"))
        assert f"on {layers}, mlp.0, mlp.2; none on " in output
    card, old = (ModelCard.read(folder / "model") for folder in (folder, run))
    assert (card.attention, card.name, card.model) == (old.attention, "full", old.model) and card.genome != old.genome
    assert "attention" not in OmegaConf.load(folder / "config.yaml")
    logged = (folder / "finetune.log").read_text()
    assert "Mutations detected by attention=full" in logged and f"run folder: {folder}" in logged


def test_evaluate_repeats_the_metrics_of_a_fine_tuned_model(pretrained: tuple[Path, Path], tmp_path: Path) -> None:
    run, fasta = pretrained
    assert finetune(tmp_path / "run", run, fasta) == 0
    first = metrics(tmp_path / "run")
    assert any(key.startswith("pretrained/test/") for key in first)
    assert any(key.startswith("untrained/test/") for key in first)
    words = (f"checkpoint={tmp_path / 'run'}", f"data.fasta={fasta}", "data.length=64", "data.vcf=[]", *TEST)
    assert main(["evaluate", *words, f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    again = {key: value for key, value in metrics(tmp_path / "again").items() if not key.startswith("cost/")}
    assert again == {key: value for key, value in first.items() if not key.startswith("cost/")}


def test_a_checkpoint_may_be_a_ckpt_file_and_only_recomputing_may_differ(
    pretrained: tuple[Path, Path], tmp_path: Path
) -> None:
    run, fasta = pretrained
    checkpoint = run / "checkpoints" / "best.ckpt"
    assert finetune(tmp_path, checkpoint, fasta, "finetune.activation_checkpointing=block") == 0
    assert ModelCard.read(tmp_path / "model").model["activation_checkpointing"] == "block"
    assert list(weights(tmp_path)) == list(weights(run))


def test_the_layer_of_a_saved_model_cannot_be_changed(
    pretrained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("attention=window", "model.dim=32", "tokenizer=kmer"):
        assert finetune(tmp_path, *pretrained, word) == 2
        assert word.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("word", ["checkpoint=runs/a", "+checkpoint=runs/a", "tune=head", "lora.rank=2"])
def test_train_names_the_program_that_fine_tunes(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", word, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert "genoattn finetune checkpoint=…" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_is_not_there(pretrained: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    assert finetune(tmp_path / "run", tmp_path / "gone", pretrained[1]) == 2
    assert capsys.readouterr().err == f"checkpoint={tmp_path / 'gone'}: there is no such file or folder\n"


def test_another_task(pretrained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, fasta = pretrained
    words = ("task=side_by_side", "task.max_shift=12", "finetune.mode=head")
    assert finetune(tmp_path, run, fasta, *words) == 0
    output = capsys.readouterr().out
    reason = "because this task is not the pretrained one\n"
    assert f"token_head is initialised, {reason}" in output
    stem = "alignment_stem.matches.weight, alignment_stem.aligned.weight"
    assert f"alignment_stem: {stem} are initialised, {reason}" in output
    before, after = weights(run), weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(("embed", "blocks")))
    assert not any(key.startswith("pretrained/") for key in metrics(tmp_path))


@pytest.mark.parametrize(
    "words",
    [("finetune.mode=head",), ("finetune.mode=lora", "lora.dropout=0.5", "trainer.accumulate_batches=2")],
    ids=["head", "lora"],
)
def test_a_resumed_run_equals_one_without_a_stop(
    words: tuple[str, ...], pretrained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, fasta = pretrained
    leave_out_evaluation(monkeypatch)
    assert finetune(tmp_path / "whole", run, fasta, *words) == 0
    step, calls = SequenceModule.training_step, []

    def training_step(self: SequenceModule, batch: Any, index: int) -> torch.Tensor:
        calls.append(index)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, index)

    monkeypatch.setattr(SequenceModule, "training_step", training_step)
    assert finetune(tmp_path / "half", run, fasta, *words) == 143
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] in (2, 3)
    assert finetune(tmp_path / "rest", run, fasta, *words, f"trainer.resume={last}") == 0
    whole, rest = trained(tmp_path / "whole"), trained(tmp_path / "rest")
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_a_run_of_another_pretrained_model_is_not_resumed(
    pretrained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, fasta = pretrained
    leave_out_evaluation(monkeypatch)
    assert finetune(tmp_path / "run", run, fasta, "trainer.max_steps=1") == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    shutil.copytree(run / "model", tmp_path / "moved")
    words = ("trainer.max_steps=1", f"trainer.resume={last}")
    assert finetune(tmp_path / "rest", tmp_path / "moved", fasta, *words) == 0  # the same weights at another place
    loaded = load_predictor(run, "cpu")
    with torch.no_grad():
        next(loaded.predictor.model.parameters()).add_(1)
    save_model(tmp_path / "moved", loaded.predictor.model, loaded.card)
    capsys.readouterr()
    assert finetune(tmp_path / "other", tmp_path / "moved", fasta, *words) == 2
    assert re.search(r":\n  checkpoint: sha256 [0-9a-f]{12} → [0-9a-f]{12}\n$", capsys.readouterr().err)


def test_merged_adapters_do_not_change_the_logits(pretrained: tuple[Path, Path]) -> None:
    model = load_predictor(pretrained[0], "cpu").predictor.model.eval()
    keys = list(model.state_dict())
    select_trainable(model, "lora", LoraSettings(rank=4, alpha=8), [], 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    model.double()
    ids, reference_window = torch.randint(0, 4, (2, 40)), torch.randint(0, 4, (2, 40 + 48))
    with torch.no_grad():
        adapted = model(ids, reference_window)
        merge_adapters(model)
        merged = model(ids, reference_window)
    assert list(model.state_dict()) == keys
    for name in adapted:
        torch.testing.assert_close(adapted[name], merged[name], atol=1e-6, rtol=1e-6)
