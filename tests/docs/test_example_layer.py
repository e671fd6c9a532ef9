"""The layer of the tutorial keeps the contract, and its yaml builds it."""

import importlib
import sys

import pytest
import torch
import yaml

from genoattn.attention.conformance import check
from tests.docs.workplace import CHECKOUT

PROJECT = CHECKOUT / "docs/examples/my_layers"


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> type:
    for name in ("my_layers", "my_layers.moving_average"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # of a tutorial, whose folder is gone
    monkeypatch.syspath_prepend(PROJECT)
    return importlib.import_module("my_layers.moving_average").MovingAverageAttention


def test_every_check_holds(layer: type) -> None:
    broken = [f"{result.name}: {result.detail}" for result in check(layer, dim=32) if not result.holds]
    assert not broken


def test_the_yaml_has_the_settings_of_the_constructor(layer: type) -> None:
    node = yaml.safe_load((PROJECT / "my_layers/conf/attention/moving_average.yaml").read_text("utf-8"))
    assert node.pop("_target_") == "my_layers.moving_average.MovingAverageAttention"
    assert node.pop("_partial_") is True
    built = layer(dim=8, causal=True, **node)
    assert built(torch.zeros(1, 3, 8)).shape == (1, 3, 8)
