"""A run that goes on from a checkpoint: it must be the same run, and the checkpoint must be sound."""

import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from genoattn.errors import UserError
from genoattn.files import remove_unfinished, replace_when_done
from genoattn.models.checkpoint import check_archive, check_fit
from genoattn.training.identity import RunIdentity, differences, other_versions
from genoattn.training.module import SequenceModule
from genoattn.training.sharded_files import PLAIN, copy_checkpoint, read_plain

REQUIRED = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")
"""Keys of every checkpoint, with Lightning's version and the run."""


def checkpoint_of(resume: Path, name: str) -> Path:
    """The checkpoint of a model of the run that `trainer.resume` names by the checkpoint of its first model."""
    return resume if name == "model" else resume.parent.parent / name / "checkpoints" / resume.name


def check_resume(resume: Path, identity: RunIdentity) -> None:
    """Check the checkpoints of a run, of its control too, before anything is done.

    Raises:
        UserError: A checkpoint is missing, damaged or of an older version, or the run differs in more than its budget,
            logging, workers, devices and evaluation: a line for each difference.
    """
    remove_unfinished(resume.parent)
    for name in ("model", "control"):
        last = checkpoint_of(resume, name)
        if name == "model" or last.exists():
            state = _read(last)
            _check_run(last, state["run"], identity, name)
            best = last.with_name("best.ckpt")
            if state["callbacks"]["Checkpoints"]["lowest"] < math.inf:
                if not best.exists():
                    raise UserError(f"trainer.resume={resume} needs {best}, the best checkpoint so far, which is gone")
                _check_run(best, _read(best)["run"], identity, name)


def copy_checkpoints(resume: Path, module: SequenceModule, checkpoints: Path) -> int:
    """Check that a model fits a checked checkpoint, and copy that and the best one so far into the run's folder.

    Returns:
        Steps of the optimiser before the checkpoint.

    Raises:
        UserError: The model does not fit.
    """
    state = _load(resume)
    check_fit(resume, state["state_dict"], module.state_dict())
    weights = sum(weight.requires_grad for weight in module.model.parameters())
    if sum(len(group["params"]) for group in state["optimizer_states"][0]["param_groups"]) != weights:
        raise UserError(f"trainer.resume={resume}: its optimizer does not train the {weights} weights of this model")
    checkpoints.mkdir(parents=True, exist_ok=True)
    for name, file in (("last.ckpt", resume), ("best.ckpt", resume.with_name("best.ckpt"))):
        if file.is_dir() and file.resolve() != (checkpoints / name).resolve():
            copy_checkpoint(file, checkpoints / name)
        elif file.is_file() and file.resolve() != (checkpoints / name).resolve():
            with replace_when_done(checkpoints / name) as temporary:
                shutil.copyfile(file, temporary)
    return state["global_step"]


def _read(file: Path) -> dict[str, Any]:
    """A checkpoint with all that a resumed run needs; nothing of a pickle is run."""
    if not (file.is_file() or (file / PLAIN).is_file()):
        reason = "is a folder; expected its checkpoints/last.ckpt" if file.is_dir() else "does not exist"
        raise UserError(f"trainer.resume={file} {reason}")
    check_archive(file / PLAIN if file.is_dir() else file)
    try:
        state = _load(file)
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, ValueError, pickle.UnpicklingError):
        state = None
    if not isinstance(state, dict) or "state_dict" not in state:
        raise UserError(f"trainer.resume={file} is no checkpoint of a run")
    if not isinstance(state.get("run"), dict):
        raise UserError(
            f"trainer.resume={file}: an older version of genoattn wrote it, without the settings of its run, so it"
            " cannot be resumed"
        )
    missing = [key for key in (*REQUIRED, "pytorch-lightning_version") if not state.get(key) and state.get(key) != 0]
    try:
        float(state["callbacks"]["Checkpoints"]["lowest"])
        [len(group["params"]) for group in state["optimizer_states"][0]["param_groups"]]
    except (KeyError, TypeError, IndexError, ValueError):
        missing = missing or ["the lowest validation loss or the groups of the optimizer"]
    if missing:
        raise UserError(f"trainer.resume={file} is incomplete: it lacks {', '.join(missing)}")
    return state


def _load(file: Path) -> dict[str, Any]:
    """A checkpoint; of one in parts, the shapes of its weights."""
    return read_plain(file) if file.is_dir() else torch.load(file, map_location="cpu", weights_only=True)


def _check_run(file: Path, run: dict[str, str], identity: RunIdentity, name: str) -> None:
    try:
        lines, versions = differences(run, identity, name), other_versions(run)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise UserError(f"trainer.resume={file}: the settings of its run cannot be read") from None
    if lines:
        raise UserError(
            f"trainer.resume={file} is of another run; only budget, logging, workers, devices and evaluation may"
            " differ:\n" + "\n".join(f"  {line}" for line in lines)
        )
    if versions and file.name == "last.ckpt":
        print(f"trainer.resume: another version, so the run may not go on exactly: {', '.join(versions)}")
