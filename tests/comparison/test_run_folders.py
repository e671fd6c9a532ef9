"""Run folders of a comparison: what is reused, what is made again and why; nothing finished is deleted."""

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from genoattn.comparison import launcher, run_folders
from genoattn.comparison.inputs import InputReader, RunInputs
from genoattn.comparison.launcher import prepare_start, run_jobs
from genoattn.comparison.run_folders import asks_again, check_again, find_state, locked, prepare
from genoattn.config.compose import run_program
from genoattn.errors import UserError
from genoattn.files import write_json

PLACES = ("runs/64/full/final-lr0.01-seed0", "runs/64/linear/final-lr0.01-seed0", "runs/64/none/final-lr0.01-seed0")
JOBS = {place: ["optimizer.lr=0.01"] for place in PLACES}


def inputs(**parts: Any) -> RunInputs:
    """Inputs of a run without files and code, but for the given parts."""
    plain: dict[str, Any] = {"settings": {"optimizer.lr": 0.01}, "files": {}, "versions": {}, "code": {}}
    return RunInputs(["optimizer.lr=0.01"], **(plain | parts))


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the inputs that every run has from now on."""

    def use(**parts: Any) -> None:
        def read(_: InputReader, program: str, words: Sequence[str]) -> RunInputs:
            return inputs(**parts)

        monkeypatch.setattr(run_folders.InputReader, "read", read)

    use()
    return use


def finish(folder: Path, result: str = "metrics.json") -> None:
    """Make up the results of every run that was prepared."""
    for place in PLACES:
        write_json(folder / place / result, {"model/test/all/auprc": 0.5})


def test_complete_runs_are_reused_and_counted(
    planned: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(prepare("train", JOBS, tmp_path, "metrics.json")) == list(PLACES)
    assert capsys.readouterr().out == ""
    finish(tmp_path)
    assert prepare("train", JOBS, tmp_path, "metrics.json") == {}
    assert capsys.readouterr().out == "train: all 3 runs are complete already\n"
    (tmp_path / PLACES[1] / "metrics.json").unlink()
    assert list(prepare("train", JOBS, tmp_path, "metrics.json")) == [PLACES[1]]
    assert capsys.readouterr().out == "train: 2 of 3 runs are complete already\n"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"settings": {"optimizer.lr": 0.1}}, "optimizer.lr was 0.01 and is 0.1"),
        ({"settings": {"optimizer.lr": 0.01, "heads.count": 2}}, "heads.count was missing and is 2"),
        ({"files": {"data.fasta": [["small.fa", "cd"]]}}, "the content of data.fasta changed"),
        ({"versions": {"genoattn": "2"}, "code": {"mine": "ab"}}, "genoattn was missing and is 2"),
        ({"code": {"my_layers.linear": "cd"}}, "my_layers.linear was edited"),
    ],
)
def test_a_changed_run_stands_beside_the_earlier_one(
    parts: dict[str, Any],
    reason: str,
    planned: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was finished stays, twice too, and the reason is said."""
    prepare("train", JOBS, tmp_path, "metrics.json")
    finish(tmp_path)
    (tmp_path / "comparison.json").write_text("the record")
    planned(**parts)
    assert list(prepare("train", JOBS, tmp_path, "metrics.json")) == list(PLACES)
    said = f"train: 3 of 3 runs are made again, because {reason}; kept: {PLACES[0]}~1 and 2 more\n"
    assert capsys.readouterr().out == said
    assert all((tmp_path / f"{place}~1" / "metrics.json").is_file() for place in PLACES)
    assert not any((tmp_path / place / "metrics.json").exists() for place in PLACES)
    assert (tmp_path / "comparison~1" / "comparison.json").read_text() == "the record"
    finish(tmp_path)
    planned()
    prepare("train", JOBS, tmp_path, "metrics.json")
    assert all((tmp_path / f"{place}~2" / "metrics.json").is_file() for place in PLACES)


def test_runs_of_an_earlier_version_are_kept_too(planned: Callable[..., None], tmp_path: Path) -> None:
    for place in PLACES:
        (tmp_path / place).mkdir(parents=True)
        write_json(tmp_path / place / "overrides.json", ["optimizer.lr=0.01"])
    finish(tmp_path)
    assert list(prepare("train", JOBS, tmp_path, "metrics.json")) == list(PLACES)
    assert (tmp_path / f"{PLACES[0]}~1" / "metrics.json").is_file()


