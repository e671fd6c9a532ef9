"""A loss or weights that are not finite end a training in a sentence, before they reach a checkpoint."""

import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from genoattn.errors import UserError
from genoattn.training.divergence import StopOnDivergence
from genoattn.training.module import SequenceModule
from tests.training.quick import leave_out_evaluation, quick_train

pytestmark = pytest.mark.usefixtures("alone")


def test_a_run_that_diverges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_out_evaluation(monkeypatch)
    folder = tmp_path / "run"
    step = SequenceModule.training_step

    def training_step(self: SequenceModule, batch: Any, index: int) -> dict[str, torch.Tensor]:
        lost = step(self, batch, index)
        return {name: loss * math.inf for name, loss in lost.items()} if self.trainer.global_step == 3 else lost

    monkeypatch.setattr(SequenceModule, "training_step", training_step)
    words = ("trainer.max_steps=6", "trainer.gradient_clip=2", "schedule.warmup=0", "schedule.final=1.0")
    assert quick_train(folder, *words) == 2
    last = folder / "checkpoints" / "last.ckpt"
    error = capsys.readouterr().err
    assert error == (
        "model diverged: the loss is inf at step 4, at a learning rate of 0.003 and trainer.gradient_clip=2; choose a"
        f" lower optimizer.lr; the last finite checkpoint is {last}\n"
    )
    about = {"step": 4, "learning_rate": 0.003, "gradient_clip": 2, "loss": "inf"}
    assert json.loads((folder / "diverged.json").read_text()) == about
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert not (folder / "trained.pt").exists()
    assert (folder / "train.log").read_text().endswith(error)


class Training:
    """The parts of Lightning that the callback looks at."""

    def __init__(self, folder: Path, log_every: int = 1, device: str = "cpu", step: int = 5, accumulate: int = 1):
        self.callback = StopOnDivergence("model", folder, log_every)
        self.metrics = {"validation/loss": torch.tensor(1.0), "learning_rate": torch.tensor(0.1)}
        self.trainer: Any = Mock(
            spec=Trainer,
            callback_metrics=self.metrics,
            gradient_clip_val=None,
            global_step=step,
            accumulate_grad_batches=accumulate,
        )
        self.layer = nn.Linear(2, 2)
        self.module: Any = Mock(spec=LightningModule, device=torch.device(device))
        self.module.named_parameters = lambda: self.layer.named_parameters(prefix="layer")

    def batch(self, loss: float, index: int = 0) -> None:
        outputs = {"loss": torch.tensor(1.0), "of_all": torch.tensor(loss)}  # one process of several, and all of them
        self.callback.on_train_batch_end(self.trainer, self.module, outputs, None, index)

    def validate(self) -> None:
        self.callback.on_validation_end(self.trainer, self.module)


def test_the_training_loss_is_looked_at(tmp_path: Path) -> None:
    Training(tmp_path).batch(1.0)
    for loss, text in ((math.nan, "nan"), (-math.inf, "-inf")):
        with pytest.raises(UserError, match=f"the loss is {text} at step 5, .* no checkpoint was written before"):
            Training(tmp_path, log_every=4).batch(loss)
    with pytest.raises(UserError, match="at step 6,"):  # within the sixth
        Training(tmp_path, accumulate=2).batch(math.nan, 0)
    with pytest.raises(UserError, match="at step 5,"):
        Training(tmp_path, accumulate=2).batch(math.nan, 1)
    Training(tmp_path, log_every=4, device="cuda").batch(math.nan)  # only logged steps wait for a GPU
    with pytest.raises(UserError, match="at step 8,"):
        Training(tmp_path, log_every=4, device="cuda", step=8).batch(math.nan)


def test_validation_loss_and_weights_are_looked_at_before_a_checkpoint_is_written(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.validate()
    training.callback.on_train_end(training.trainer, training.module)
    training.metrics["validation/loss"] = torch.tensor(math.nan)
    with pytest.raises(UserError, match=r"validation loss is nan at step 5, .* trainer.gradient_clip=0;"):
        training.validate()
    training.metrics["validation/loss"] = torch.tensor(1.0)
    with torch.no_grad():
        training.layer.bias[1] = math.inf
    with pytest.raises(UserError, match=r"the weight layer\.bias is not finite at step 5"):
        training.validate()
    with pytest.raises(UserError, match=r"the weight layer\.bias is not finite at step 5"):
        training.callback.on_train_end(training.trainer, training.module)


def test_the_mark_of_a_run_before_is_removed(tmp_path: Path) -> None:
    training = Training(tmp_path)
    (tmp_path / "diverged.json").touch()
    training.callback.on_fit_start(training.trainer, training.module)
    training.callback.on_fit_start(training.trainer, training.module)
    assert not list(tmp_path.iterdir())
