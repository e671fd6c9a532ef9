"""Say what a training run would cost before it runs: estimated, and on request measured by a few of its steps."""

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import psutil
import torch
from lightning import seed_everything
from omegaconf import DictConfig

from genoattn.attention.conformance.learning import letters_told
from genoattn.cli.environment import processor
from genoattn.cli.run_folder import begin_run
from genoattn.cli.values import choice, model_of, open_source, recipe_of, value_of
from genoattn.data.share import DataShare
from genoattn.data.source import open_data_source
from genoattn.errors import UserError
from genoattn.evaluation.report import Table
from genoattn.files import write_json
from genoattn.models import cost
from genoattn.models.build import train_tokenizer
from genoattn.models.predictor import Predictor
from genoattn.models.sequence_model import SequenceModel
from genoattn.models.sharding import DeviceMemory, device_memory, memory_rows
from genoattn.training.memory_estimate import (
    MAX_LENGTH,
    MAX_PROBE,
    MemoryEstimate,
    available_bytes,
    estimate_memory,
    parse_size,
    uses_gpu,
)
from genoattn.training.recipe import TrainingRecipe
from genoattn.training.step_timing import time_steps
from genoattn.training.trainer import build_trainer, build_training


def main(config: DictConfig) -> None:
    """Build what `train` would build under the same overrides, and leave config.yaml, plan.json and a table."""
    folder = begin_run(config)
    recipe, task = recipe_of(config), value_of(config.task)
    source = open_source(recipe.data, task, recipe.seed)
    seed_everything(recipe.seed, verbose=False)
    tokenizer = train_tokenizer(value_of(config.tokenizer), source, recipe.seed)
    predictor = model_of(config, "attention", task, tokenizer)
    gpu, devices, processes = uses_gpu(recipe.trainer.accelerator), recipe.trainer.devices, recipe.trainer.processes
    shards = recipe.trainer.sequence_parallel
    module, datamodule = build_training(predictor, source, recipe, DataShare(world=processes // shards))
    if config.available_memory:
        limit = parse_size(config.available_memory) / (1 if gpu else devices)
    else:
        limit = available_bytes(gpu, devices)
    tokens = datamodule.validation.batch(0, 1, tokenizer).ids.shape[1]
    estimate = estimate_memory(module, datamodule, gpu, recipe.trainer.shards)
    predicted = cost.predicted_cost(predictor.model, tokens)._asdict() | {
        "tokens": tokens,
        "training_peak_bytes": estimate.training.at(-(-estimate.length // shards)),
        "forward_peak_bytes": estimate.forward.at(-(-estimate.length // shards)),
        "available_bytes": limit,
        "longest_length": longer_estimate(recipe, predictor, gpu, estimate).training.longest(limit) * shards,
        "model_flops": cost.model_flops(predictor.model, tokens),
    }
    device = planned_device(gpu)
    told = capacity(predictor.model, config.capacity, recipe.seed)
    memory = on_devices(predictor.model, recipe, estimate, config.devices)
    measured = None
    if config.measure:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        trainer = build_trainer(recipe.trainer, folder, [], [])
        measured = time_steps(module, datamodule, trainer)._asdict()
    of_devices = [one._asdict() | {"total": one.total} for one in memory]
    content = {"device": device, "predicted": predicted, "measured": measured}
    content |= {"letters_told": told, "devices": of_devices}
    write_json(folder / "plan.json", content, indent=2)
    given = f"; of its memory available_memory={config.available_memory} counts" if config.available_memory else ""
    print(f"planned for {device}{given}")
    table(choice("attention"), predicted, measured or {}).print()
    if memory:
        columns = ["", "devices", "weights and their state", "gathered", "activations", "all"]
        Table("MiB of each device", columns, memory_rows(memory)).print()
    for keys, share in told.items():
        print(f"untrained, one layer tells {share:.2f} of the letters under {keys:,} random keys")
    print(describe(predicted["training_peak_bytes"], limit, predicted["longest_length"], recipe.data.batch, processes))


def planned_device(gpu: bool) -> str:
    """The device of this machine that a run trains on, and all the memory that it has."""
    if gpu:
        return f"the GPU {torch.cuda.get_device_name()} with {torch.cuda.mem_get_info()[1] / 2**30:.1f} GiB"
    return f"the CPU {processor()} with {psutil.virtual_memory().total / 2**30:.1f} GiB"


def on_devices(
    model: SequenceModel, recipe: TrainingRecipe, estimate: MemoryEstimate, devices: Sequence[int]
) -> list[DeviceMemory]:
    """The memory of each of several devices, for each of these numbers of devices."""
    curve = estimate.training
    share = recipe.trainer.processes  # the estimate is of the windows of one process
    activations = (curve.at(estimate.length) - curve.constant) * share
    return [one for number in devices for one in device_memory(model, activations, recipe.data.batch, number)]


def longer_estimate(
    recipe: TrainingRecipe, predictor: Predictor, gpu: bool, estimate: MemoryEstimate
) -> MemoryEstimate:
    """An estimate from windows of `MAX_PROBE` bases, if the run's are shorter and the genome has such; else `estimate`.

    Very short windows overestimate memory, because layers pad them to whole blocks.
    """
    if recipe.data.length < MAX_PROBE:
        longer = replace(recipe, data=replace(recipe.data, length=MAX_PROBE))
        with suppress(UserError):
            source = open_data_source(longer.data, predictor.task, longer.seed)
            share = DataShare(world=longer.trainer.processes // longer.trainer.sequence_parallel)
            return estimate_memory(*build_training(predictor, source, longer, share), gpu, longer.trainer.shards)
    return estimate


def capacity(model: SequenceModel, keys: Sequence[int], seed: int) -> dict[int, float]:
    """The share of letters that an untrained layer of a model tells an ideal reader, by number of keys.

    Of layers of several kinds the one counts that tells most.
    """
    told, dim = {}, model.embed.embedding_dim
    for number in keys:
        torch.manual_seed(seed)
        layers = [copy.deepcopy(block.attention) for block in cost.blocks(model)]
        told[number] = max(letters_told(layer.eval(), number, dim, apart=True) for layer in layers)
    return told


def describe(needed: int | float, limit: int | float, longest: int, batch: int, processes: int = 1) -> str:
    """Says if the run fits, and the longest windows that would."""
    result = "fits into" if needed <= limit else "does not fit into"
    length = f"{longest:,}" if longest < MAX_LENGTH else f"{MAX_LENGTH:,} or more"
    each = f"each of {processes} processes of the " if processes > 1 else ""
    return (
        f"{each}training takes about {needed / 2**30:.2f} GiB and {result} {limit / 2**30:.2f} GiB; the longest windows"
        f" that fit at data.batch={batch} are of {length} bases"
    )


def table(attention: str, predicted: dict[str, int | float], measured: dict[str, int | float]) -> Table:
    """A row for each cost: predicted and measured."""
    names = [*predicted, *(name for name in measured if name not in predicted)]
    rows = [[name, _cell(name, predicted.get(name)), _cell(name, measured.get(name))] for name in names]
    return Table(f"a training run of attention={attention}", ["", "predicted", "measured"], rows)


def _cell(name: str, value: int | float | None) -> str:
    if value is None:
        return ""
    if name.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    return f"{value:,.3g}" if name.startswith("seconds") else f"{value:,.0f}"
