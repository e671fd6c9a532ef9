"""Sharded checkpoints: folders in which every process writes its own part (torch.distributed.checkpoint).

`last.ckpt` is then a link to a folder beside it, `last.ckpt.400` after 400 steps, and a file in the folder has all but
the tensors. The link is replaced once its new folder is whole, and the old folder is removed after that: a kill at any
time leaves a whole checkpoint.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from genoattn.files import flush_to_disk, unfinished_name
from genoattn.training.processes import only_first

PLAIN = "plain.pt"
"""The file of everything but tensors; of weights it has the shapes, on the device "meta"."""


def write_shards(path: Path, step: int, plain: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Write a checkpoint from all processes.

    Args:
        path: The link.
        step: Steps of the training.
        plain: The checkpoint without its tensors.
        tensors: By name, states of distributed tensors.
    """
    folder = path.with_name(f"{path.name}.{step}")

    def begin() -> None:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir(parents=True)

    def end() -> None:
        torch.save(plain, folder / PLAIN)
        for file in folder.iterdir():
            flush_to_disk(file)
        link_to(path, folder)

    only_first(begin)
    save(tensors, checkpoint_id=folder)
    only_first(end)


def link_to(path: Path, folder: Path) -> None:
    """Make `path` a link to a whole folder beside it, and remove the folders that it was a link to before."""
    temporary = path.with_name(f".{path.name}.{unfinished_name()}.part")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    os.replace(temporary, path)
    flush_to_disk(path.parent)
    remove_folders(path, folder)


def remove_folders(path: Path, but: Path | None = None) -> None:
    """Remove the folders that a checkpoint was a link to before."""
    for other in path.parent.glob(f"{path.name}.*"):
        if other != but:
            shutil.rmtree(other, ignore_errors=True)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a sharded checkpoint into another folder."""
    folder = target.with_name(f"{target.name}{source.resolve().suffix}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    link_to(target, folder)


def read_plain(path: Path) -> dict[str, Any]:
    """A sharded checkpoint without its tensors; no pickle is run."""
    return torch.load(path / PLAIN, map_location="cpu", weights_only=True)


def read_whole(path: Path) -> dict[str, Any]:
    """The checkpoint that any strategy would have written as one file, in the memory of this process."""
    checkpoint = read_plain(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        file = Path(folder) / "whole.pt"
        dcp_to_torch_save(path, file)
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    checkpoint["state_dict"] = tensors["state_dict"]
    for number, state in enumerate(checkpoint["optimizer_states"]):
        moments, names = tensors[f"optimizer_{number}"]["state"], checkpoint["optimizer_names"][number]
        state["state"] = {number: moments[name] for number, name in enumerate(names) if name in moments}
    return checkpoint


def shapes(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors of whole weights without their numbers."""
    return {
        name: torch.empty(weight.shape, dtype=weight.dtype, device="meta")
        for name, weight in state.items()
        if isinstance(weight, torch.Tensor | DTensor)
    }
