"""A model on disk: safetensors and a json that says how to build it again, without a pickle."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genoattn.data.settings import TrainingSplit
from genoattn.errors import UserError

FORMAT = 2


WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"


def save_model(folder: Path, model: nn.Module, description: Mapping) -> None:
    """Write weights and description, each whole or not at all; the description is plain values."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f".{WEIGHTS}.part"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, half)
    os.replace(half, folder / WEIGHTS)
    half = folder / f".{DESCRIPTION}.part"
    half.write_text(json.dumps({"format": FORMAT, **description}, indent=2) + "\n", "utf-8")
    os.replace(half, folder / DESCRIPTION)


def find_model(path: Path) -> Path:
    """The folder of a model given itself, its run folder or a checkpoint of that run."""
    for folder in (path, path / "model", path.parent.parent / "model"):
        if (folder / DESCRIPTION).is_file() and (folder == path or path.exists()):
            return folder
    if not path.exists():
        raise UserError(f"checkpoint={path}: there is no such file or folder")
    raise UserError(f"checkpoint={path} is neither a run folder nor its model/ folder (no {DESCRIPTION} in it)")


def read_description(folder: Path) -> dict:
    """How the model in a folder was built."""
    file = folder / DESCRIPTION
    try:
        description = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not json: {error}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise UserError(f"{file} is not a model description of format {FORMAT}, which this version reads")
    return description


def training_split(description: Mapping) -> TrainingSplit:
    """The records that a saved model was trained on, and the settings that split them."""
    return TrainingSplit(
        genome=tuple(description["genome"]),
        length=description["length"],
        split=description["split"],
        seed=description["seed"],
        min_length=description.get("min_length"),
    )


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fill a model that was built as the description says."""
    file = folder / WEIGHTS
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read as safetensors: {error}") from None
    check_fit(file, weights, model.state_dict())
    model.load_state_dict(weights)


def check_fit(file: Path, held: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises UserError with the first tensor that does not fit, and how many do not."""
    faults = [f"lacks {name}" for name in wanted if name not in held]
    faults += [f"holds {name}, which the model has not" for name in held if name not in wanted]
    faults += [
        f"holds {name} of shape {list(held[name].shape)} where the model's is {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in held and held[name].shape != tensor.shape
    ]
    if faults:
        more = f" (and {len(faults) - 1} more differences)" if len(faults) > 1 else ""
        raise UserError(f"{file} does not fit this model: it {faults[0]}{more}; were attention, model or task changed?")
