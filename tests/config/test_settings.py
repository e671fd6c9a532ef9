"""The defaults of the settings dataclasses are those of the yaml files that explain them."""

import dataclasses

import pytest
from omegaconf import OmegaConf

from genoattn.attention.modules.projections import HeadOptions
from genoattn.data.settings import DataSettings
from genoattn.evaluation.settings import TestSettings
from genoattn.paths import conf_dir
from genoattn.training.settings import FinetuneSettings, LoraSettings, TrainerSettings


@pytest.mark.parametrize(
    ("file", "key", "settings"),
    [
        ("data/genome", None, DataSettings),
        ("trainer/default", None, TrainerSettings),
        ("test/standard", None, TestSettings),
        ("finetune", "lora", LoraSettings),
        ("finetune", "finetune", FinetuneSettings),
        ("heads/default", None, HeadOptions),
    ],
)
def test_yaml_and_dataclass_have_the_same_fields_and_defaults(file: str, key: str | None, settings: type) -> None:
    node = OmegaConf.load(conf_dir() / f"{file}.yaml")
    values = OmegaConf.to_container(node[key] if key else node)
    assert isinstance(values, dict)
    assert values.pop("_target_") == f"{settings.__module__}.{settings.__qualname__}"
    assert values == dataclasses.asdict(settings())
