"""Lightning's trainer for a recipe: built, run from the start or from a checkpoint, and kept quiet."""

import logging
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, final

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision

from genoattn.data.batch import Batch
from genoattn.data.curriculum import Curriculum
from genoattn.data.datamodule import GenomeDataModule
from genoattn.data.settings import DataSettings
from genoattn.data.share import DataShare
from genoattn.data.source import DataSource, build_dataset
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.models import cost
from genoattn.models.precision import fast_dtype
from genoattn.models.predictor import Predictor
from genoattn.training.callbacks import Progress, StopCleanly
from genoattn.training.checkpoints import CheckpointFiles, Checkpoints
from genoattn.training.devices import check_devices, check_processes, data_share, environment_of, strategy_of
from genoattn.training.divergence import StopOnDivergence
from genoattn.training.identity import RunIdentity
from genoattn.training.loggers import MetricsFile
from genoattn.training.memory_estimate import uses_gpu
from genoattn.training.module import SequenceModule
from genoattn.training.processes import first_makes, place
from genoattn.training.recipe import TrainingRecipe
from genoattn.training.resume import copy_checkpoints
from genoattn.training.settings import TrainerSettings

NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
    r".*You're resuming from a checkpoint that ended before the epoch ended",  # the data goes on where the run stands
    r".*The '.*' does not have many workers",  # examples are cheap
    r"No positive samples found in target",  # a task may simulate no mutation of a kind
    r"It is recommended to use `self.log\(.*sync_dist=True\)`",  # what is logged is that of all processes already
    r"FSDP2-wrapped module .* returned a view tensor",  # nothing is changed in place
    r"`broadcast_buffers` is deprecated",  # of torch 2.13; older ones know no other name
)
"""Warnings of Lightning that a user can do nothing about."""


AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""The dtype of autocast by precision."""


DTYPES = {"64": torch.float64, "32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
"""The dtype of products by the first part of `trainer.precision`."""


class FitResult(NamedTuple):
    """The end of a training.

    Attributes:
        seconds: Duration of the training.
        bases: Bases seen since it began or was resumed.
        steps: Steps of the optimiser, those before a resume included.
        stopped_by: The signal that ended it, such as that of Ctrl-C; None: no signal did.
        tokens: Tokens of a window of the first validation batch.
        padding: Share of padding among all tokens seen.
        peak_bytes: Peak memory of the training: of tensors on a GPU, else of this whole process.
    """

    seconds: float
    bases: int
    steps: int
    stopped_by: signal.Signals | None
    tokens: int
    padding: float
    peak_bytes: int


def build_training(
    predictor: Predictor, source: DataSource, recipe: TrainingRecipe, share: DataShare | None = None
) -> tuple[SequenceModule, GenomeDataModule]:
    """The Lightning module and its data: the same examples, seed, schedule and steps for every model of a run.

    `share` is the part of every batch that is made; None: that of this process.
    """
    trainer, data, task = recipe.trainer, recipe.data, predictor.task
    if isinstance(task, VariantClassification):
        task.set_targets(source.labelled["train"])
    check_devices(trainer.processes, data.batch, trainer.sequence_parallel)
    total = trainer.max_steps * trainer.accumulate_batches * data.batch
    check_strands(task, recipe.reverse_complement)
    both = recipe.reverse_complement in ("augment", "average")
    datamodule = GenomeDataModule(
        build_dataset(source, "train", data, task, recipe.seed, total, recipe.curriculum, both),
        build_dataset(source, "validation", data, task, recipe.validation_seed, total, Curriculum()),
        predictor.tokenizer,
        data.batch,
        trainer.accumulate_batches,
        data.validation_windows,
        data.workers,
        both_strands=recipe.reverse_complement == "equivariant",
        validation_lengths=_validation_lengths(data),
        share=share or data_share(trainer.sequence_parallel),
    )
    by_length = len(datamodule.validation_lengths) > 1
    steps, seed = trainer.max_steps, recipe.seed
    words = {"by_length": by_length, "sequence_parallel": trainer.sequence_parallel}
    return SequenceModule(predictor, recipe.optimizer, recipe.schedule, steps, seed, **words), datamodule


def _validation_lengths(data: DataSettings) -> Sequence[int]:
    """The lengths of the windows of a validation; raises UserError if one is above `data.length`."""
    lengths = tuple(data.validation_lengths or ())
    if max(lengths, default=0) > data.length:
        raise UserError(
            f"data.validation_lengths: expected at most data.length={data.length} bases, got {max(lengths)}"
        )
    return lengths


def check_strands(task: Task, reverse_complement: str) -> None:
    """Raises UserError if a model is to learn from the other strand what is a label of the strand."""
    if task.one_strand and reverse_complement != "none":
        raise UserError(
            f"reverse_complement must be none for {type(task).__name__}, because the strand is the label, got"
            f" {reverse_complement}"
        )


def fit(
    name: str,
    module: SequenceModule,
    datamodule: GenomeDataModule,
    settings: TrainerSettings,
    folder: Path,
    loggers: list[Logger],
    identity: RunIdentity,
    resume: Path | None = None,
) -> FitResult:
    """Train, then put the weights of the lowest validation loss into the module's model, in single precision.

    Args:
        name: Name of the model in what is printed.
        module: The model and its optimiser; afterwards on the device that trained.
        datamodule: Training and validation batches.
        settings: Budget, device and precision.
        folder: Gets checkpoints/best.ckpt and checkpoints/last.ckpt.
        loggers: Lightning's loggers.
        identity: Settings and inputs of the run, which the checkpoints carry.
        resume: A last.ckpt to go on from, which was checked; in `folder`, metrics.csv is continued from its step.

    Raises:
        UserError: The device, the optimiser or the checkpoint cannot be used, the training diverged, or the processes
            for its devices were not started.
    """
    checkpoints = folder / "checkpoints"
    check_processes(settings.devices, settings.num_nodes)
    loggers = [] if place().rank else loggers
    if resume is not None:
        _take_up(resume, module, checkpoints, loggers)
    stop = StopCleanly(settings.max_seconds)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no news of devices, and no advertisements
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message)
        diverged = StopOnDivergence(name, folder, settings.log_every)
        callbacks = [stop, diverged, Checkpoints(checkpoints, identity.state(name)), *[Progress()][place().rank :]]
        trainer = build_trainer(settings, folder, loggers, callbacks)
        device, precision = trainer.strategy.root_device, precision_of(settings)
        print(_describe(name, module, device, DTYPES[precision.partition("-")[0]]) + _said(precision, settings))
        cost.reset_peak(device)
        start = time.perf_counter()
        with stop.listening():
            trainer.fit(module, datamodule, ckpt_path=resume)
        seconds, peak = time.perf_counter() - start, cost.peak_bytes(device)
    if stop.timed_out:
        print(f"{name}: trainer.max_seconds={settings.max_seconds} ended training after step {trainer.global_step}")
    bases = module.bases_since_start
    module.gather()
    if place().rank == 0:
        _take_best(module, None if stop.stopped_by else checkpoints / "best.ckpt", device, precision)
    tokens = datamodule.validation.batch(0, 1, datamodule.tokenizer).ids.shape[1]
    real, padding = module.tokens_seen.tolist()
    padded = padding / max(1, real + padding)
    return FitResult(seconds, bases, trainer.global_step, stop.stopped_by, tokens, padded, peak)


def _said(precision: str, settings: TrainerSettings) -> str:
    """The precision of a training, where it is not that of the weights."""
    return "" if precision == "32-true" else f", {precision}" + (", TF32" if settings.precision == "auto" else "")


def _take_best(module: SequenceModule, best: Path | None, device: torch.device, precision: str) -> None:
    """Load the weights of the lowest validation loss, if there was one, and make the model ready to be evaluated."""
    if best and best.exists():
        module.load_state_dict(CheckpointFiles().load_checkpoint(best)["state_dict"])
    module.model.autocast_dtype = AUTOCAST.get(precision)
    module.to(device, torch.float32)  # Lightning leaves it on the CPU; weights are saved and evaluated as float32


def _take_up(resume: Path, module: SequenceModule, checkpoints: Path, loggers: list[Logger]) -> None:
    """Have the checkpoints and, if the run goes on in its folder, the figures of the steps before a checkpoint."""
    step = first_makes(lambda: copy_checkpoints(resume, module, checkpoints))
    for logger in loggers:
        if isinstance(logger, MetricsFile) and resume.resolve() == (checkpoints / "last.ckpt").resolve():
            logger.keep_until(step)


def _describe(name: str, module: SequenceModule, device: torch.device, dtype: torch.dtype) -> str:
    """Layers and their backend, the stack if it has several kinds, and the number of parameters."""
    layers = [block.attention for block in cost.blocks(module.model)]
    kinds = dict.fromkeys(f"{type(layer).__name__} ({layer.describe_backend(device, dtype)})" for layer in layers)
    names = [type(layer).__name__.removesuffix("Attention").lower() for layer in layers]
    stack = f", blocks: {', '.join(names)}" if len(set(names)) > 1 else ""
    parameters = sum(weight.numel() for weight in module.model.parameters())
    return f"{name}: {', '.join(kinds)} on {device}, {parameters:,} parameters{stack}"


def precision_of(settings: TrainerSettings) -> str:
    """`trainer.precision`; auto is bf16-mixed where a GPU trains that is fast in it, else 32-true."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16-mixed" if uses_gpu(settings.accelerator) and fast_dtype(torch.device("cuda")) else "32-true"


def build_trainer(settings: TrainerSettings, folder: Path, loggers: list[Logger], callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer for the settings: device, precision, steps and when it validates."""
    precision = precision_of(settings)
    if settings.precision == "auto" and precision != "32-true":
        torch.set_float32_matmul_precision("high")  # TF32, in what autocast leaves in float32
    pure = {"bf16-true": _HalfPrecision, "64-true": _DoublePrecision}.get(precision)
    try:
        return Trainer(
            accelerator=settings.accelerator,
            strategy=strategy_of(settings),
            devices=settings.devices if place().world > 1 else 1,
            num_nodes=settings.num_nodes if place().world > 1 else 1,
            precision=None if pure else precision,  # type: ignore[arg-type]
            plugins=[CheckpointFiles(), environment_of(), *([pure()] if pure else [])],
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
        reason = " ".join(str(error).split())
        raise UserError(f"trainer.accelerator={settings.accelerator} cannot run here: {reason}") from None


@final
class _HalfPrecision(HalfPrecision):
    """Leaves batches alone: they are frozen, and the model converts their few floats itself."""

    def __init__(self) -> None:
        super().__init__("bf16-true")

    def convert_input(self, data: Batch) -> Batch:
        return data


@final
class _DoublePrecision(DoublePrecision):
    """Leaves batches alone, as `_HalfPrecision` does."""

    def convert_input(self, data: Batch) -> Batch:
        return data
