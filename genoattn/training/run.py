"""the model, its control: trained one after the other"""

from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from genoattn.data.source import Source
from genoattn.models.predictor import Parts
from genoattn.training.memory_estimate import refuse
from genoattn.training.trainer import Fitted, fit, prepare


def learn(config: DictConfig, key: str, parts: Parts, source: Source, run: Path, loggers: list[Logger]) -> Fitted:
    """Train one model of the run."""
    settings = config.trainer
    learner, module = prepare(config, parts, source)
    if settings.memory == "check":
        refuse(learner, module, settings.accelerator)
    resume = Path(settings.resume) if settings.resume else None
    if resume and key == "control":  # as far as the resumed run had come with it
        beside = resume.parent.parent / key / "checkpoints" / resume.name
        resume = beside if beside.is_file() else None
    fitted = fit(key, learner, module, settings, run if key == "attention" else run / key, loggers, resume)
    passed = module.training.maker.passed_over + module.validation.maker.passed_over
    if passed:
        print(f"{passed} windows that are mostly N were passed over")
    if fitted.interrupted:
        last = run / "checkpoints" / "last.ckpt"
        print(f"{key} was stopped by Ctrl-C after step {fitted.steps}; go on with trainer.resume={last}")
        raise SystemExit(130)
    return fitted
