"""The files of a training: checkpoints and metrics.csv are whole, in their folder, and a full disk is a sentence."""

import errno
import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from genoattn.errors import UserError
from genoattn.training.checkpoints import CheckpointFiles
from genoattn.training.loggers import MetricsFile

STATE = {"state_dict": {"weight": torch.arange(300_000.0)}}


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_checkpoint_is_written_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/null")
    CheckpointFiles().save_checkpoint(STATE, tmp_path / "new" / "last.ckpt")
    assert names(tmp_path / "new") == {"last.ckpt"}
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "new" / "last.ckpt").stat().st_mode & 0o777 == 0o666 & ~mask
    loaded = CheckpointFiles().load_checkpoint(tmp_path / "new" / "last.ckpt")
    assert torch.equal(loaded["state_dict"]["weight"], STATE["state_dict"]["weight"])
    CheckpointFiles().remove_checkpoint(tmp_path / "new" / "last.ckpt")
    assert not names(tmp_path / "new")


class FullDisk(io.BytesIO):
    """A file on a disk with so much space."""

    def __init__(self, space: int):
        super().__init__()
        self.space = space

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("space", [0, 2_000])  # torch has an error of its own once it has begun to write
def test_a_full_disk_is_a_sentence(space: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.ckpt"
    file.write_text("old")
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, _: save(state, FullDisk(space)))
    sentence = f"{file} cannot be written: No space left on device; free space on the disk of {tmp_path}"
    with pytest.raises(UserError, match=re.escape(sentence)):
        CheckpointFiles().save_checkpoint(STATE, file)
    assert names(tmp_path) == {"last.ckpt"} and file.read_text() == "old"


def test_a_checkpoint_that_no_program_may_write(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match=r"last\.ckpt cannot be written: File exists"):
        CheckpointFiles().save_checkpoint(STATE, tmp_path / "checkpoints" / "last.ckpt")


def test_the_columns_of_metrics_grow(tmp_path: Path) -> None:
    file = tmp_path / "run" / "metrics.csv"
    file.parent.mkdir()
    file.write_text("of a run before\n")
    metrics = MetricsFile(file.parent)
    metrics.log_metrics({"loss": 2.0, "a,b": 1.0}, 0)
    metrics.log_metrics({"loss": 1.5}, 1)
    assert file.read_text() == '"a,b",loss,step\n1.0,2.0,0\n,1.5,1\n'
    metrics.log_metrics({"validation/loss": 3.0}, 1)
    metrics.log_metrics({"loss": 1.0, "a,b": 0.5}, 2)
    text = '"a,b",loss,step,validation/loss\n1.0,2.0,0,\n,1.5,1,\n,,1,3.0\n0.5,1.0,2,\n'
    assert file.read_text() == text and names(file.parent) == {"metrics.csv"}

    file.write_text(f"{text}0.25,0.5,3")  # killed within a line
    resumed = MetricsFile(file.parent)
    resumed.keep_until(2)
    resumed.log_metrics({"loss": 7.0}, 2)
    assert file.read_text() == f"{''.join(text.splitlines(True)[:4])},7.0,2,\n"
    resumed.log_metrics({"new": 1.0}, 3)
    assert file.read_text().splitlines()[::5] == ['"a,b",loss,new,step,validation/loss', ",,1.0,3,"]


def test_metrics_of_a_run_that_logged_nothing(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path)
    metrics.keep_until(2)
    metrics.log_metrics({"loss": 1.0}, 2)
    assert (tmp_path / "metrics.csv").read_text() == "loss,step\n1.0,2\n"
    metrics.file = Path("/dev/full")
    with pytest.raises(UserError, match="/dev/full cannot be written: No space left on device; free space on the disk"):
        metrics.log_metrics({"loss": 1.0}, 3)
