"""The steps that `train` and `finetune` share: the run folder, the evaluation, and what a run leaves behind."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from genoattn.errors import UserError
from genoattn.evaluation.base import Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import write_report
from genoattn.models import cost
from genoattn.models.card import ModelCard
from genoattn.models.checkpoint import save_model
from genoattn.models.predictor import Predictor
from genoattn.training.loggers import log_report, plot_training
from genoattn.training.trainer import FitResult


def begin_run(config: DictConfig) -> Path:
    """Set threads and seeds, leave config.yaml in the run folder, and return the folder."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    if config.trainer.resume and folder.resolve() in Path(config.trainer.resume).resolve().parents:
        raise UserError("trainer.resume lies in this run's folder, which would be written over; choose another folder")
    seed_everything(config.seed, verbose=False)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    return folder


def finish_run(
    folder: Path,
    evaluator: Evaluator,
    candidates: Sequence[Candidate],
    cards: Mapping[str, ModelCard],
    fitted: FitResult,
    loggers: Sequence[Logger],
) -> float | None:
    """Save the models, evaluate all candidates, and write the report.

    Args:
        folder: The run folder.
        evaluator: The test set and its metrics.
        candidates: The model of the run first.
        cards: By key, the cards of the candidates that are saved.
        fitted: The end of the training of the first candidate.
        loggers: Receivers of the report.

    Returns:
        The primary metric of the model of the run; None if its task has none.
    """
    model = candidates[0].predictor
    for candidate in candidates:
        candidate.predictor.model.to(model.device)
        if candidate.key in cards:  # before the evaluation, which may take long
            save_model(_home(folder, candidate.key), candidate.predictor.model, cards[candidate.key])
    result = evaluator.evaluate(candidates)
    untrained = result.calibration.get("untrained", {})
    for key, card in cards.items():
        if key != "pretrained":  # which keeps the calibration of its own run
            calibrated = replace(card, calibration=result.calibration.get(key, {}), untrained_calibration=untrained)
            calibrated.write(_home(folder, key))
    metrics = result.metrics + Metrics(costs=run_costs(model, fitted))
    if (folder / "metrics.csv").exists():  # a resumed run may have no step left to make
        plot_training(folder / "metrics.csv", folder / "plots" / "training.png")
    if result.replicates:
        result.replicates.write(folder)
    write_report(folder, result.tables, metrics, result.plots)
    log_report(loggers, metrics.flat(), [table.plain for table in result.tables], folder / "plots")
    print_costs(metrics.costs)
    print(f"run folder: {folder}")
    return primary_value(result)


def _home(folder: Path, key: str) -> Path:
    return folder / "model" if key == "model" else folder / key / "model"


def primary_value(result: EvaluationResult) -> float | None:
    """The value of the primary metric, for sweepers; None if the task has none."""
    return None if result.replicates is None else float(result.metrics[result.replicates.primary_metric])


def run_costs(predictor: Predictor, fitted: FitResult) -> dict[str, int | float]:
    """The costs of a run by name."""
    return cost.predicted_cost(predictor.model, fitted.tokens)._asdict() | {
        "train_seconds": fitted.seconds,
        "bases_per_second": fitted.bases / max(fitted.seconds, 1e-9),
        "peak_bytes": cost.peak_bytes(predictor.device),
        "padding": fitted.padding,
        "tokens": fitted.tokens,
    }


def print_costs(costs: Mapping[str, int | float]) -> None:
    """One line on the costs of a run."""
    print(
        f"{costs['parameters']:,.0f} parameters, {costs['train_seconds']:.0f} s of training at"
        f" {costs['bases_per_second']:,.0f} bases/s, {costs['peak_bytes'] / 2**30:.2f} GiB at the peak,"
        f" attention {costs['attention_flops'] / 1e6:,.1f} MFLOP a window, {costs['padding']:.1%} padding"
    )
