"""A model on disk: safetensors for the weights and json for its card, without a pickle."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genoattn.errors import UserError, shorten
from genoattn.models.card import DESCRIPTION, ModelCard

WEIGHTS = "weights.safetensors"


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write the weights and the card, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{WEIGHTS}.part"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, unfinished)
    os.replace(unfinished, folder / WEIGHTS)
    card.write(folder)


def find_model(path: Path) -> Path:
    """The model/ folder that a user means.

    Args:
        path: A run folder, its model/ folder, or a .ckpt file in its checkpoints/ folder.

    Raises:
        UserError: There is no saved model.
    """
    if not path.exists():
        raise UserError(f"checkpoint={path}: there is no such file or folder")
    run = path if path.is_dir() else path.parent.parent
    for folder in (run, run / "model"):
        if (folder / DESCRIPTION).is_file():
            if path.is_file():
                print(f"checkpoint={path}: the model of that run is used, of its lowest validation loss: {folder}")
            return folder
    taken = "expected a run folder, its model/ folder, or a .ckpt file in its checkpoints/ folder"
    last = run / "checkpoints" / "last.ckpt"
    stopped = f"; this run ended before its model was saved: go on with trainer.resume={last}" if last.exists() else ""
    raise UserError(f"checkpoint={path}: no {DESCRIPTION} is there; {taken}{stopped}")


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fill a model that was built from the card in the same folder."""
    file = folder / WEIGHTS
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read as safetensors: {error}") from None
    check_fit(file, weights, model.state_dict())
    model.load_state_dict(weights)


def check_fit(file: Path, saved: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises UserError with the first tensor that does not fit, and the number of the others."""
    faults = [f"lacks {name}" for name in expected if name not in saved]
    faults += [f"holds {name}, which the model does not have" for name in saved if name not in expected]
    faults += [
        f"holds {name} of shape {list(saved[name].shape)} where the model's is {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in saved and saved[name].shape != tensor.shape
    ]
    if faults:
        more = f" (and {len(faults) - 1} more differences)" if len(faults) > 1 else ""
        raise UserError(f"{file} does not fit this model: it {faults[0]}{more}; were attention, model or task changed?")


def check_archive(file: Path) -> None:
    """Compare the content of a zip archive, such as a .ckpt file, with its checksums, which torch does not look at.

    Raises:
        UserError: The file is no zip archive or a member of it is damaged.
    """
    reason = "expected a zip archive"
    try:
        with zipfile.ZipFile(file) as archive:
            reason = f"checksum of {shorten(member)} is wrong" if (member := archive.testzip()) else ""
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = shorten(error) or reason  # the last three: of headers that are not a zip's
    if reason:
        raise UserError(f"{file} is damaged: {reason}")
