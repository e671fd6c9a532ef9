"""Runs that start from an earlier one: what they take over, what learns, and what the table and the files say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases
from genoattn.models.build import load_predictor
from genoattn.models.checkpoint import find_model, read_description
from genoattn.training.finetuning import merge_adapters, select_trainable
from genoattn.training.settings import LoraSettings

SMALL = ("experiment=smoke", "trainer.threads=1", "test.windows=4", "test.threshold_windows=4", "test.resamples=1")
BASES = [decode_bases(np.random.default_rng(seed).integers(0, 4, 6000, np.uint8)) for seed in (0, 1)]
pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(autouse=True)
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cli.train.plot_training", "evaluation.detection.evaluator.plot_curves"):
        monkeypatch.setattr(f"genoattn.{name}", lambda *_: None)


def train(folder: Path, *words: str) -> int:
    return main(["train", *SMALL, f"hydra.run.dir={folder}", *words])


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An earlier run of full attention with two heads, and the FASTA of another genome."""
    folder = tmp_path_factory.mktemp("start")
    for name, bases in zip(("one", "other"), BASES, strict=True):
        (folder / f"{name}.fa").write_text(f">{name}\n{bases}\n")
    words = (f"data.fasta={folder / 'one.fa'}", "attention=full", "attention.heads=2", "control=null")
    assert train(folder / "run", *words) == 0
    return folder / "run", folder / "other.fa"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "weights.safetensors")


@pytest.mark.parametrize("tune", ["all", "head", "lora"])
def test_what_learns(tune: str, start: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, fasta = start
    words = (f"checkpoint={run}", f"data.fasta={fasta}", f"tune={tune}")
    capsys.readouterr()
    assert train(tmp_path / "run", *words) == 0
    said = capsys.readouterr().out
    assert "Mutations detected by attention=full" in said
    before, after = weights(run), weights(tmp_path / "run")
    assert list(before) == list(after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    heads = {"token_head.weight", "token_head.bias"}
    assert moved >= heads
    linear = {name for name in before if ".mlp." in name or ".attention.heads." in name}
    if tune == "head":
        assert moved == heads
        assert f"tune=head: {sum(before[name].numel() for name in heads):,} parameters learn" in said
    if tune == "lora":
        adapted = {name for name in linear if name.endswith(".weight")}
        assert moved == heads | adapted
        layers = ", ".join(f"attention.heads.{name}" for name in ("query", "key", "value", "out"))
        assert f"on {layers}, mlp.0, mlp.2; none on " in said
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (config.attention._target_.rpartition(".")[2], config.attention.heads) == ("FullAttention", 2)
    assert config.control is None
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {f"{candidate}/test/all/auprc" for candidate in ("pretrained", "untrained", "model")} <= set(found)
    words = (f"checkpoint={tmp_path / 'run'}", f"data.fasta={fasta}", "data.length=64", *SMALL[2:])
    assert main(["evaluate", *words, f"hydra.run.dir={tmp_path / 'seen'}"]) == 0
    again = json.loads((tmp_path / "seen" / "metrics.json").read_text())
    assert {key: found[key] for key in again if "cost" not in key} == {
        k: v for k, v in again.items() if "cost" not in k
    }


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("attention=window", "attention is full in checkpoint={run}, and window was given"),
        ("attention.heads=1", "attention.heads is 2 in checkpoint={run}, and 1 was given"),
        ("model.dim=32", "model.dim is 16 in checkpoint={run}, and 32 was given"),
        ("tokenizer.unknown=merge", "tokenizer.unknown is keep in checkpoint={run}, and merge was given"),
    ],
)
def test_contradictions(
    word: str, sentence: str, start: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, fasta = start
    capsys.readouterr()
    assert train(tmp_path, f"checkpoint={run}", f"data.fasta={fasta}", word) == 2
    assert capsys.readouterr().err == sentence.format(run=run) + "\n"


def test_what_is_no_contradiction(start: tuple[Path, Path], tmp_path: Path) -> None:
    run, fasta = start
    words = (
        "attention=full",
        "attention.heads=2",
        "model.dim=16",
        "model.activation_checkpointing=block",
        "tokenizer=nucleotide",
    )
    assert train(tmp_path, f"checkpoint={run}", f"data.fasta={fasta}", *words) == 0
    assert OmegaConf.load(tmp_path / "config.yaml").model.activation_checkpointing == "block"
    assert list(weights(tmp_path)) == list(weights(run))


def test_nothing_to_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tune=head") == 2
    assert capsys.readouterr().err == "tune=head needs a model to start from: checkpoint=… (a run folder)\n"


def test_another_task(start: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, fasta = start
    capsys.readouterr()
    words = (f"checkpoint={run}", f"data.fasta={fasta}", "task.max_shift=12", "tune=head")
    assert train(tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert "token_head starts anew: the task is another than the checkpoint's\n" in said
    assert "stem starts anew in part (stem.matches.weight, stem.aligned.weight): the task" in said
    before, after = weights(run), weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(("embed", "blocks")))
    assert "before/test/auprc" not in json.loads((tmp_path / "metrics.json").read_text())


@pytest.mark.parametrize("tune", ["head", "lora"])
def test_resumed(tune: str, start: tuple[Path, Path], tmp_path: Path) -> None:
    run, fasta = start
    words = (f"checkpoint={run}", f"data.fasta={fasta}", f"tune={tune}")
    assert train(tmp_path / "whole", *words) == 0
    last = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    assert train(tmp_path / "rest", *words, f"trainer.resume={last}") == 0
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "rest")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_merged_adapters_answer_the_same(start: tuple[Path, Path]) -> None:
    home = find_model(start[0])
    model = load_predictor(home, read_description(home)).model.eval()
    keys = list(model.state_dict())
    select_trainable(model, "lora", LoraSettings(rank=4, alpha=8), [], 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    model.double()
    ids = torch.randint(0, 4, (2, 40))
    beside = torch.randint(0, 4, (2, 40 + 48))
    with torch.no_grad():
        adapted = model(ids, beside)
        merge_adapters(model)
        plain = model(ids, beside)
    assert list(model.state_dict()) == keys
    for name in adapted:
        torch.testing.assert_close(adapted[name], plain[name], atol=1e-6, rtol=1e-6)
