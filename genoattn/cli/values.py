"""Typed values from a composed config: below a program's `main` no function takes a config node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from genoattn.data.settings import DataSettings, TrainingSplit
from genoattn.data.source import DataSource, describe_source, open_data_source
from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.models.build import LoadedModel, build_model, load_predictor
from genoattn.models.card import uses_both_strands
from genoattn.models.predictor import Predictor
from genoattn.models.shipped import DETECTOR
from genoattn.training.processes import each_makes, place
from genoattn.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger  # takes seconds to import, which only training needs


class SavedModelData(NamedTuple):
    """The data for a saved model: settings, genome, and true if its outputs for both strands are averaged."""

    settings: DataSettings
    source: DataSource
    both_strands: bool


def output_folder() -> Path:
    """The folder of the run, absolute."""
    return Path(HydraConfig.get().runtime.output_dir)


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


def open_source(data: DataSettings, task: Task, seed: int, trained: TrainingSplit | None = None) -> DataSource:
    """Open a genome for a task and print how it is split; `trained` is the split of a saved model."""
    source = each_makes(lambda: open_data_source(data, task, seed, trained))
    print(describe_source(source))
    return source


def saved_model(config: DictConfig, device: str | None = None, default: str = DETECTOR) -> LoadedModel:
    """The saved model that `checkpoint` names, opened with the packages of `trust`; `default` is that of this name."""
    return load_predictor(Path(config.checkpoint), device, tuple(config.trust), default)


def data_of(config: DictConfig, loaded: LoadedModel) -> SavedModelData:
    """The data that a composed config of `evaluate` or `context` names for its saved model."""
    card, data = loaded.card, value_of(config.data).at(loaded.card.length)
    source = open_source(data, loaded.predictor.task, config.seed, card.training_split)
    return SavedModelData(data, source, uses_both_strands(config.reverse_complement or card.reverse_complement))


def loggers_of(config: DictConfig) -> list[Logger]:
    """The loggers that were chosen, besides metrics.csv; of several processes the first one has them."""
    return [] if place().rank else [value_of(node) for node in config.logger.values()]
