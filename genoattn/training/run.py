"""One model of a run, trained."""

from pathlib import Path

from lightning.pytorch.loggers import Logger

from genoattn.data.source import DataSource
from genoattn.models.predictor import Predictor
from genoattn.training.memory_estimate import check_memory
from genoattn.training.recipe import TrainingRecipe
from genoattn.training.trainer import FitResult, build_training, fit


def train_model(
    recipe: TrainingRecipe, name: str, predictor: Predictor, source: DataSource, run: Path, loggers: list[Logger]
) -> FitResult:
    """Train one model of a run.

    Args:
        recipe: Data, budget, optimiser and seeds, which all models of a run share.
        name: "model" for the model of the run; the name of another is that of its folder in the run.
        predictor: The model, changed in place, with its tokenizer and task.
        source: The genome and its splits.
        run: The run folder.
        loggers: Lightning's loggers.

    Raises:
        UserError: The run needs more memory than there is, or a setting cannot be used.
        SystemExit: Ctrl-C ended the training, which is saved and can be resumed.
    """
    settings = recipe.trainer
    module, datamodule = build_training(predictor, source, recipe)
    if settings.memory_check:
        check_memory(module, datamodule, settings.accelerator)
    resume = Path(settings.resume) if settings.resume else None
    if resume and name != "model":  # as far as the resumed run had come with it
        beside = resume.parent.parent / name / "checkpoints" / resume.name
        resume = beside if beside.is_file() else None
    fitted = fit(name, module, datamodule, settings, run if name == "model" else run / name, loggers, resume)
    skipped = datamodule.training.sampler.skipped + datamodule.validation.sampler.skipped
    if skipped:
        print(f"{skipped} windows were skipped because they are mostly N")
    if fitted.interrupted:
        last = run / "checkpoints" / "last.ckpt"
        print(f"{name} was stopped by Ctrl-C after step {fitted.steps}; go on with trainer.resume={last}")
        raise SystemExit(130)
    return fitted
