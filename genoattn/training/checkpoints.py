"""Checkpoints of a training: the callback that leaves them, and how their files are written and read."""

import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import CheckpointIO

from genoattn.files import cannot_write, replace_when_done
from genoattn.training.sharded_files import read_whole, remove_folders


@final
class Checkpoints(Callback):
    """Leaves best.ckpt, of the lowest validation loss so far, and last.ckpt, of the latest validation or the end.

    Lightning's ModelCheckpoint forgets the lowest loss when a run is resumed in a new folder, and saves nothing at a
    Ctrl-C between validations.
    """

    def __init__(self, folder: Path, run: Mapping[str, str]):
        self.best, self.last, self.lowest = folder / "best.ckpt", folder / "last.ckpt", math.inf
        self._run, self._saved_step = run, -1

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self.lowest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lowest = state_dict["lowest"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = dict(self._run)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(trainer.callback_metrics["validation/loss"])
        if loss < self.lowest:
            self.lowest = loss
            trainer.save_checkpoint(self.best)
        trainer.save_checkpoint(self.last)
        self._saved_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A file of the same step is kept: resumed from one that is saved here, Lightning would count its step twice.
        if self._saved_step != trainer.global_step:
            trainer.save_checkpoint(self.last)


@final
class CheckpointFiles(CheckpointIO):
    """Checkpoints that are written in their folder, whole or not at all, and read without running a pickle.

    Lightning's own are written in $TMPDIR and moved: a kill leaves them there, and a full /tmp ends a training.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | PathLike[str], storage_options: object = None
    ) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        with replace_when_done(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's error while it ends a file whose disk is full
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
        remove_folders(path)

    def load_checkpoint(
        self, path: str | PathLike[str], map_location: object = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        path = Path(path)
        return read_whole(path) if path.is_dir() else torch.load(path, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: str | PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)
