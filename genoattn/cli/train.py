"""Train a model and its control on a genome, put both to an exam, and leave a run folder that says it all."""

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
    print(describe_source(source))
    tokenizer = build_tokenizer(config.tokenizer, source, config.seed)
    exam = build_evaluator(source, recipe.data, test, task, recipe.scores_both_strands, known=True)

    learned = build_seeded(config, task, tokenizer, "attention")
    if earlier:
        anew = load_matching(earlier, learned.model)
        select_trainable(learned.model, config.tune, value_of(config.lora), anew, config.seed)
    loggers = build_loggers(folder, instantiate(config.logger) if config.logger else None, plain)
    trained = train_model(recipe, "attention", learned, source, folder, loggers)
    if config.tune == "lora":
        merge_adapters(learned.model)
    sitting = [Candidate("attention", attention, learned)]
    if config.control and config.control != config.attention:  # the same layer would only be trained twice
        control = build_seeded(config, task, tokenizer, "control")
        name = f"{chosen.choices.get('attention@control', 'control')} (control)"
        sitting.append(Candidate("control", name, control))
        train_model(recipe, "control", control, source, folder, build_loggers(folder / "control", None, {}))
    if earlier and same_task(earlier.parts.task, task):
        earlier.parts.model.to(next(learned.model.parameters()).device)
        sitting.append(Candidate("before", "before", earlier.parts, earlier.about["kept"]))
    untrained = build_seeded(config, task, tokenizer, "attention")
    untrained.model.to(next(learned.model.parameters()).device)
    sitting.append(Candidate("untrained", "untrained", untrained))
    outcome = exam.evaluate(sitting)

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
        "untrained": outcome.calibration["untrained"],
    }
    for one in sitting[:-1]:
        home = folder if one.key == "attention" else folder / one.key
        if one.key == "before" and earlier:
            save_model(home / "model", one.predictor.model, {**earlier.about, "name": one.name})
            continue
        own = {"name": one.name, "attention": plain[one.key], "kept": outcome.calibration[one.key]}
        save_model(home / "model", one.predictor.model, about | own)
    figures = outcome.metrics | costs(learned, config, trained)
    if (folder / "metrics.csv").exists():  # a resumed run may have no step left to make
        plot_training(folder / "metrics.csv", folder / "plots" / "training.png")
    if outcome.replicates:
        outcome.replicates.write(folder)
    write_report(folder, outcome.tables, figures, outcome.plots)
    log_report(loggers, figures, [sheet.plain for sheet in outcome.tables], folder / "plots")
    print_costs(figures)
    print(f"run folder: {folder}")


def costs(parts: Predictor, config: DictConfig, trained: FitResult) -> dict[str, int | float]:
    """What the run cost, as flat keys."""
    measured = {
        "train_seconds": trained.seconds,
        "bases_per_second": trained.bases / max(trained.seconds, 1e-9),
        "peak_bytes": cost.peak_bytes(next(parts.model.parameters()).device),
        "padding": trained.padding,
        "tokens": trained.tokens,
    }
    return {
        f"cost/{name}": value for name, value in (cost.predicted_cost(parts.model, trained.tokens) | measured).items()
    }


def print_costs(figures: dict[str, int | float]) -> None:
    """One line on what the run cost."""
    print(
        f"{figures['cost/parameters']:,.0f} parameters, {figures['cost/train_seconds']:.0f} s of training at"
        f" {figures['cost/bases_per_second']:,.0f} bases/s, {figures['cost/peak_bytes'] / 2**30:.2f} GiB at the peak,"
        f" attention {figures['cost/attention_flops'] / 1e6:,.1f} MFLOP a window, {figures['cost/padding']:.1%} padding"
    )
