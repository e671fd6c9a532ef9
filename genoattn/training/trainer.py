"""Runs Lightning's trainer, from the start or from a checkpoint, and keeps it quiet."""

import logging
import os
import pickle
import shutil
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from genoattn.attention.base import Attention
from genoattn.data.curriculum import Curriculum
from genoattn.data.datamodule import GenomeDataModule
from genoattn.data.source import DataSource, build_dataset
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.models import cost
from genoattn.models.checkpoint import check_fit
from genoattn.models.predictor import Predictor
from genoattn.training.callbacks import Checkpoints, Progress, StopCleanly
from genoattn.training.module import SequenceModule
from genoattn.training.recipe import TrainingRecipe
from genoattn.training.settings import TrainerSettings

NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
    r".*You're resuming from a checkpoint that ended before the epoch ended",  # the data goes on where the run stands
    r".*The '.*' does not have many workers",  # examples are cheap
    r".*Experiment logs directory .* exists and is not empty",  # it holds the config
    r"No positive samples found in target",  # a task may plant no mutation of a kind
)
"""What Lightning warns of and a user can do nothing about."""


DTYPES = {"64": torch.float64, "32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
"""The dtype of products by the first part of `trainer.precision`."""


class FitResult(NamedTuple):
    """How training ended: seconds it took, bases it saw, steps made by now, and whether Ctrl-C ended it.

    `tokens` stand in a window of the first validation batch; `padding` is the share of padding among all tokens seen.
    """

    seconds: float
    bases: int
    steps: int
    interrupted: bool
    tokens: int
    padding: float


def fit(
    name: str,
    learner: SequenceModule,
    data: GenomeDataModule,
    settings: TrainerSettings,
    folder: Path,
    loggers: list[Logger],
    resume: Path | None,
) -> FitResult:
    """Train, then put the weights of the lowest validation loss into the learner's model, on the device that trained.

    Leaves checkpoints/best.ckpt and checkpoints/last.ckpt in `folder`. `settings` is the config's `trainer`, `resume`
    a last.ckpt to go on from.
    """
    checkpoints = folder / "checkpoints"
    if resume is not None:
        _take_over(resume, learner, checkpoints)
    stop = StopCleanly(settings.max_seconds)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no news of devices, and no advertisements
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message)
        trainer = build_trainer(settings, folder, loggers, [stop, Checkpoints(checkpoints), Progress()])
        device = trainer.strategy.root_device
        mixes = [block.attention for block in learner.model.blocks if isinstance(block.attention, Attention)]
        dtype = DTYPES[settings.precision.partition("-")[0]]
        kinds = dict.fromkeys(f"{type(mix).__name__} ({mix.describe_backend(device, dtype)})" for mix in mixes)
        parameters = cost.predicted_cost(learner.model, 1)["parameters"]
        print(f"{name}: {', '.join(kinds)} on {device}, {parameters:,} parameters")
        start = time.perf_counter()
        with stop.listening():
            trainer.fit(learner, data, ckpt_path=resume)
        seconds = time.perf_counter() - start
    bases = learner.bases_learned
    if (checkpoints / "best.ckpt").exists() and not stop.interrupted:
        state = torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        learner.load_state_dict(state)
    learner.to(device)  # Lightning leaves it on the CPU
    tokens = data.validation.batch(0, 1, data.tokenizer).ids.shape[1]
    real, padding = learner.tokens_seen.tolist()
    share = padding / max(1, real + padding)
    return FitResult(seconds, bases, trainer.global_step, stop.interrupted, tokens, share)


def build_trainer(settings: TrainerSettings, folder: Path, loggers: list[Logger], callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer as the config's `trainer` has it: device, precision, steps and when it validates."""
    try:
        return Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            precision=settings.precision,
            max_steps=settings.max_steps,
            accumulate_grad_batches=settings.accumulate_batches,
            gradient_clip_val=settings.gradient_clip or None,
            val_check_interval=min(settings.validate_every, settings.max_steps) * settings.accumulate_batches,
            check_val_every_n_epoch=None,
            log_every_n_steps=settings.log_every,
            logger=loggers or False,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
    except MisconfigurationException as error:
        wrong = " ".join(str(error).split())
        asked = f"trainer.accelerator={settings.accelerator} with trainer.devices={settings.devices}"
        raise UserError(f"{asked} cannot run here: {wrong}") from None


def _take_over(resume: Path, learner: SequenceModule, checkpoints: Path) -> None:
    """Checks that the model fits a run's checkpoint, and takes that and the best one so far into the new run."""
    if not resume.is_file():
        what = "is a folder; expected its checkpoints/last.ckpt" if resume.is_dir() else "does not exist"
        raise UserError(f"trainer.resume={resume} {what}")
    try:
        state: dict[str, Any] = torch.load(resume, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, ValueError, pickle.UnpicklingError):
        raise UserError(f"trainer.resume={resume} is no checkpoint of a run, or a damaged one") from None
    check_fit(resume, state, learner.state_dict())
    checkpoints.mkdir(parents=True, exist_ok=True)
    for file, name in ((resume, "last.ckpt"), (resume.with_name("best.ckpt"), "best.ckpt")):
        if file.is_file():
            shutil.copyfile(file, checkpoints / f".{name}.part")
            os.replace(checkpoints / f".{name}.part", checkpoints / name)


def build_training(
    predictor: Predictor, source: DataSource, recipe: TrainingRecipe
) -> tuple[SequenceModule, GenomeDataModule]:
    """The Lightning module and its data: the same examples, seed, schedule and steps for every model of a run."""
    trainer, data, task = recipe.trainer, recipe.data, predictor.task
    if isinstance(task, VariantClassification):
        task.set_class_weights(source.labelled["train"])
    total = trainer.max_steps * trainer.accumulate_batches * data.batch
    both = recipe.reverse_complement in ("augment", "average")
    training = build_dataset(source, "train", data, task, recipe.seed, total, recipe.curriculum, both)
    validation = build_dataset(source, "validation", data, task, recipe.validation_seed, total, Curriculum())
    module = GenomeDataModule(
        training,
        validation,
        predictor.tokenizer,
        data.batch,
        trainer.accumulate_batches,
        data.validation_windows,
        data.workers,
        both_strands=recipe.reverse_complement == "equivariant",
    )
    learner = SequenceModule(predictor.model, task.outputs, recipe.optimizer, recipe.schedule, trainer.max_steps)
    return learner, module
