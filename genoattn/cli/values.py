"""Typed values from a composed config: below a program's `main` no function takes a config node."""

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.models.build import build_model
from genoattn.models.predictor import Predictor
from genoattn.training.recipe import TrainingRecipe


def value_of(node: Mapping[str, Any] | None) -> Any:
    """The value that a config node describes by its `_target_`, with plain lists and dictionaries inside."""
    return None if node is None else instantiate(node, _convert_="all")


def plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain dictionaries and lists, its interpolations resolved."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


def choice(group: str) -> str:
    """The name that was chosen for a config group, such as "linear" for `attention`."""
    return str(HydraConfig.get().runtime.choices[group])


def recipe_of(config: DictConfig, reverse_complement: Any = None) -> TrainingRecipe:
    """The training recipe of a composed config of `train` or `finetune`."""
    return TrainingRecipe(
        data=value_of(config.data),
        trainer=value_of(config.trainer),
        curriculum=value_of(config.curriculum),
        optimizer=value_of(config.optimizer),
        schedule=value_of(config.schedule),
        seed=config.seed,
        validation_seed=config.test.seed,
        reverse_complement=config.reverse_complement or reverse_complement,
    )


def model_of(config: DictConfig, key: str, task: Task, tokenizer: Tokenizer) -> Predictor:
    """The untrained model of a composed config of `train`; `key` is that of its layer: attention or control."""
    return build_model(value_of(config.model), value_of(config[key]), task, tokenizer, config.seed)


def loggers_of(config: DictConfig) -> list[Logger]:
    """The loggers that were chosen, besides metrics.csv."""
    return [value_of(node) for node in config.logger.values()]
