"""A run that is stopped or killed goes on exactly, in its folder or in a new one; another run is refused."""

import json
import math
import multiprocessing
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from genoattn import files
from genoattn.errors import UserError
from genoattn.training import identity
from genoattn.training.callbacks import StopCleanly
from genoattn.training.identity import RunIdentity, differences
from genoattn.training.resume import check_resume
from tests.training.quick import TRAINED, at_batch, leave_out_evaluation, quick_train, rows, trained

pytestmark = pytest.mark.usefixtures("alone", "quick")
STEPS = ("trainer.max_steps=6", "trainer.validate_every=2", "optimizer.lr=2", "data.length=96")
NO_PROCESS = 2**22 + 1
"""Above the highest number of a process."""


@pytest.fixture(scope="module")
def quick() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_evaluation(patch)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to its end, with its lowest validation loss in the middle."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert quick_train(folder, *STEPS) == 0
    return folder


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two batches a step."""
    folder = tmp_path_factory.mktemp("accumulated") / "run"
    assert quick_train(folder, *STEPS, "trainer.accumulate_batches=2") == 0
    return folder


def stop_at(folder: Path, batch: int, act: Callable[[], object], *words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        at_batch(patch, batch, act)
        return quick_train(folder, *STEPS, *words)


def assert_same_run(folder: Path, whole: Path) -> None:
    assert rows(folder) == rows(whole)
    assert [row["step"] for row in rows(whole) if row["validation/loss"]] == ["1", "3", "5"]
    assert_same(trained(folder), trained(whole))


def test_the_model_of_the_lowest_validation_loss_is_kept(whole: Path) -> None:
    losses = [float(row["validation/loss"]) for row in rows(whole) if row["validation/loss"]]
    assert losses[1] == min(losses)
    best, last = (
        torch.load(whole / "checkpoints" / name, weights_only=True)["state_dict"] for name in ("best.ckpt", "last.ckpt")
    )
    model = trained(whole)
    assert all(torch.equal(model[name], best[f"model.{name}"]) for name in model)
    assert not all(torch.equal(model[name], last[f"model.{name}"]) for name in model)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_leaves_a_run_that_goes_on_in_its_folder(
    number: signal.Signals,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if number == signal.SIGUSR1:  # Lightning would have Slurm queue the job again
        for name in ("JOB_ID", "NTASKS", "PROCID", "LOCALID", "NODEID"):
            monkeypatch.setenv(f"SLURM_{name}", "2" if name in ("JOB_ID", "NTASKS") else "0")
        monkeypatch.setenv("SLURM_JOB_NAME", "train")
    before = signal.getsignal(number)
    folder = tmp_path / "run"
    shutil.copy(whole.parent / "chr.fa", tmp_path)
    assert stop_at(folder, 3, lambda: signal.raise_signal(number)) == 128 + number
    last = folder / "checkpoints" / "last.ckpt"
    stopped = f"model was stopped by {number.name} after step 3; go on with trainer.resume={last}\n"
    assert stopped in capsys.readouterr().out
    assert signal.getsignal(number) is before
    assert quick_train(folder, *STEPS, f"trainer.resume={last}") == 0
    assert_same_run(folder, whole)
    assert OmegaConf.load(folder / "config.yaml").trainer.resume == str(last)


@pytest.mark.parametrize(
    ("how", "accumulate", "batch", "done"),
    [("ctrl-c", 1, 4, 4), ("ctrl-c", 1, 3, 3), ("crash", 1, 6, 4), ("ctrl-c", 2, 5, 3)],
)
def test_a_resumed_run_is_the_run_never_stopped(
    how: str,
    accumulate: int,
    batch: int,
    done: int,
    whole: Path,
    accumulated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def act() -> None:
        if how == "crash":
            raise RuntimeError("the roof fell in")
        signal.raise_signal(signal.SIGINT)

    words = (f"trainer.accumulate_batches={accumulate}",)
    whole, half, rest = (whole, accumulated)[accumulate - 1], tmp_path / "half", tmp_path / "rest"
    shutil.copy(whole.parent / "chr.fa", tmp_path)
    last = half / "checkpoints" / "last.ckpt"
    if how == "crash":
        with pytest.raises(RuntimeError, match="the roof fell in"):
            stop_at(half, batch, act, *words)
    else:
        assert stop_at(half, batch, act, *words) == 130
        stopped = f"model was stopped by Ctrl-C after step {done}; go on with trainer.resume={last}\n"
        assert stopped in capsys.readouterr().out
        assert len([row for row in rows(half) if row["loss"]]) == done and not (half / TRAINED).exists()
    assert torch.load(last, weights_only=True)["global_step"] == done
    unfinished = last.with_name(f".last.ckpt.{files.HOST}-{NO_PROCESS}.part")
    unfinished.touch()

    assert quick_train(rest, *STEPS, *words, f"trainer.resume={last}") == 0
    assert not unfinished.exists()
    assert rows(rest) == [row for row in rows(whole) if int(row["step"]) >= done] != []
    assert_same(trained(rest), trained(whole))
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (whole, rest))
        for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers"):
            assert_same(one[key], other[key])
        assert one["callbacks"]["Checkpoints"] == other["callbacks"]["Checkpoints"]


def assert_same(one: object, other: object) -> None:
    """Two nests of dicts, lists, tensors and plain values are equal to the last bit."""
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_killed_run_goes_on_from_its_last_validation(whole: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    shutil.copy(whole.parent / "chr.fa", tmp_path)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        stop_at(folder, 4, die)
    assert [row["step"] for row in rows(folder)] == ["0", "1", "1", "2"]
    left = folder / "checkpoints" / f".last.ckpt.{files.HOST}-{NO_PROCESS}.part"
    left.touch()
    assert quick_train(folder, *STEPS, f"trainer.resume={folder / 'checkpoints' / 'last.ckpt'}") == 0
    assert_same_run(folder, whole)
    assert not left.exists()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_slurm_signals_the_workers_too(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = multiprocessing.active_children()  # of other tests

    def terminate() -> None:
        workers = [child for child in multiprocessing.active_children() if child not in others]
        assert workers
        for worker in workers:
            worker.terminate()
            worker.join(0.3)
            assert worker.is_alive()
        signal.raise_signal(signal.SIGTERM)

    shutil.copy(whole.parent / "chr.fa", tmp_path)
    words = ("data.workers=1", "trainer.accumulate_batches=2")
    assert stop_at(tmp_path / "run", 3, terminate, *words) == 143
    assert "stopped by SIGTERM after step 2;" in capsys.readouterr().out


def test_training_outside_the_main_thread(whole: Path, tmp_path: Path) -> None:
    listening: list[tuple[signal.Signals, ...]] = []
    thread = Thread(target=lambda: listening.append(StopCleanly(None)._signals))
    thread.start()
    thread.join()
    assert listening == [()]


def test_another_run_is_refused_line_by_line(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = whole / "checkpoints" / "last.ckpt"
    config = (whole / "config.yaml").read_bytes()
    capsys.readouterr()
    free = ("trainer.max_steps=9", "data.workers=1", "trainer.threads=2", "test.windows=3")
    words = ("attention=none", "optimizer.lr=0.5", "seed=7", *STEPS[3:], *free)
    assert quick_train(whole, *words, f"trainer.resume={last}") == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == (
        f"trainer.resume={last} is of another run; only budget, logging, workers, devices and evaluation may differ:"
    )
    assert "  optimizer.lr: 2 → 0.5" in lines and "  seed: 0 → 7" in lines
    linear, none = (f'"genoattn.attention.{module}Attention"' for module in ("linear.Linear", "none.No"))
    assert f"  attention._target_: {linear} → {none}" in lines
    assert {line.split(":")[0].split(".")[0].strip() for line in lines} == {"attention", "optimizer", "seed"}
    assert (whole / "config.yaml").read_bytes() == config
    other = tmp_path / "chr.fa"
    other.write_text((whole.parent / "chr.fa").read_text().replace("ACG", "ACT"))
    assert quick_train(tmp_path / "run", *STEPS, f"trainer.resume={last}") == 2
    assert re.search(r":\n  data.fasta: sha256 [0-9a-f]{12} → [0-9a-f]{12}\n$", capsys.readouterr().err)
    assert not (tmp_path / "run" / "checkpoints").exists()


BEFORE = RunIdentity({"a": {"b": 1, "c": [1, 2], "d": {}}, "test": {"seed": 0, "x": 1}}, {"genome": ["1", "2"]})

NO_SEED, LONG = "test.seed: 0 → (not set)", f'a.e: (not set) → "{"x" * 78}…'


@pytest.mark.parametrize(
    ("config", "inputs", "lines"),
    [
        ({"a": {"b": 1, "c": (1, 2), "d": {}}, "test": {"seed": 0, "x": 2}}, {"genome": ["1", "2"]}, []),
        ({**BEFORE.config, "logger": {"x": 1}, "data": {"fasta": "x", "workers": 3}}, {"genome": ["1", "2"]}, []),
        ({"a": {"b": None, "c": [1], "d": {}}}, BEFORE.inputs, ["a.b: 1 → null", "a.c: [1, 2] → [1]", NO_SEED]),
        ({**BEFORE.config, "a": {"b": 1, "c": [1, 2], "e": "x" * 99}}, BEFORE.inputs, [LONG, "a.d: {} → (not set)"]),
        (BEFORE.config, {"genome": ["1", "3"]}, ["data.fasta: sha256 6b51d431df5d → 3fdba35f04dc"]),
        (BEFORE.config, {**BEFORE.inputs, "pretrained": ["a" * 64]}, [f"checkpoint: sha256 (none) → {'a' * 12}"]),
    ],
)
def test_differences(config: dict[str, Any], inputs: dict[str, list[str]], lines: list[str]) -> None:
    assert differences(BEFORE.state("model"), RunIdentity(config, inputs), "model") == lines


def test_the_control_is_another_model() -> None:
    assert differences(BEFORE.state("control"), BEFORE, "model") == ["model: control → model"]


def own_identity(state: dict[str, Any]) -> RunIdentity:
    return RunIdentity(json.loads(state["run"]["config"]), json.loads(state["run"]["inputs"]))


def test_another_version_is_a_warning(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = whole / "checkpoints" / "last.ckpt"
    run = own_identity(torch.load(last, weights_only=True))
    check_resume(last, run)
    assert capsys.readouterr().out == ""
    old = identity.version("torch")
    monkeypatch.setattr(identity, "version", lambda package: "9" if package == "torch" else old)
    monkeypatch.setattr(identity, "PACKAGES", ("torch",))
    check_resume(last, run)
    assert capsys.readouterr().out == (
        f"trainer.resume: another version, so the run may not go on exactly: torch {old} → 9\n"
    )


def without(*path: Any) -> Callable[[dict[str, Any]], None]:
    def remove(state: Any) -> None:
        for key in path[:-1]:
            state = state[key]
        del state[path[-1]]

    return remove


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (without("run"), "an older version of genoattn wrote it, without the settings of its run, so it cannot be"),
        (without("run", "config"), "the settings of its run cannot be read"),
        (without("state_dict"), "is no checkpoint of a run"),
        (without("optimizer_states"), "is incomplete: it lacks optimizer_states"),
        (without("optimizer_states", 0), "is incomplete: it lacks optimizer_states"),
        (without("optimizer_states", 0, "param_groups"), "is incomplete: it lacks the lowest validation loss or"),
        (without("lr_schedulers"), "is incomplete: it lacks lr_schedulers"),
        (without("pytorch-lightning_version"), "is incomplete: it lacks pytorch-lightning_version"),
        (without("callbacks", "Checkpoints"), "is incomplete: it lacks callbacks"),
        (without("callbacks", "Checkpoints", "lowest"), "is incomplete: it lacks the lowest validation loss"),
        (without("loops"), "is incomplete: it lacks loops"),
    ],
)
def test_an_incomplete_checkpoint_is_found_at_the_start(
    edit: Callable[[dict[str, Any]], None], sentence: str, whole: Path, tmp_path: Path
) -> None:
    state = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    run = own_identity(state)
    edit(state)
    for name in ("last.ckpt", "best.ckpt"):
        shutil.copytree(whole / "checkpoints", tmp_path / name / "checkpoints")
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        torch.save(state, last.with_name(name))
        with pytest.raises(UserError, match=re.escape(sentence)) as refused:
            check_resume(last, run)
        assert str(refused.value).startswith(f"trainer.resume={last.with_name(name)}")


def test_a_damaged_or_missing_best_checkpoint_is_found_at_the_start(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    last, best = (tmp_path / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    state = torch.load(last, weights_only=True)
    for file in (best, last):
        content = file.read_bytes()
        tensor = torch.load(file, weights_only=True)["state_dict"]["model.embed.weight"].numpy().tobytes()
        place = content.index(tensor)
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=rf"{file} is damaged: checksum of .* is wrong"):
            check_resume(last, own_identity(state))
        file.write_bytes(content)
    best.unlink()
    with pytest.raises(UserError, match=rf"trainer.resume={last} needs {best}, the best checkpoint so far"):
        check_resume(last, own_identity(state))
    state["callbacks"]["Checkpoints"]["lowest"] = math.inf  # stopped before the first validation
    torch.save(state, last)
    check_resume(last, own_identity(state))


def test_a_pickle_is_not_run(whole: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "run",)

    run = own_identity(torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True))
    torch.save({"state_dict": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt is no checkpoint of a run"):
        check_resume(tmp_path / "last.ckpt", run)
    assert not (tmp_path / "run").exists()
