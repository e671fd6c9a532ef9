"""Train a model and its control on a genome, put both to an exam, and leave a run folder that says it all."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf

from genoattn.cli.values import recipe_of, value_of
from genoattn.data.source import describe_source, open_data_source
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.evaluation import build_evaluator
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import write_report
from genoattn.models import cost
from genoattn.models.build import build_seeded, build_tokenizer
from genoattn.models.checkpoint import save_model
from genoattn.models.predictor import Predictor
from genoattn.training.finetuning import (
    check_peft,
    load_matching,
    merge_adapters,
    open_pretrained,
    same_task,
    select_trainable,
    settle,
)
from genoattn.training.loggers import build_loggers, log_report, plot_training
from genoattn.training.run import train_model
from genoattn.training.trainer import FitResult


def main(config: DictConfig) -> None:
    """The whole run, from FASTA to report."""
    chosen, overrides = HydraConfig.get().runtime, list(HydraConfig.get().overrides.task)
    folder = Path(chosen.output_dir)
    earlier = open_pretrained(config.checkpoint) if config.checkpoint else None
    config = settle(config, earlier, overrides)
    check_peft(config.tune)
    attention = str(earlier.about["name"] if earlier else chosen.choices["attention"])
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    if config.trainer.resume and folder.resolve() in Path(config.trainer.resume).resolve().parents:
        raise UserError("trainer.resume lies in this run's folder, which would be written over; choose another folder")
    seed_everything(config.seed, verbose=False)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)

    task: Task = instantiate(config.task)
    recipe, test = recipe_of(config), value_of(config.test)
    source = open_data_source(recipe.data, task, config.seed)
    describe_source(source)
    tokenizer = build_tokenizer(config.tokenizer, source, config.seed)
    evaluator = build_evaluator(source, recipe.data, test, task, recipe.scores_both_strands)

    learned = build_seeded(config, task, tokenizer, "attention")
    if earlier:
        anew = load_matching(earlier, learned.model)
        select_trainable(learned.model, config.tune, value_of(config.lora), anew, config.seed)
    loggers = build_loggers(folder, instantiate(config.logger) if config.logger else None, plain)
    trained = train_model(recipe, "attention", learned, source, folder, loggers)
    if config.tune == "lora":
        merge_adapters(learned.model)
    candidates = [Candidate("model", attention, learned)]
    if config.control and config.control != config.attention:  # the same layer would only be trained twice
        control = build_seeded(config, task, tokenizer, "control")
        name = f"{chosen.choices.get('attention@control', 'control')} (control)"
        candidates.append(Candidate("control", name, control))
        train_model(recipe, "control", control, source, folder, build_loggers(folder / "control", None, {}))
    if earlier and same_task(earlier.parts.task, task):
        earlier.parts.model.to(next(learned.model.parameters()).device)
        candidates.append(Candidate("pretrained", "pretrained", earlier.parts, earlier.about["kept"]))
    untrained = build_seeded(config, task, tokenizer, "attention")
    untrained.model.to(next(learned.model.parameters()).device)
    candidates.append(Candidate("untrained", "untrained", untrained))
    result = evaluator.evaluate(candidates)

    about = {
        "tokenizer": tokenizer.describe(),
        "task": plain["task"],
        "model": plain["model"],
        "reverse_complement": config.reverse_complement,
    }
    about |= {
        "length": config.data.length,
        "split": config.data.split,
        "min_length": config.data.min_length,
        "seed": config.seed,
    }
    about |= {
        "genome": [record.sha256 for record in source.genome.records],
        "untrained": result.calibration["untrained"],
    }
    for one in candidates[:-1]:
        home = folder if one.key == "model" else folder / one.key
        if one.key == "pretrained" and earlier:
            save_model(home / "model", one.predictor.model, {**earlier.about, "name": one.name})
            continue
        layer = plain["attention" if one.key == "model" else one.key]
        own = {"name": one.name, "attention": layer, "kept": result.calibration[one.key]}
        save_model(home / "model", one.predictor.model, about | own)
    metrics = result.metrics + Metrics(costs=costs(learned, config, trained))
    if (folder / "metrics.csv").exists():  # a resumed run may have no step left to make
        plot_training(folder / "metrics.csv", folder / "plots" / "training.png")
    if result.replicates:
        result.replicates.write(folder)
    write_report(folder, result.tables, metrics, result.plots)
    plain_metrics = {name: math.nan if value is None else value for name, value in metrics.to_json().items()}
    log_report(loggers, plain_metrics, [table.plain for table in result.tables], folder / "plots")
    print_costs(metrics.costs)
    print(f"run folder: {folder}")


def costs(parts: Predictor, config: DictConfig, trained: FitResult) -> dict[str, int | float]:
    """The costs of the run by name."""
    measured = {
        "train_seconds": trained.seconds,
        "bases_per_second": trained.bases / max(trained.seconds, 1e-9),
        "peak_bytes": cost.peak_bytes(next(parts.model.parameters()).device),
        "padding": trained.padding,
        "tokens": trained.tokens,
    }
    return cost.predicted_cost(parts.model, trained.tokens) | measured


def print_costs(costs: Mapping[str, int | float]) -> None:
    """One line on what the run cost."""
    print(
        f"{costs['parameters']:,.0f} parameters, {costs['train_seconds']:.0f} s of training at"
        f" {costs['bases_per_second']:,.0f} bases/s, {costs['peak_bytes'] / 2**30:.2f} GiB at the peak,"
        f" attention {costs['attention_flops'] / 1e6:,.1f} MFLOP a window, {costs['padding']:.1%} padding"
    )
