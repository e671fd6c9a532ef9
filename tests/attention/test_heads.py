"""The config group `heads`: one choice for all layers of a run, and the layers that an experiment compares."""

from functools import cache

import pytest
from omegaconf import OmegaConf

from genoattn.config.compose import compose
from genoattn.paths import conf_dir

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
LAYERS_WITH_HEADS = sorted(
    path.stem for path in (conf_dir() / "attention").glob("*.yaml") if "heads: ${heads}" in path.read_text("utf-8")
)


@cache
def settings(*overrides: str) -> dict:
    return OmegaConf.to_container(compose("train", list(overrides)), resolve=True)  # type: ignore[return-value]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_flash_is_full_attention_in_every_experiment(experiment: str) -> None:
    full, flash = (settings(f"experiment={experiment}", f"attention={name}")["attention"] for name in ("full", "flash"))
    assert full | {"backend": "auto"} == flash


@pytest.mark.parametrize("layer", LAYERS_WITH_HEADS)
def test_a_layer_takes_the_heads_of_the_run(layer: str) -> None:
    composed = settings(f"attention={layer}", "heads=recall", "heads.count=2")
    assert composed["attention"]["heads"] == composed["heads"]
    assert (composed["heads"]["count"], composed["heads"]["logit_scale"]) == (2, 12.0)


def test_layers_inside_others_take_the_heads_of_the_run_or_heads_of_their_own() -> None:
    gated = settings("attention=gated", "heads.count=8")["attention"]
    assert gated["wrapped"]["heads"]["count"] == 8
    hybrid = settings("attention=hybrid", "heads.count=8", "+heads@attention.kinds.full.heads=recall")["attention"]
    assert [hybrid["kinds"][name]["heads"]["count"] for name in ("window", "full")] == [8, 1]


def test_settings_of_an_experiment_that_one_layer_alone_has() -> None:
    assert settings("experiment=recall")["attention"]["blocks_per_query"] == 128
    assert settings("experiment=recall", "attention=window")["attention"]["global_tokens"] == 128
    assert settings("attention=window")["attention"]["global_tokens"] == 0
