"""Typed values from a composed config: below a program's `main` no function takes a config node."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from genoattn.training.recipe import TrainingRecipe


def value_of(node: DictConfig | None) -> Any:
    """The value that a config node describes by its `_target_`, with plain lists and dictionaries inside."""
    return None if node is None else instantiate(node, _convert_="all")


def recipe_of(config: DictConfig) -> TrainingRecipe:
    """The training recipe of a composed `train` config."""
    return TrainingRecipe(
        data=value_of(config.data),
        trainer=value_of(config.trainer),
        curriculum=value_of(config.curriculum),
        optimizer=value_of(config.optimizer),
        schedule=value_of(config.schedule),
        seed=config.seed,
        validation_seed=config.test.seed,
        reverse_complement=config.reverse_complement,
    )
