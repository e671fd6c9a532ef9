"""Train a model and its control on a genome, and evaluate both beside an untrained model."""

from dataclasses import replace

from omegaconf import DictConfig

from genoattn.cli.run_folder import begin_run, card_of, finish_run, identify_run
from genoattn.cli.values import choice, loggers_of, model_of, open_source, plain, recipe_of, value_of
from genoattn.evaluation.base import Candidate
from genoattn.models.build import train_tokenizer
from genoattn.models.nodes import complete_node
from genoattn.training.processes import first_makes, only_first, place


def main(config: DictConfig) -> float | None:
    """The whole run, from FASTA to report; returns the primary metric of the model."""
    folder = begin_run(config)
    recipe, task, settings = recipe_of(config), value_of(config.task), plain(config)
    source = open_source(recipe.data, task, recipe.seed)
    identity = identify_run(config, folder, source)
    tokenizer = first_makes(lambda: train_tokenizer(value_of(config.tokenizer), source, recipe.seed))
    # Late: lightning takes seconds to import, and a mistake in the data need not wait for it.
    from lightning import seed_everything

    from genoattn.evaluation import build_evaluator
    from genoattn.training.loggers import build_loggers
    from genoattn.training.run import train_model

    seed_everything(recipe.seed, verbose=False)
    test, both = value_of(config.test), recipe.scores_both_strands
    evaluator = only_first(lambda: build_evaluator(source, recipe.data, test, task, both))

    model = model_of(config, "attention", task, tokenizer)
    loggers = build_loggers(folder, loggers_of(config), settings)
    fitted = train_model(recipe, "model", model, source, folder, loggers, identity)
    candidates = [Candidate("model", choice("attention"), model)]
    cards = {"model": card_of(settings, choice("attention"), tokenizer, source)}

    if config.control and config.control != config.attention:  # the same layer would only be trained twice
        control = model_of(config, "control", task, tokenizer)
        own = build_loggers(folder / "control", [], {})
        train_model(recipe, "control", control, source, folder, own, identity)
        name = f"{choice('attention@control')} (control)"
        candidates.append(Candidate("control", name, control))
        cards["control"] = replace(cards["model"], name=name, attention=complete_node(settings["control"]))
    candidates.append(Candidate("untrained", "untrained", model_of(config, "attention", task, tokenizer)))
    if place().rank:  # the first process goes on alone
        return None
    return finish_run(folder, evaluator, candidates, cards, fitted, loggers)
