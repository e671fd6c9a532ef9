"""A run folder belongs to one run: a taken name gets a suffix, and the work of another run is not written over."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from genoattn.config import compose
from genoattn.config.compose import run_program
from genoattn.config.folder import is_own_checkpoint, lock_folder, make_named_folder, make_new_folder
from genoattn.errors import UserError


def test_runs_that_begin_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: make_new_folder(tmp_path / "runs" / "now", "hydra.run.dir"), range(64)))
    assert {folder.name for folder in folders} == {"now", *(f"now-{number}" for number in range(1, 64))}


def test_a_new_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"hydra.run.dir: the run folder .* cannot be made \(Not a directory\)"):
        make_new_folder(tmp_path / "file" / "x" / "y", "hydra.run.dir")
    assert make_new_folder(tmp_path / "file", "hydra.run.dir").name == "file-1"


@pytest.mark.parametrize("work", ["metrics.csv", "checkpoints/last.ckpt", "model/model.json"])
def test_a_named_folder_that_holds_a_run_is_refused(work: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert make_named_folder(folder, "hydra.run.dir") == folder == make_named_folder(folder, "hydra.run.dir")
    (folder / work).parent.mkdir(exist_ok=True)
    (folder / work).touch()
    with pytest.raises(UserError) as refused:
        make_named_folder(folder, "hydra.run.dir", str(folder / "checkpoints" / "best.ckpt"))
    name, last = work.partition("/")[0], folder / "checkpoints" / "last.ckpt"
    resume = f", or go on with that run by trainer.resume={last}" if last.exists() else ""
    assert str(refused.value) == f"hydra.run.dir={folder} holds a run already ({name}); choose another folder{resume}"
    assert make_named_folder(folder, "hydra.run.dir", str(last)) == folder


def test_the_checkpoint_of_the_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_own_checkpoint("run/checkpoints/last.ckpt", tmp_path / "run")
    assert is_own_checkpoint(str(tmp_path / "run" / "plots" / ".." / "checkpoints" / "last.ckpt"), Path("run"))
    assert not is_own_checkpoint("other/checkpoints/last.ckpt", tmp_path / "run")
    assert not is_own_checkpoint("run/control/checkpoints/last.ckpt", tmp_path / "run")
    assert not is_own_checkpoint(None, tmp_path / "run")


def test_a_folder_is_locked_by_one_run_at_a_time(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "hydra.run.dir"):
        with (
            pytest.raises(UserError, match=r"hydra.run.dir: another run is writing to the folder .* now"),
            lock_folder(tmp_path, "hydra.run.dir"),
        ):
            pass
        end, start = os.pipe()
        ready, forked = os.pipe()
        worker = os.fork()
        if worker == 0:  # a worker that ends later than the run
            os.close(start)
            os.write(forked, b".")
            os.read(end, 1)
            os._exit(0)
        os.read(ready, 1)
    with lock_folder(tmp_path, "hydra.run.dir"):
        pass
    os.close(start)
    os.close(end)
    os.waitpid(worker, 0)


def folders_of(overrides: list[str], multirun: bool = False, work: Callable[[Path], None] = Path.touch) -> list[str]:
    """The run folders that a program sees, named from the working directory; it works on each."""
    folders: list[str] = []

    def program(config: DictConfig) -> None:
        node = HydraConfig.get()
        folder = Path(node.runtime.output_dir)
        assert folder == Path(node.run.dir).absolute() or multirun
        assert OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.runtime.output_dir == str(folder)
        work(folder)
        folders.append(str(folder.relative_to(Path.cwd())))

    with suppress(SystemExit):
        assert run_program("train", program, overrides, multirun) == 0
    return folders


def test_two_runs_of_one_second(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "conf_dir", lambda: tree)
    text = (tree / "train.yaml").read_text().replace("runs/train/${now:%Y}", "runs/${checkpoint}")
    (tree / "train.yaml").write_text(text)
    names = [folders_of(["checkpoint=now"]) for _ in range(3)]
    assert names == [["runs/now"], ["runs/now-1"], ["runs/now-2"]]
    sweeps = [folders_of(["seed=1,2"], True) for _ in range(2)]
    assert sweeps == [[f"runs/{sweep}/{job}" for job in (0, 1)] for sweep in ("sweep", "sweep-1")]


def test_the_work_of_a_named_folder_is_kept(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def leave_work(folder: Path) -> None:
        (folder / "metrics.csv").write_text("step\n0\n")

    assert folders_of(["hydra.run.dir=mine"], work=leave_work) == ["mine"]
    before = Path("mine/.hydra/overrides.yaml").read_text()
    program_runs: list[DictConfig] = []
    assert run_program("train", program_runs.append, ["hydra.run.dir=mine", "seed=7"]) == 2
    assert "hydra.run.dir=mine holds a run already (metrics.csv); choose another folder" in capfd.readouterr().err
    words = ["hydra.sweep.dir=swept", "seed=1,2"]
    assert folders_of(words, True, leave_work) == ["swept/0", "swept/1"]
    assert run_program("train", program_runs.append, words, True) == 2
    assert "hydra.sweep.dir=swept/0 holds a run already (metrics.csv)" in capfd.readouterr().err
    assert not program_runs and Path("mine/.hydra/overrides.yaml").read_text() == before
