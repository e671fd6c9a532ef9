"""The steps that `train` and `finetune` share: the run folder, the evaluation, and what a run leaves behind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from genoattn.cli.evaluate import on_devices
from genoattn.cli.values import output_folder, plain
from genoattn.config.folder import is_own_checkpoint
from genoattn.data.source import DataSource
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.evaluation.base import Candidate, Evaluator
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import write_report
from genoattn.files import remove_unfinished, write_text
from genoattn.models import cost
from genoattn.models.card import ModelCard
from genoattn.models.checkpoint import save_model
from genoattn.models.nodes import complete_node
from genoattn.models.predictor import Predictor
from genoattn.training.identity import RunIdentity, identify
from genoattn.training.processes import place

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from genoattn.training.trainer import FitResult


def begin_run(config: DictConfig) -> Path:
    """Set threads, leave config.yaml in the run folder, and return the folder.

    A run that goes on in its folder leaves config.yaml in `identify_run`, after its checkpoint was checked.
    """
    folder = output_folder()
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
        if place().world > 1:  # else Lightning divides the cores by the processes
            os.environ["OMP_NUM_THREADS"] = str(config.trainer.threads)
    if place().rank == 0:
        remove_unfinished(folder)
        if not is_own_checkpoint(config.trainer.resume, folder):
            _write_config(folder, config)
    return folder


def identify_run(config: DictConfig, folder: Path, source: DataSource, pretrained: str | None = None) -> RunIdentity:
    """The identity of a run, checked against the checkpoint that it goes on from.

    Args:
        config: The composed config.
        folder: The run folder.
        source: The genome of the run.
        pretrained: sha256 of the weights that it begins with.

    Raises:
        UserError: The checkpoint is damaged or of another run.
    """
    from genoattn.training.resume import check_resume  # late, as in `train`

    identity = identify(plain(config), source, pretrained)
    if config.trainer.resume:
        check_resume(Path(config.trainer.resume), identity)
        if place().rank == 0:
            _write_config(folder, config)
    return identity


def _write_config(folder: Path, config: DictConfig) -> None:
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))


def card_of(settings: Mapping[str, Any], name: str, tokenizer: Tokenizer, source: DataSource) -> ModelCard:
    """The card of a model that is trained under these settings; `name` is that of its layer."""
    data = settings["data"]
    return ModelCard(
        name=name,
        tokenizer=tokenizer.describe(),
        task=complete_node(settings["task"]),
        model=complete_node(settings["model"]),
        attention=complete_node(settings["attention"]),
        reverse_complement=settings["reverse_complement"],
        length=data["length"],
        split=data["split"],
        min_length=data["min_length"],
        seed=settings["seed"],
        genome=tuple(record.sha256 for record in source.genome.records),
        units=source.units,
    )


def finish_run(
    folder: Path,
    evaluator: Evaluator,
    candidates: Sequence[Candidate],
    cards: Mapping[str, ModelCard],
    fitted: FitResult,
    loggers: Sequence[Logger],
) -> float | None:
    """Save the models, evaluate all candidates on the devices of this node, and write the report.

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
    from genoattn.training.devices import devices_of_node  # late, as in `train`
    from genoattn.training.loggers import log_report, plot_training

    model, saved = candidates[0].predictor, {}
    for candidate in candidates:
        candidate.predictor.model.to(model.device).autocast_dtype = model.model.autocast_dtype
        if candidate.key in cards:  # before the evaluation, which may take long
            home = _home(folder, candidate.key)
            saved[candidate.key] = save_model(home, candidate.predictor.model, cards[candidate.key])
    devices = devices_of_node(model.device)
    torch.set_num_threads(torch.get_num_threads() * len(devices))  # with those of the processes that have ended
    with on_devices(candidates, devices) as spread:
        result = evaluator.evaluate(spread)
    untrained = result.calibration.get("untrained", {})
    for key, card in saved.items():
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
    replicates = result.replicates
    return None if replicates is None else float(result.metrics[replicates.primary_metric])


def _home(folder: Path, key: str) -> Path:
    return folder / "model" if key == "model" else folder / key / "model"


def run_costs(predictor: Predictor, fitted: FitResult) -> dict[str, int | float]:
    """The costs of a run by name."""
    return cost.predicted_cost(predictor.model, fitted.tokens)._asdict() | {
        "train_seconds": fitted.seconds,
        "bases_per_second": fitted.bases / max(fitted.seconds, 1e-9),
        "peak_bytes": fitted.peak_bytes,
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
