"""A wrong value is a sentence with its key, the expected type, the value and the most similar right word."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from genoattn.config.schema import Settings
from genoattn.config.validate import find_errors
from genoattn.errors import nearest

LAYER = "tests.config.trees.Layer"


class Program(Settings, extra="allow"):
    """A program that takes any settings."""


def errors(**config: object) -> list[str]:
    return find_errors(config, Program)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"scale": 1}, None),
        ({"scale": None}, None),
        ({"scale": True}, "layer.scale: expected a number, got true"),
        ({"heads": 4.0}, "layer.heads: expected an integer, got 4.0"),
        ({"heads": 1.5}, "layer.heads: expected an integer, got 1.5"),
        ({"heads": None}, "layer.heads: expected an integer, got null"),
        ({"heads": "4"}, "layer.heads: expected an integer, got '4'"),
        ({"kind": "hrad"}, "layer.kind: expected 'soft' or 'hard', got 'hrad'; did you mean hard?"),
        ({"kind": True}, "layer.kind: expected 'soft' or 'hard', got true"),
        ({"reaches": [1, 2]}, None),
        ({"reaches": [1, "a"]}, "layer.reaches[1]: expected an integer, got 'a'"),
        ({"reaches": 3}, "layer.reaches: expected a list, got 3"),
        ({"betas": [0.9, 1]}, None),
        ({"betas": [0.9]}, f"Key 'layer.betas[1]' is missing: {LAYER} needs it"),
        ({"gate": 1}, "layer.gate: expected true or false, got 1"),
        ({"rate": 0}, "layer.rate: expected more than 0.0, got 0"),
        ({"rate": 2}, "layer.rate: expected at most 1.0, got 2"),
        ({"rate": math.nan}, "layer.rate: expected at most 1.0, got nan"),
        ({"size": "auto"}, None),
        ({"size": "atuo"}, "layer.size: expected an integer or 'auto', got 'atuo'; did you mean auto?"),
        ({"size": 0}, "layer.size: expected at least 1 or 'auto', got 0"),
        ({"length": [8, 16]}, None),
        ({"length": [8, "x"]}, "layer.length[1]: expected an integer, got 'x'"),
        ({"length": 0}, "layer.length: expected at least 1 or a list, got 0"),
        ({"inner": {"_target_": LAYER, "dim": 3}}, None),
        ({"inner": {"_target_": LAYER, "dim": "3"}}, "layer.inner.dim: expected an integer, got '3'"),
        ({"inner": {"dim": 3}}, "layer.inner: expected a mapping with a _target_, got {'dim': 3}"),
        ({"heads": {"_target_": LAYER, "dim": 3}}, "layer.heads: expected an integer, got {"),
        ({"heads": "x" * 100}, f"layer.heads: expected an integer, got '{'x' * 78}…"),
        ({"hedas": 4}, f"Key 'layer.hedas' is not a setting of {LAYER}; did you mean heads?"),
        ({"_partial_": "yep"}, "layer._partial_: expected true or false, got 'yep'"),
    ],
)
def test_a_node_is_checked_against_the_signature_of_its_target(
    settings: dict[str, object], sentence: str | None
) -> None:
    sentences = errors(layer={"_target_": LAYER, "dim": 8, **settings})
    assert len(sentences) == (sentence is not None), sentences
    assert sentence is None or sentences[0].startswith(sentence), sentences


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (3, "layer._target_: expected the dotted name of a class or function, got 3"),
        ("tests.config.trees.Layr", "tests.config.trees.Layr does not exist (module"),
        ("tests.config.trees.Layr", "; did you mean Layer?"),
        ("no_such.Layer", "layer._target_: no_such.Layer cannot be imported (No module named"),
        ("tests.config.trees.FILES", "layer._target_: expected the dotted name of a class or function, got 'tests."),
        ("collections.abc.Sized", "layer._target_: collections.abc.Sized lacks __len__, which its base class requires"),
    ],
)
def test_a_wrong_target_is_one_sentence(target: object, sentence: str) -> None:
    (error,) = errors(layer={"_target_": target})
    assert sentence in error


@pytest.mark.parametrize("group", ["attention", "control"])
def test_the_constructor_of_a_layer_must_take_what_the_model_gives(group: str) -> None:
    (error,) = errors(**{group: {"_target_": "tests.config.trees.Trainer", "_partial_": True}})
    assert error == (
        f"{group}._target_: the constructor of tests.config.trees.Trainer must take dim and causal, which the model"
        " gives a layer"
    )


def test_a_layer_is_a_class_because_a_saved_model_names_it() -> None:
    (error,) = errors(attention={"_target_": "tests.config.trees.make_layer", "_partial_": True})
    assert error.startswith("attention._target_: expected a class, because a saved model names its layers by their cl")


def test_a_missing_setting_is_an_error_unless_the_node_is_partial() -> None:
    assert errors(layer={"_target_": LAYER}) == [f"Key 'layer.dim' is missing: {LAYER} needs it"]
    assert not errors(layer={"_target_": LAYER, "_partial_": True})


def test_all_nodes_are_checked_at_once_in_lists_too() -> None:
    stack = [{"_target_": LAYER, "dim": 8}, {"_target_": LAYER, "dmi": 8, "heads": "x"}]
    assert [sentence.partition(" is ")[0].partition(": ")[0] for sentence in errors(stack=stack)] == [
        "Key 'stack[1].dim'",
        "stack[1].heads",
        "Key 'stack[1].dmi'",
    ]


def test_constructors_of_other_libraries() -> None:
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": "fast", "weight_decy": 0.1}
    first, second = errors(optimizer=optimizer)
    assert first.startswith("optimizer.lr: expected a number")
    assert second.endswith("did you mean weight_decay?")
    assert not errors(optimizer={"_target_": "builtins.dict", "lr": 1})


def test_nearest() -> None:
    assert nearest("model.dmi", ["model.dim", "model.depth", "dim"]) == "model.dim"
    assert nearest("lenght", ["data.length", "length.data", "model.dim"]) == "data.length"
    assert nearest("zebra", ["data.length", "model.dim"]) is None
    assert nearest("x", []) is None


@pytest.mark.parametrize("override", ["data.length=0", "test.windows=0", "trainer.devices=two", "seed=-1", "data.x=1"])
def test_a_wrong_value_is_found_before_torch_is_imported(override: str, tmp_path: Path) -> None:
    program = (
        f"import sys; from genoattn.cli.main import main; print(main(['train', '{override}']), 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout == "2 False\n", ended.stderr
    assert ended.stderr.count("\n") == 1
