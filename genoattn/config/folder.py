"""The folder of a run: no other run writes into it, neither at the same time nor later."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from genoattn.errors import UserError

WORK = ("metrics.csv", "checkpoints", "model")
"""Files and folders of a training run that another run would write over."""

_locked: set[int] = set()
"""Open folders that this process has locked."""


def make_new_folder(folder: Path, key: str) -> Path:
    """Make a folder that does not exist yet; if the name is taken, by other processes too, `-1`, `-2`, … is added.

    Args:
        folder: The name that the setting `key` gives.
        key: A setting, for the sentence about a folder that cannot be made.
    """
    with _sentence(folder, key):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in count():
            chosen = folder.with_name(f"{folder.name}-{number}") if number else folder
            with suppress(FileExistsError):
                chosen.mkdir()
                return chosen
    raise AssertionError


def make_named_folder(folder: Path, key: str, resume: str | None = None) -> Path:
    """Make a folder that the user named, or use it again if it holds no training run but the one that goes on.

    Args:
        folder: The name that the setting `key` gives.
        key: A setting, for the sentence about a folder that cannot be used.
        resume: The checkpoint that the run goes on from.

    Raises:
        UserError: The folder cannot be used, or it holds the work of another run.
    """
    with _sentence(folder, key):
        folder.mkdir(parents=True, exist_ok=True)
        work = next((folder / name for name in WORK if (folder / name).exists()), None)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{key}: the run folder {folder} cannot be written to")
    if work and not is_own_checkpoint(resume, folder):
        last = folder / "checkpoints" / "last.ckpt"
        resumed = f", or go on with that run by trainer.resume={last}" if last.exists() else ""
        raise UserError(f"{key}={folder} holds a run already ({work.name}); choose another folder{resumed}")
    return folder


def is_own_checkpoint(resume: str | None, folder: Path) -> bool:
    """True if `trainer.resume` is the last.ckpt of this run folder: the run goes on in its folder."""
    return resume is not None and Path(resume).resolve() == (folder / "checkpoints" / "last.ckpt").resolve()


@contextmanager
def lock_folder(folder: Path, key: str) -> Iterator[None]:
    """Within it no other process can lock the folder; the lock ends with this process, however that ends.

    Raises:
        UserError: Another process has locked it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    number = os.open(folder, os.O_RDONLY)
    _locked.add(number)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{key}: another run is writing to the folder {folder} now; choose another one") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        _locked.discard(number)
        os.close(number)


def _forget_locks() -> None:
    """In a forked worker, which may outlive a killed run by seconds: let go of the run's folders."""
    for number in _locked:
        os.close(number)
    _locked.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def _sentence(folder: Path, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{key}: the run folder {folder} cannot be made ({error.strerror})") from None
