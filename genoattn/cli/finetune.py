"""Fine-tune a saved model on a genome, and evaluate it beside the pretrained and an untrained model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig

from genoattn.cli.run_folder import begin_run, card_of, finish_run, identify_run
from genoattn.cli.values import loggers_of, open_source, plain, recipe_of, saved_model, value_of
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.evaluation.base import Candidate
from genoattn.models.build import build_model, check_card
from genoattn.models.card import ModelCard
from genoattn.training.finetuning import check_peft, load_matching, merge_adapters, same_task, select_trainable
from genoattn.training.processes import only_first, place
from genoattn.training.settings import FinetuneSettings


def main(config: DictConfig) -> float | None:
    """The whole run, from a saved model to the report; returns the primary metric of the fine-tuned model."""
    finetune: FinetuneSettings = value_of(config.finetune)
    check_peft(finetune.mode)
    pretrained = saved_model(config, "cpu")
    folder = begin_run(config)
    recipe = recipe_of(config, pretrained.card.reverse_complement)
    task: Task = value_of(config.task) or pretrained.predictor.task
    source = open_source(recipe.data, task, recipe.seed)
    identity = identify_run(config, folder, source, pretrained.card.weights)
    # Late: lightning takes seconds to import, and a mistake in the data need not wait for it.
    from lightning import seed_everything

    from genoattn.evaluation import build_evaluator
    from genoattn.training.loggers import build_loggers
    from genoattn.training.run import train_model

    seed_everything(recipe.seed, verbose=False)
    if recipe.data.length != pretrained.card.length:
        print(f"data.length is {recipe.data.length}; the model was trained on windows of {pretrained.card.length}")
    test, both = value_of(config.test), recipe.scores_both_strands
    evaluator = only_first(lambda: build_evaluator(source, recipe.data, test, task, both))

    settings, tokenizer = plain(config), pretrained.predictor.tokenizer
    card = card_of(inherit(settings, pretrained.card), pretrained.card.name, tokenizer, source)
    nodes = check_card(card, tuple(config.trust), ("model", "attention"))
    factories = nodes["model"].build(), nodes["attention"].build()
    model = build_model(*factories, task, tokenizer, recipe.seed)
    initialised = load_matching(pretrained, model.model)
    select_trainable(model.model, finetune.mode, value_of(config.lora), initialised, recipe.seed)
    loggers = build_loggers(folder, loggers_of(config), settings)
    fitted = train_model(recipe, "model", model, source, folder, loggers, identity)
    if place().rank:  # the first process goes on alone
        return None
    if finetune.mode == "lora":
        merge_adapters(model.model)

    candidates, cards = [Candidate("model", card.name, model)], {"model": card}
    if same_task(pretrained.predictor.task, task):
        calibration = pretrained.card.calibration
        candidates.append(Candidate("pretrained", "pretrained", pretrained.predictor, calibration))
        cards["pretrained"] = replace(pretrained.card, name="pretrained")
    elif isinstance(task, VariantClassification) and pretrained.predictor.task.context_format.token_objective:
        candidates.append(Candidate("zero_shot", "zero-shot", pretrained.predictor))
    untrained = build_model(*factories, task, tokenizer, recipe.seed)
    candidates.append(Candidate("untrained", "untrained", untrained))
    return finish_run(folder, evaluator, candidates, cards, fitted, loggers)


def inherit(settings: Mapping[str, Any], pretrained: ModelCard) -> dict[str, Any]:
    """The settings of a fine-tuning run with those that the pretrained model decides."""
    recompute = settings["finetune"]["activation_checkpointing"]
    return {
        **settings,
        "task": settings["task"] or pretrained.task,
        "model": {**pretrained.model, **({"activation_checkpointing": recompute} if recompute else {})},
        "attention": pretrained.attention,
        "reverse_complement": settings["reverse_complement"] or pretrained.reverse_complement,
    }
