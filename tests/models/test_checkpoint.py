"""A saved model comes back as it was, and what does not fit or is not there is told in a sentence."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from genoattn.errors import UserError
from genoattn.models.checkpoint import (
    DESCRIPTION,
    FORMAT,
    WEIGHTS,
    check_fit,
    find_model,
    load_weights,
    read_description,
    save_model,
)

ABOUT = {"name": "window", "thresholds": {"insertion": 0.25}, "model": {"dim": 3, "nothing": None}}


def model(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A run folder that holds a model, and that model."""
    original = model()
    save_model(tmp_path / "run" / "model", original, ABOUT)
    return tmp_path / "run", original


def test_round_trip(saved: tuple[Path, nn.Module]):
    run, original = saved
    other = model()
    assert any(not torch.equal(a, b) for a, b in zip(original.parameters(), other.parameters(), strict=True))
    load_weights(run / "model", other)
    state = original.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    assert read_description(run / "model") == {"format": FORMAT, **ABOUT}


def test_a_folder_without_a_pickle(saved: tuple[Path, nn.Module]):
    run, original = saved
    save_model(run / "model", original, ABOUT)  # over the old one
    files = sorted((run / "model").iterdir())
    assert [file.name for file in files] == [DESCRIPTION, WEIGHTS]
    text, weights = (file.read_bytes() for file in files)
    json.loads(text)
    header = int.from_bytes(weights[:8], "little")  # safetensors: a length, json, and nothing but numbers
    assert set(json.loads(weights[8 : 8 + header])) - {"__metadata__"} == set(original.state_dict())
    assert len(weights) == 8 + header + sum(t.numel() * t.element_size() for t in original.state_dict().values())


def test_a_model_that_cannot_be_written_leaves_the_old_one(saved: tuple[Path, nn.Module]):
    run, original = saved
    with pytest.raises(TypeError):
        save_model(run / "model", original, {"not plain": object()})
    assert read_description(run / "model") == {"format": FORMAT, **ABOUT}


def test_a_model_is_found_from_itself_its_run_or_a_checkpoint(saved: tuple[Path, nn.Module]):
    run, _ = saved
    checkpoint = run / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert find_model(run) == find_model(run / "model") == find_model(checkpoint) == run / "model"


def test_no_model_there(saved: tuple[Path, nn.Module], tmp_path: Path):
    run, _ = saved
    with pytest.raises(UserError, match=r"checkpoint=.*gone: there is no such file or folder"):
        find_model(tmp_path / "gone")
    with pytest.raises(UserError, match=r"none\.ckpt: there is no such file or folder"):
        find_model(run / "checkpoints" / "none.ckpt")
    with pytest.raises(UserError, match=r"is neither a run folder nor its model/ folder \(no model\.json in it\)"):
        find_model(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"model\.json is not json: "),
        ("[1]", rf"model\.json is not a model description of format {FORMAT}"),
        ('{"format": 0}', rf"is not a model description of format {FORMAT}, which this version reads"),
    ],
)
def test_descriptions_that_are_none(saved: tuple[Path, nn.Module], text: str, words: str):
    run, _ = saved
    (run / "model" / DESCRIPTION).write_text(text)
    with pytest.raises(UserError, match=words):
        read_description(run / "model")


def test_weights_that_cannot_be_read(saved: tuple[Path, nn.Module]):
    run, original = saved
    file = run / "model" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read as safetensors: "):
        load_weights(run / "model", original)
    file.unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read as safetensors: .*[Nn]o such file"):
        load_weights(run / "model", original)


def test_weights_that_do_not_fit(saved: tuple[Path, nn.Module]):
    run, _ = saved
    with pytest.raises(
        UserError, match=r"holds 0\.weight of shape \[3, 2\] where the model's is \[5, 2\] \(and 5 more"
    ):
        load_weights(run / "model", model(5))
    one, two = torch.zeros(1), torch.zeros(2)
    file = Path("here")
    check_fit(file, {"a": one}, {"a": two[:1]})
    for held, wanted, words in (
        ({"a": one}, {"a": one, "b": one}, "here does not fit this model: it lacks b; were attention"),
        ({"a": one, "b": one}, {"a": one}, "it holds b, which the model has not; were"),
        ({"a": one, "c": one}, {"a": two, "b": one}, r"it lacks b \(and 2 more differences\); were"),
    ):
        with pytest.raises(UserError, match=words):
            check_fit(file, held, wanted)
