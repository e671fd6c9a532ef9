"""the model, its control: trained one after the other"""

from pathlib import Path

from lightning.pytorch.loggers import Logger

from genoattn.data.source import DataSource
from genoattn.models.predictor import Predictor
from genoattn.training.memory_estimate import check_memory
from genoattn.training.recipe import TrainingRecipe
from genoattn.training.trainer import FitResult, build_training, fit


def train_model(
    recipe: TrainingRecipe, key: str, predictor: Predictor, source: DataSource, run: Path, loggers: list[Logger]
) -> FitResult:
    """Train one model of the run."""
    settings = recipe.trainer
    learner, module = build_training(predictor, source, recipe)
    if settings.memory_check:
        check_memory(learner, module, settings.accelerator)
    resume = Path(settings.resume) if settings.resume else None
    if resume and key == "control":  # as far as the resumed run had come with it
        beside = resume.parent.parent / key / "checkpoints" / resume.name
        resume = beside if beside.is_file() else None
    fitted = fit(key, learner, module, settings, run if key == "attention" else run / key, loggers, resume)
    passed = module.training.sampler.skipped + module.validation.sampler.skipped
    if passed:
        print(f"{passed} windows that are mostly N were passed over")
    if fitted.interrupted:
        last = run / "checkpoints" / "last.ckpt"
        print(f"{key} was stopped by Ctrl-C after step {fitted.steps}; go on with trainer.resume={last}")
        raise SystemExit(130)
    return fitted
