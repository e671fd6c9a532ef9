"""Divergence: a loss or weights that are NaN or infinite end a training, and the last finite checkpoint stays."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from genoattn.errors import UserError
from genoattn.files import write_json
from genoattn.models.checkpoint import DIVERGED
from genoattn.training.processes import highest, place
from genoattn.training.sharding import own_part


@final
class StopOnDivergence(Callback):
    """Ends training at a loss or weights that are not finite, before a checkpoint of them is written.

    The training loss is looked at in every step on the CPU. On another device each look waits for the device, so only
    the steps that are logged, which wait for it in any case, are looked at.
    """

    def __init__(self, name: str, folder: Path, log_every: int):
        self.name, self.folder, self.log_every = name, folder, log_every

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if place().rank == 0:
            (self.folder / DIVERGED).unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        waits = pl_module.device.type == "cpu" or trainer.global_step % self.log_every == 0
        if waits and isinstance(outputs, Mapping) and not math.isfinite(outputs["of_all"]):
            within = (batch_idx + 1) % trainer.accumulate_grad_batches > 0
            loss = float(outputs["of_all"])
            self._stop(trainer, f"the loss is {loss}", loss, trainer.global_step + within)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(trainer.callback_metrics["validation/loss"])
        if not math.isfinite(loss):
            self._stop(trainer, f"the validation loss is {loss}", loss, trainer.global_step)
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        weights = ((name, own_part(weight)) for name, weight in pl_module.named_parameters())
        name = next((name for name, weight in weights if not bool(torch.isfinite(weight).all())), None)
        if highest(int(name is not None)) == [1]:  # of any process
            self._stop(
                trainer, f"the weight {name or 'of another process'} is not finite", math.nan, trainer.global_step
            )

    def _stop(self, trainer: Trainer, reason: str, loss: float, step: int) -> None:
        rate = float(f"{trainer.callback_metrics['learning_rate']:.6g}")  # a float32
        clip = trainer.gradient_clip_val or 0
        about = {"step": step, "learning_rate": rate, "gradient_clip": clip, "loss": str(loss)}
        if place().rank == 0:
            write_json(self.folder / DIVERGED, about)
        last = self.folder / "checkpoints" / "last.ckpt"
        saved = f"the last finite checkpoint is {last}" if last.exists() else "no checkpoint was written before"
        raise UserError(
            f"{self.name} diverged: {reason} at step {step}, at a learning rate of {rate:.3g} and"
            f" trainer.gradient_clip={clip}; choose a lower optimizer.lr; {saved}"
        )
