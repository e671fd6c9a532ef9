"""Say what a training run would cost before it runs: predicted, and where asked for measured by a few of its steps."""

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import seed_everything
from omegaconf import DictConfig

from genoattn.cli.values import recipe_of
from genoattn.data.datamodule import GenomeDataModule
from genoattn.data.source import describe_source, open_data_source
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.evaluation.report import Table
from genoattn.files import write_json
from genoattn.models import cost
from genoattn.models.build import build_seeded, build_tokenizer
from genoattn.models.predictor import Predictor
from genoattn.training.finetuning import open_pretrained, settle
from genoattn.training.memory_estimate import (
    MAX_LENGTH,
    MAX_PROBE,
    MemoryEstimate,
    available,
    estimate_memory,
    on_gpu,
    parse,
)
from genoattn.training.module import SequenceModule
from genoattn.training.recipe import TrainingRecipe
from genoattn.training.step_timing import time_steps
from genoattn.training.trainer import build_trainer, build_training


def main(config: DictConfig) -> None:
    """Build what `train` would build under the same overrides, and leave plan.json and a table."""
    chosen, overrides = HydraConfig.get().runtime, list(HydraConfig.get().overrides.task)
    folder = Path(chosen.output_dir)
    earlier = open_pretrained(config.checkpoint) if config.checkpoint else None
    config = settle(config, earlier, overrides)
    attention = str(earlier.about["name"] if earlier else chosen.choices["attention"])
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    seed_everything(config.seed, verbose=False)

    task: Task = instantiate(config.task)
    recipe = recipe_of(config)
    source = open_data_source(recipe.data, task, config.seed)
    print(describe_source(source))
    parts = build_seeded(config, task, build_tokenizer(config.tokenizer, source, config.seed), "attention")
    learner, data = build_training(parts, source, recipe)
    tokens = data.validation.batch(0, 1, data.tokenizer).ids.shape[1]
    gpu = on_gpu(config.trainer.accelerator)
    most = parse(config.available_memory) if config.available_memory else available(gpu)
    predicted: dict[str, int | float] = {**cost.predicted_cost(parts.model, tokens), "tokens": tokens}
    predicted |= estimate_memory(learner, data, gpu).figures() | {"available_bytes": most}
    predicted["longest_length"] = probe_longer(recipe, parts, learner, data, gpu).training.longest(most)
    measured = None
    if config.measure:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        trainer = build_trainer(recipe.trainer, folder, [], [])
        measured = time_steps(learner, data, trainer)
    write_json(folder / "plan.json", {"predicted": predicted, "measured": measured}, indent=2)
    table(attention, predicted, measured or {}).print()
    print(said(predicted, config.data.batch))
    print(f"run folder: {folder}")


def probe_longer(
    recipe: TrainingRecipe, predictor: Predictor, learner: SequenceModule, data: GenomeDataModule, gpu: bool
) -> MemoryEstimate:
    """The estimate from longer windows than the run's where those are short and the genome has longer ones.

    Very short windows overestimate memory, because layers pad them to whole blocks.
    """
    if recipe.data.length < MAX_PROBE:
        longer = replace(recipe, data=replace(recipe.data, length=MAX_PROBE))
        with suppress(UserError):
            source = open_data_source(longer.data, predictor.task, longer.seed)
            return estimate_memory(*build_training(predictor, source, longer), gpu)
    return estimate_memory(learner, data, gpu)


def said(predicted: dict[str, int | float], batch: int) -> str:
    """Whether the run fits, and the longest windows that would."""
    needed, most = predicted["training_peak_bytes"], predicted["available_bytes"]
    verdict = "fits into" if needed <= most else "does not fit into"
    longest = predicted["longest_length"]
    length = f"{longest:,.0f}" if longest < MAX_LENGTH else f"{MAX_LENGTH:,.0f} or more"
    return (
        f"training takes about {needed / 2**30:.2f} GiB and {verdict} {most / 2**30:.2f} GiB; the longest windows that"
        f" fit at data.batch={batch} are of {length} bases"
    )


def table(attention: str, predicted: dict[str, int | float], measured: dict[str, int | float]) -> Table:
    """A row for each figure, as predicted and as measured."""
    rows = [[name, _told(name, predicted.get(name)), _told(name, measured.get(name))] for name in predicted | measured]
    return Table(f"a training of attention={attention}", ["", "predicted", "measured"], rows)


def _told(name: str, value: int | float | None) -> str:
    if value is None:
        return ""
    if name.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    return f"{value:,.3g}" if name.startswith("seconds") else f"{value:,.0f}"
