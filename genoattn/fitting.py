"""Runs Lightning's trainer: checkpoints, resume, stops, and progress that a person can read."""

import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from rich.console import Console

from genoattn.checkpoint import check_fit
from genoattn.data import GenomeData
from genoattn.errors import UserError
from genoattn.learner import Learner


class Fitted(NamedTuple):
    """How training ended: seconds it took, steps made, and whether Ctrl-C ended it."""

    seconds: float
    steps: int
    interrupted: bool


@final
class Stop(Callback):
    """Ends training after the step at hand on Ctrl-C, and leaves last.ckpt however training ends."""

    def __init__(self, last: Path):
        self.last, self.interrupted, self._before = last, False, None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def interrupt(*_: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = trainer.should_stop = True

        self._before = signal.signal(signal.SIGINT, interrupt)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.last)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        signal.signal(signal.SIGINT, self._before or signal.default_int_handler)


@final
class Lines(Callback):
    """A line at each validation: where training stands, in loss, quality, curriculum and speed."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        auprc = "  ".join(
            f"{name.removeprefix('validation/auprc_')} {value:.3f}"
            for name, value in figures.items()
            if name.startswith("validation/auprc_")
        )
        Console().print(
            f"step {trainer.global_step:>6}  loss {figures.get('loss', 0):.4f}"
            f"  rate {figures.get('curriculum/rate', 0):.3f}  length {figures.get('curriculum/length', 0):.0f}"
            f"  {figures.get('bases_per_second', 0):,.0f} bases/s  validation loss {figures['validation/loss']:.4f}"
            f"  AUPRC {auprc}",
            highlight=False,
            soft_wrap=True,
        )


def fit(learner: Learner, data: GenomeData, settings: DictConfig, folder: Path, loggers: list[Logger]) -> Fitted:
    """Train, then put the weights of the lowest validation loss into the learner's model.

    Leaves checkpoints/best.ckpt and checkpoints/last.ckpt in `folder`. `settings` is the config's `trainer`.
    """
    if settings.resume:
        _check_resume(Path(settings.resume), learner)
    checkpoints = folder / "checkpoints"
    best = ModelCheckpoint(checkpoints, "best", "validation/loss", enable_version_counter=False, save_last=True)
    stop = Stop(checkpoints / "last.ckpt")
    bar: list[Callback] = [RichProgressBar(refresh_rate=1, leave=True)] if Console().is_terminal else []
    trainer = Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_time=timedelta(seconds=settings.max_seconds) if settings.max_seconds else None,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip or None,
        val_check_interval=min(settings.validate_every, settings.max_steps) * settings.accumulate,
        check_val_every_n_epoch=None,
        log_every_n_steps=settings.log_every,
        logger=loggers or False,
        callbacks=[best, stop, Lines(), *bar],
        enable_progress_bar=bool(bar),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    start = time.perf_counter()
    trainer.fit(learner, data, ckpt_path=settings.resume)
    seconds = time.perf_counter() - start
    if best.best_model_path and not stop.interrupted:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        learner.load_state_dict(state)
    return Fitted(seconds, trainer.global_step, stop.interrupted)


def _check_resume(path: Path, learner: Learner) -> None:
    if not path.is_file():
        raise UserError(f"trainer.resume={path}: there is no such file")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, RuntimeError, KeyError, EOFError, ValueError) as error:
        raise UserError(f"trainer.resume={path} is no checkpoint of a run: {error}") from None
    check_fit(path, state, learner.state_dict())