def test_complete_runs_are_made_again_where_it_is_asked_for(
    planned: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare("train", JOBS, tmp_path, "metrics.json")
    finish(tmp_path)
    assert list(prepare("train", JOBS, tmp_path, "metrics.json", ["runs/64/linear"])) == [PLACES[1]]
    assert "1 of 3 runs are made again, because again=… asks for it" in capsys.readouterr().out
    assert (tmp_path / f"{PLACES[1]}~1" / "metrics.json").is_file()


def test_stages_and_folders_that_again_names() -> None:
    sweep, final = "runs/512/linear/sweep-lr0.1-seed0", "runs/512/linear/final-lr0.1-seed0"
    assert asks_again(True, final) and not asks_again(False, final)
    assert asks_again(["sweep"], sweep) and not asks_again(["sweep"], final)
    assert asks_again(["runs/512/linear/"], final) and asks_again([final], final)
    assert not asks_again(["runs/512/lin"], final) and not asks_again(["runs/51"], final)
    assert asks_again(["costs"], "costs/512/linear") and asks_again(["context/512"], "context/512/linear")
    check_again(["sweep", "costs/512"])
    with pytest.raises(UserError, match=r"again: expected true, stages .* got finale"):
        check_again(["finale"])


def test_a_stopped_run_goes_on_from_its_last_checkpoint(
    planned: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "bob's data, x=1"
    prepare("train", JOBS, home, "metrics.json")
    (home / PLACES[0] / "checkpoints").mkdir()
    (home / PLACES[0] / "checkpoints" / "last.ckpt").touch()
    (home / PLACES[1] / "log.txt").touch()
    assert list(prepare("train", JOBS, home, "metrics.json")) == list(PLACES)
    assert capsys.readouterr().out == "train: 1 of 3 runs were stopped and go on from their last checkpoint\n"
    quoted = str(home / PLACES[0]).replace("'", "\\'")
    assert prepare_start(home / PLACES[0]) == ["optimizer.lr=0.01", f"trainer.resume='{quoted}/checkpoints/last.ckpt'"]
    assert not (home / PLACES[1] / "log.txt").exists() and prepare_start(home / PLACES[1]) == ["optimizer.lr=0.01"]


def test_a_stopped_run_with_other_inputs_begins_anew_and_keeps_its_checkpoint(
    planned: Callable[..., None], tmp_path: Path
) -> None:
    prepare("train", JOBS, tmp_path, "metrics.json")
    (tmp_path / PLACES[0] / "checkpoints").mkdir()
    (tmp_path / PLACES[0] / "checkpoints" / "last.ckpt").touch()
    planned(settings={"optimizer.lr": 0.1})
    prepare("train", JOBS, tmp_path, "metrics.json")
    assert not (tmp_path / PLACES[0] / "checkpoints").exists()
    assert (tmp_path / f"{PLACES[0]}~1" / "checkpoints" / "last.ckpt").is_file()


def test_a_diverged_run_is_complete(planned: Callable[..., None], tmp_path: Path) -> None:
    prepare("train", JOBS, tmp_path, "metrics.json")
    (tmp_path / PLACES[0] / "checkpoints").mkdir()
    (tmp_path / PLACES[0] / "checkpoints" / "last.ckpt").touch()  # of a step before that
    write_json(tmp_path / PLACES[0] / "diverged.json", {"step": 3})
    assert find_state(tmp_path / PLACES[0], inputs(), "metrics.json", False).action == "reuse"


def test_a_layer_that_is_edited_while_the_comparison_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has the code that it executes as its inputs, and does not go on from a checkpoint of other code."""
    monkeypatch.syspath_prepend(tmp_path)
    layer = tmp_path / "edited_layer.py"
    layer.write_text("x = 1\n")
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    before = inputs(code={"edited_layer": ""}).as_of_now()
    before.write(folder)
    layer.write_text("x = 1  # a comment\n")
    assert len(prepare_start(folder)) == 2 and RunInputs.read(folder) == before
    layer.write_text("x = 2\n")
    assert prepare_start(folder) == ["optimizer.lr=0.01"]
    now = RunInputs.read(folder)
    assert now is not None and now.differences(before) == ["edited_layer was edited"]
    assert not (folder / "checkpoints").exists() and (tmp_path / "run~1" / "checkpoints" / "last.ckpt").is_file()


def test_a_diverged_run_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both end with status 2; only the one without a result is made again by the next call."""

    class Launcher:
        def launch(self, jobs: Sequence[Sequence[str]], _: int) -> list[SimpleNamespace]:
            finish(tmp_path, "diverged.json")
            (tmp_path / PLACES[2] / "diverged.json").unlink()
            return [SimpleNamespace(return_value=2) for _ in jobs]

    def main(_: DictConfig) -> None:
        assert run_jobs("train", JOBS, tmp_path, "metrics.json", launcher=False) == [PLACES[2]]

    def plan(*_: object) -> dict[str, RunInputs]:
        for place in PLACES:
            (tmp_path / place).mkdir(parents=True)
            inputs().write(tmp_path / place)
        return dict.fromkeys(PLACES, inputs())

    monkeypatch.setattr(launcher, "prepare", plan)
    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: Launcher())
    assert run_program("check-layer", main, [f"hydra.run.dir={tmp_path / 'program'}"]) == 0


@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 100_000, '{"digest": 1}'])
def test_damaged_inputs_are_other_inputs(content: str, tmp_path: Path) -> None:
    inputs().write(tmp_path)
    assert RunInputs.read(tmp_path) == inputs()
    (tmp_path / "inputs.json").write_text(content)
    assert RunInputs.read(tmp_path) is None


def test_a_folder_has_one_comparison_at_a_time(tmp_path: Path) -> None:
    sentence = rf"another comparison \(process {os.getpid()} of .*\) works in "
    with locked(tmp_path), pytest.raises(UserError, match=sentence), locked(tmp_path):
        pytest.fail("a second comparison entered the folder")
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with locked(tmp_path):
        assert "cannot be locked (No locks available)" in capsys.readouterr().out
