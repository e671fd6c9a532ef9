"""A model as a folder that the Hugging Face Hub and its users expect, and that `genoattn.load` opens."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save

from genoattn.data.tokenizers.huggingface import tokenizer_json
from genoattn.errors import UserError
from genoattn.files import cannot_write, flush_to_disk, is_abandoned, unfinished_name, write_json
from genoattn.models import exported
from genoattn.models.build import LoadedModel
from genoattn.models.exported_readme import readme_text


def export_model(loaded: LoadedModel, folder: Path) -> None:
    """Write config.json, model.safetensors, tokenizer.json and README.md; the folder appears whole or not at all.

    Args:
        loaded: The model. If it was exported before, its README.md goes with it.
        folder: The new folder; an empty one is replaced.

    Raises:
        UserError: The folder is not empty, or cannot be written.
    """
    check_new(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in loaded.predictor.model.state_dict().items()}
    weights = save(tensors, {"format": "pt"})  # the key by which transformers knows the tensors as torch's
    tokenizer = tokenizer_json(loaded.predictor.tokenizer).encode()
    task = dict(loaded.card.task)
    if isinstance(task.get("file"), str):  # of labelled variants: folders of this machine are nobody's business
        task["file"] = Path(task["file"]).name
    card = replace(loaded.card, task=task, weights=hashlib.sha256(weights).hexdigest())
    texts = {exported.WEIGHTS: weights, exported.TOKENIZER: tokenizer, exported.README: readme_text(loaded).encode()}
    with _whole(folder.absolute()) as work:
        for name, content in texts.items():
            (work / name).write_bytes(content)
            flush_to_disk(work / name)
        write_json(work / exported.CONFIG, exported.config_values(card.to_json(), tokenizer), indent=2)


def check_new(folder: Path) -> None:
    """Raises UserError if something is there already, or nothing can be written beside it."""
    if folder.is_symlink() or folder.is_file():
        raise UserError(f"{folder} is there already; a model is exported into a new folder")
    try:
        if folder.is_dir() and next(folder.iterdir(), None):
            raise UserError(f"{folder} is not empty; a model is exported into a new folder")
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder} cannot be written: there is no folder {folder.absolute().parent}")


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, which it becomes at the end of the block; it is removed if the block raises."""
    for left in folder.parent.glob(".*.part"):  # of killed programs
        name, _, writer = left.name.removesuffix(".part").rpartition(".")
        if name == f".{folder.name}" and left.is_dir() and is_abandoned(left, writer):
            shutil.rmtree(left, ignore_errors=True)
    work = folder.with_name(f".{folder.name}.{unfinished_name()}.part")
    try:
        work.mkdir()
        yield work
        flush_to_disk(work)
        os.rename(work, folder)  # fails if the folder was filled meanwhile
        flush_to_disk(folder.parent)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
