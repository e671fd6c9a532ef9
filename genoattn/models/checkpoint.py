"""A model on disk: safetensors for the weights and json for its card, without a pickle."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from genoattn.errors import UserError, shorten
from genoattn.files import file_sha256, replace_when_done
from genoattn.models.card import DESCRIPTION, WEIGHTS, ModelCard, description_of, weights_of
from genoattn.models.shipped import DEFAULT, DETECTOR, shipped_folder, shipped_names

DIVERGED = "diverged.json"
"""Step, learning rate, clipping and loss of a training that diverged, in its folder, which then holds no model."""


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> ModelCard:
    """Write the weights and the card, each file whole or not at all; returns the card with the sha256 of the weights.

    A program that is killed between the two files leaves a card that does not name its weights, which `load_weights`
    refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replace_when_done(folder / WEIGHTS) as unfinished:
        unfinished.write_bytes(save(tensors))  # save_file would write a file of another name, which a kill leaves
        card = replace(card, weights=file_sha256(unfinished))
    card.write(folder)
    return card


def find_model(path: Path, default: str = DETECTOR) -> Path:
    """The model/ folder that a user means.

    Args:
        path: A run folder, its model/ folder, a .ckpt file in its checkpoints/ folder, an exported folder, or the name
            of a model that comes with the package; a file or folder of that name goes before it.
        default: The model that the name "default" stands for.

    Raises:
        UserError: There is no saved model.
    """
    if not path.exists():
        if folder := shipped_folder(str(path), default):
            print(f"checkpoint={path}: the model {folder.name} that comes with genoattn")
            return folder
        names = f", nor a model of that name that comes with genoattn ({', '.join([DEFAULT, *shipped_names()])})"
        raise UserError(f"checkpoint={path}: there is no such file or folder{names if len(path.parts) == 1 else ''}")
    run = path if path.is_dir() else path.parent.parent
    for folder in (run, run / "model"):
        if description_of(folder).is_file():
            if path.is_file():
                print(f"checkpoint={path}: the model of that run is used, of its lowest validation loss: {folder}")
            return folder
    taken = "expected a run folder, its model/ folder, or a .ckpt file in its checkpoints/ folder, or an export"
    last = run / "checkpoints" / "last.ckpt"
    stopped = f"; this run ended before its model was saved: go on with trainer.resume={last}" if last.exists() else ""
    raise UserError(f"checkpoint={path}: no {DESCRIPTION} is there; {taken}{stopped}")


def read_shapes(folder: Path) -> dict[str, Tensor]:
    """The tensors of the file of weights without their numbers, as a header of a few bytes names them."""
    file = weights_of(folder)
    try:
        with safe_open(file, "pt") as header:
            shapes = {name: header.get_slice(name).get_shape() for name in header.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read as safetensors: {shorten(error)}") from None
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def load_weights(folder: Path, model: nn.Module, sha256: str | None) -> None:
    """Fill a model that was built from the card in the same folder, which names the sha256 of the weights.

    Raises:
        UserError: The file cannot be read, is not that of the card, does not fit the model or is not finite.
    """
    file = weights_of(folder)
    check_fit(file, read_shapes(folder), model.state_dict())
    if (actual := file_sha256(file)) != sha256:
        raise UserError(
            f"{file} is not the file that {description_of(folder).name} beside it describes (sha256 {actual[:12]}…,"
            f" expected {shorten(sha256)[:12]}…): one of the two was changed, or a run was stopped while it saved its"
            " model"
        )
    weights = load_file(file)
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise UserError(f"{file}: {shorten(name)} holds NaN or infinite numbers, as after a training that diverged")
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
