"""One model of a run, trained."""

import os
import signal
import subprocess
from pathlib import Path

from lightning.pytorch.loggers import Logger

from genoattn.data.source import DataSource
from genoattn.models.predictor import Predictor
from genoattn.training.identity import RunIdentity
from genoattn.training.memory_estimate import check_memory
from genoattn.training.processes import each_makes, place
from genoattn.training.recipe import TrainingRecipe
from genoattn.training.resume import checkpoint_of
from genoattn.training.trainer import FitResult, build_training, fit


def train_model(
    recipe: TrainingRecipe,
    name: str,
    predictor: Predictor,
    source: DataSource,
    run: Path,
    loggers: list[Logger],
    identity: RunIdentity,
) -> FitResult:
    """Train one model of a run.

    Args:
        recipe: Data, budget, optimiser and seeds, which all models of a run share.
        name: "model" for the model of the run; the name of another is that of its folder in the run.
        predictor: The model, changed in place, with its tokenizer and task.
        source: The genome and its splits.
        run: The run folder.
        loggers: Lightning's loggers.
        identity: Settings and inputs of the run; the checkpoints that it goes on from were checked against it.

    Raises:
        UserError: The run needs more memory than there is, a setting cannot be used, or the training diverged.
        SystemExit: A signal, such as that of Ctrl-C, ended the training, which is saved and can be resumed.
    """
    settings = recipe.trainer
    module, datamodule = build_training(predictor, source, recipe)
    if settings.memory_check:
        parts = settings.sequence_parallel, settings.shards
        each_makes(lambda: check_memory(module, datamodule, settings.accelerator, *parts))
    resume = checkpoint_of(Path(settings.resume), name) if settings.resume else None
    if resume and not resume.exists():  # the run was stopped before this model
        resume = None
    fitted = fit(name, module, datamodule, settings, run if name == "model" else run / name, loggers, identity, resume)
    skipped = datamodule.training.sampler.skipped + datamodule.validation.sampler.skipped
    if skipped:
        print(f"{skipped} windows were skipped because they are mostly N")
    if fitted.stopped_by:
        last = run / "checkpoints" / "last.ckpt"
        reason = "Ctrl-C" if fitted.stopped_by == signal.SIGINT else fitted.stopped_by.name
        print(f"{name} was stopped by {reason} after step {fitted.steps}; go on with trainer.resume={last}")
        if settings.requeue and fitted.stopped_by.name == "SIGUSR1" and place().rank == 0:
            requeue()
        raise SystemExit(128 + fitted.stopped_by)
    return fitted


def requeue() -> None:
    """Have Slurm queue this job, or this task of an array, again."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        failure = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        failure = str(error)
    refused = f"trainer.requeue: job {job} could not be queued again: {failure}"
    print(refused if failure else f"job {job} is queued again")
