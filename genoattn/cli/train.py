"""Train a model and its control on a genome, and evaluate both beside an untrained model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig

from genoattn.cli.console import tee
from genoattn.cli.run_folder import begin_run, finish_run
from genoattn.cli.values import choice, loggers_of, model_of, plain, recipe_of, value_of
from genoattn.data.source import DataSource, describe_source, open_data_source
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.evaluation import build_evaluator
from genoattn.evaluation.base import Candidate
from genoattn.models.build import train_tokenizer
from genoattn.models.card import ModelCard
from genoattn.training.loggers import build_loggers
from genoattn.training.run import train_model


def main(config: DictConfig) -> float | None:
    """The whole run, from FASTA to report; returns the primary metric of the model."""
    folder = begin_run(config)
    with tee(folder / "train.log"):
        recipe, task, settings = recipe_of(config), value_of(config.task), plain(config)
        source = open_data_source(recipe.data, task, recipe.seed)
        print(describe_source(source))
        tokenizer = train_tokenizer(value_of(config.tokenizer), source, recipe.seed)
        test, both = value_of(config.test), recipe.scores_both_strands
        evaluator = build_evaluator(source, recipe.data, test, task, both)

        model = model_of(config, "attention", task, tokenizer)
        loggers = build_loggers(folder, loggers_of(config), settings)
        fitted = train_model(recipe, "model", model, source, folder, loggers)
        candidates = [Candidate("model", choice("attention"), model)]
        cards = {"model": card_of(settings, choice("attention"), tokenizer, source)}

        if config.control and config.control != config.attention:  # the same layer would only be trained twice
            control = model_of(config, "control", task, tokenizer)
            train_model(recipe, "control", control, source, folder, build_loggers(folder / "control", [], {}))
            name = f"{choice('attention@control')} (control)"
            candidates.append(Candidate("control", name, control))
            cards["control"] = replace(cards["model"], name=name, attention=settings["control"])
        candidates.append(Candidate("untrained", "untrained", model_of(config, "attention", task, tokenizer)))
        return finish_run(folder, evaluator, candidates, cards, fitted, loggers)


def card_of(settings: Mapping[str, Any], name: str, tokenizer: Tokenizer, source: DataSource) -> ModelCard:
    """The card of a model that is trained under these settings; `name` is that of its layer."""
    data = settings["data"]
    return ModelCard(
        name=name,
        tokenizer=tokenizer.describe(),
        task=settings["task"],
        model=settings["model"],
        attention=settings["attention"],
        reverse_complement=settings["reverse_complement"],
        length=data["length"],
        split=data["split"],
        min_length=data["min_length"],
        seed=settings["seed"],
        genome=tuple(record.sha256 for record in source.genome.records),
    )
