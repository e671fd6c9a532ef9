"""A saved model comes back as it was; files that are missing or do not fit are refused in a sentence."""

import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from genoattn.errors import UserError
from genoattn.models.build import load_predictor
from genoattn.models.card import DESCRIPTION, FORMAT, ModelCard
from genoattn.models.checkpoint import WEIGHTS, check_archive, check_fit, find_model, load_weights, save_model
from genoattn.models.shipped import shipped_models
from genoattn.paths import models_dir

CARD = ModelCard(
    name="window",
    tokenizer={"_target_": "tokenizer"},
    task={"_target_": "task"},
    model={"dim": 3, "nothing": None},
    attention={"_target_": "layer"},
    reverse_complement="none",
    length=64,
    split="block",
    min_length=None,
    seed=7,
    genome=("aa", "bb"),
    calibration={"thresholds": {"insertion": 0.25}},
)


def model(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A run folder that holds a model, and that model."""
    original = model()
    save_model(tmp_path / "run" / "model", original, CARD)
    return tmp_path / "run", original


def load(run: Path, into: nn.Module) -> None:
    load_weights(run / "model", into, ModelCard.read(run / "model").weights)


def test_round_trip(saved: tuple[Path, nn.Module]):
    run, original = saved
    other = model()
    assert any(not torch.equal(a, b) for a, b in zip(original.parameters(), other.parameters(), strict=True))
    load(run, other)
    state = original.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    sha256 = hashlib.sha256((run / "model" / WEIGHTS).read_bytes()).hexdigest()
    assert ModelCard.read(run / "model") == replace(CARD, weights=sha256)


def test_a_card_keeps_which_records_stay_together(tmp_path: Path):
    card = replace(CARD, split="group", units=(0, 1), weights="ab")
    card.write(tmp_path)
    assert ModelCard.read(tmp_path) == card and card.training_split.units == (0, 1)
    assert "units" not in CARD.to_json()


def test_a_folder_without_a_pickle(saved: tuple[Path, nn.Module]):
    run, original = saved
    save_model(run / "model", original, CARD)  # over the old one
    files = sorted((run / "model").iterdir())
    assert [file.name for file in files] == [DESCRIPTION, WEIGHTS]
    text, weights = (file.read_bytes() for file in files)
    json.loads(text)
    header = int.from_bytes(weights[:8], "little")  # safetensors: a length, json, and nothing but numbers
    assert set(json.loads(weights[8 : 8 + header])) - {"__metadata__"} == set(original.state_dict())
    assert len(weights) == 8 + header + sum(t.numel() * t.element_size() for t in original.state_dict().values())


def test_a_model_that_cannot_be_written_leaves_the_old_one(
    saved: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
):
    run, original = saved
    card = ModelCard.read(run / "model")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match=r"safetensors cannot be written: No space left on device; free space on "):
            save_model(run / "model", model(), CARD)
    assert sorted(path.name for path in (run / "model").iterdir()) == [DESCRIPTION, WEIGHTS]
    assert ModelCard.read(run / "model") == card
    load(run, original)


def test_a_stop_between_the_two_files_is_noticed(saved: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch):
    """A folder that is used again then holds new weights beside the old card."""
    run, original = saved

    def stop(card: ModelCard, folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelCard, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        save_model(run / "model", model(), CARD)
    with pytest.raises(UserError, match=r"weights\.safetensors is not the file that model\.json beside it describes"):
        load(run, original)


def test_weights_have_the_mode_of_any_new_file(saved: tuple[Path, nn.Module]):
    run, _ = saved
    (run / "other").touch()
    assert (run / "model" / WEIGHTS).stat().st_mode == (run / "other").stat().st_mode


def test_a_model_is_found_from_itself_its_run_or_a_checkpoint(
    saved: tuple[Path, nn.Module], capsys: pytest.CaptureFixture[str]
):
    run, _ = saved
    last = run / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.touch()
    assert find_model(run) == find_model(run / "model") == run / "model"
    assert capsys.readouterr().out == ""
    assert find_model(last) == run / "model"
    sentence = f"checkpoint={last}: the model of that run is used, of its lowest validation loss: {run}/model\n"
    assert capsys.readouterr().out == sentence


def test_a_model_that_comes_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model(Path("default")) == find_model(Path("detector")) == models_dir() / "detector"
    assert find_model(Path("default"), "detector").name == "detector"
    assert "checkpoint=default: the model detector that comes with genoattn\n" in capsys.readouterr().out
    own = tmp_path / "detector" / "model"
    own.mkdir(parents=True)
    (own / DESCRIPTION).touch()
    assert find_model(Path("detector")) == Path("detector/model")


def test_shipped_models_are_described_and_small() -> None:
    models = shipped_models()
    assert "detector" in [model.name for model in models]
    for model in models:
        assert model.size < 1_000_000 and model.purpose
        assert model.command.startswith(("genoattn train ", "genoattn finetune "))
        loaded = load_predictor(model.folder, "cpu")
        assert loaded.card.name == model.card.name


def test_no_model_there(saved: tuple[Path, nn.Module], tmp_path: Path):
    run, _ = saved
    with pytest.raises(UserError, match=r"checkpoint=.*gone: there is no such file or folder"):
        find_model(tmp_path / "gone")
    with pytest.raises(UserError, match=r"checkpoint=detectro: .* comes with genoattn \(default, detector"):
        find_model(Path("detectro"))
    with pytest.raises(UserError, match=r"none\.ckpt: there is no such file or folder"):
        find_model(run / "checkpoints" / "none.ckpt")
    with pytest.raises(UserError, match=r"no model\.json is there; expected a run folder, its model/ folder, or"):
        find_model(tmp_path)
    stopped = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    stopped.parent.mkdir(parents=True)
    stopped.touch()
    for path in (stopped, stopped.parent.parent):
        with pytest.raises(UserError, match=rf"before its model was saved: go on with trainer\.resume={stopped}"):
            find_model(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"model\.json is not json: "),
        ("[1]", rf"model\.json is not a model description of format {FORMAT}"),
        ("[" * 100_000, r"model\.json is not a model description: its lists are nested too deeply"),
        ('{"format": 1' + "0" * 5_000 + "}", r"model\.json is not json: Exceeds the limit"),
        ('{"format": 1}', rf"is not a model description of format {FORMAT}, the only one this version can read"),
        ('{"format": 4}', rf"is not a model description of format {FORMAT}, the only one this version can read"),
        ('{"format": 6, "name": "window"}', r"model\.json lacks tokenizer, task, "),
    ],
)
def test_descriptions_that_cannot_be_read(saved: tuple[Path, nn.Module], text: str, words: str):
    run, _ = saved
    (run / "model" / DESCRIPTION).write_text(text)
    with pytest.raises(UserError, match=words):
        ModelCard.read(run / "model")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "\x1b[31mred"}, r"name: expected printable characters, got \\x1b\[31mred"),
        ({"weights": None}, r"weights: expected the sha256 of weights\.safetensors, got null"),
        ({"length": 0}, "length: expected at least 1, got 0"),
        ({"seed": "1"}, "seed: expected an integer, got '1'"),
        ({"genome": "aa"}, "genome: expected a list, got 'aa'"),
        ({"reverse_complement": "averge"}, r"reverse_complement: expected .*; did you mean average\?"),
        ({"calibration": {"thresholds": 0.5}}, r"calibration\.thresholds: expected a mapping, got 0\.5"),
        ({"more": 1}, r"Key 'more' is not a setting of model\.json"),
    ],
)
def test_a_damaged_description_is_a_sentence(saved: tuple[Path, nn.Module], change: dict[str, object], words: str):
    run, _ = saved
    file = run / "model" / DESCRIPTION
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=rf"model\.json: {words}"):
        ModelCard.read(run / "model")


def test_weights_that_cannot_be_read(saved: tuple[Path, nn.Module]):
    run, original = saved
    file = run / "model" / WEIGHTS
    whole = file.read_bytes()
    for damaged, words in (
        (whole[:-1], "cannot be read as safetensors: "),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "is not the file that model.json beside it describes"),
        (b"", "cannot be read as safetensors: "),
    ):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"weights\.safetensors {words}"):
            load(run, original)
    file.unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read as safetensors: .*[Nn]o such file"):
        load(run, original)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_not_finite(saved: tuple[Path, nn.Module], number: float):
    run, original = saved
    original.state_dict()["0.weight"][1, 1] = number
    save_model(run / "model", original, CARD)
    with pytest.raises(UserError, match=r"safetensors: 0\.weight holds NaN or infinite numbers, as after a training"):
        load(run, model())


def test_weights_that_do_not_fit(saved: tuple[Path, nn.Module]):
    run, _ = saved
    with pytest.raises(
        UserError, match=r"holds 0\.weight of shape \[3, 2\] where the model's is \[5, 2\] \(and 5 more"
    ):
        load(run, model(5))
    with pytest.raises(UserError, match=r"holds a of shape \[2, 3\] where the model's is \[3, 2\]; were attention"):
        check_fit(Path("here"), {"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)})
    short, long = torch.zeros(1), torch.zeros(2)
    file = Path("here")
    check_fit(file, {"a": short}, {"a": long[:1]})
    for saved_tensors, expected, words in (
        ({"a": short}, {"a": short, "b": short}, "here does not fit this model: it lacks b; were attention"),
        ({"a": short, "b": short}, {"a": short}, "it holds b, which the model does not have; were"),
        ({"a": short, "c": short}, {"a": long, "b": short}, r"it lacks b \(and 2 more differences\); were"),
    ):
        with pytest.raises(UserError, match=words):
            check_fit(file, saved_tensors, expected)


def test_a_damaged_archive_is_noticed(tmp_path: Path):
    file = tmp_path / "last.ckpt"
    torch.save({"weight": torch.zeros(1000)}, file)
    check_archive(file)
    whole = file.read_bytes()
    middle = whole.index(bytes(2000)) + 1000  # within the weights
    for damaged, words in (
        (whole[:middle] + b"x" + whole[middle + 1 :], "checksum of last/data/0 is wrong"),
        (whole[: len(whole) // 2], "not a zip"),
        (b"", "not a zip"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"last\.ckpt is damaged: .*{words}"):
            check_archive(file)
    with pytest.raises(UserError, match=r"gone\.ckpt cannot be read: No such file"):
        check_archive(tmp_path / "gone.ckpt")


def test_no_byte_of_an_archive_raises_another_error(tmp_path: Path):
    file = tmp_path / "last.ckpt"
    torch.save({"weight": torch.zeros(8)}, file)
    whole = file.read_bytes()
    for place in range(0, len(whole), 5):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(UserError):  # a byte between two members does no harm
            check_archive(file)
