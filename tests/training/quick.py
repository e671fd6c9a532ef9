"""Trainings without their evaluation, for tests of the training alone."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genoattn.cli import finetune, train
from genoattn.cli.main import main
from genoattn.training.module import SequenceModule
from tests.toy_genomes import write_genome

WORDS = ("experiment=smoke", "control=null", "trainer.threads=1", "trainer.memory_check=false", "data.batch=2")
TRAINED = "trained.pt"


def leave_out_evaluation(patch: pytest.MonkeyPatch) -> None:
    """The end of a run only saves the model that it was trained to."""

    def save(folder: Path, _: object, candidates: Any, *rest: object) -> None:
        torch.save(candidates[0].predictor.model.state_dict(), folder / TRAINED)

    for program in (train, finetune):
        patch.setattr(program, "finish_run", save)
    patch.setattr("genoattn.evaluation.build_evaluator", lambda *_: None)


def quick_train(folder: Path, *words: str) -> int:
    """Train in a folder beside a small genome, which is made if it is not there."""
    fasta = folder.parent / "chr.fa"
    if not fasta.exists():
        write_genome(folder.parent, "chr", seed=1)
    return main(["train", *WORDS, f"data.fasta={fasta}", f"hydra.run.dir={folder}", *words])


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / TRAINED, weights_only=True)


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what a clock measured, and without Lightning's epochs, which end wherever a run stops."""
    with (folder / "metrics.csv").open(newline="") as lines:
        table = list(csv.DictReader(lines))
    return [{key: value for key, value in row.items() if key not in ("bases_per_second", "epoch")} for row in table]


def at_batch(patch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something within the training batch of that number, from 1."""
    step, calls = SequenceModule.training_step, []

    def training_step(self: SequenceModule, batch: Any, index: int) -> torch.Tensor:
        calls.append(index)
        if len(calls) == number:
            act()
        return step(self, batch, index)

    patch.setattr(SequenceModule, "training_step", training_step)
