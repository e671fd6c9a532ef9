"""The card of a saved model: how to build it again, and how it was trained."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from genoattn.config.schema import Count, ReverseComplement, Seed
from genoattn.config.validate import argument_errors
from genoattn.data.settings import TrainingSplit
from genoattn.errors import UserError, shorten
from genoattn.files import write_json
from genoattn.models import exported
from genoattn.models.nodes import check_plain

FORMAT = 6
DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"

Node: TypeAlias = Mapping[str, Any]
"""A plain config node with a `_target_`."""

Calibration: TypeAlias = Mapping[str, Mapping[str, int | float]]
"""By kind of value, such as thresholds, the values by output; empty if none were chosen."""


@dataclass(frozen=True)
class ModelCard:
    """Everything in model.json: all that a saved model needs besides its weights.

    Attributes:
        name: Name of the attention layer, such as "linear".
        tokenizer: Config node of the trained tokenizer.
        task: Config node of the task.
        model: Config node of the backbone.
        attention: Config node of the attention layer.
        reverse_complement: Use of the other strand in training: none, augment, average or equivariant.
        length: Bases of a training window.
        split: Kind of split into training, validation and test: block, record, file or group.
        min_length: Shortest record in bases that was used whole; None if records had to hold a window.
        seed: Seed of the weights and of the data.
        genome: sha256 of every record of the genome.
        calibration: Values that the evaluation chose for the model, such as thresholds.
        untrained_calibration: The same for the model before training.
        weights: sha256 of the file of weights that the card belongs to; None until both are saved.
        format: Version of this format.
        units: Number of the file or group of every record, where the split kept them whole; a card may lack it.
    """

    name: str
    tokenizer: Node
    task: Node
    model: Node
    attention: Node
    reverse_complement: ReverseComplement
    length: Count
    split: Literal["block", "record", "file", "group"]
    min_length: Count | None
    seed: Seed
    genome: tuple[str, ...]
    calibration: Calibration = field(default_factory=dict)
    untrained_calibration: Calibration = field(default_factory=dict)
    weights: str | None = None
    format: int = FORMAT
    units: tuple[int, ...] = ()

    @property
    def scores_both_strands(self) -> bool:
        """True if the scores of the model are averaged over both strands."""
        return uses_both_strands(self.reverse_complement)

    @property
    def training_split(self) -> TrainingSplit:
        """The records that the model was trained on, and the settings that split them."""
        return TrainingSplit(self.genome, self.length, self.split, self.seed, self.min_length, self.units)

    def to_json(self) -> dict[str, Any]:
        """The card as plain values, in the order of model.json."""
        values = {"format": self.format, **asdict(self), "genome": list(self.genome), "units": list(self.units)}
        return values if self.units else {key: value for key, value in values.items() if key != "units"}

    def write(self, folder: Path) -> None:
        """Write model.json, whole or not at all."""
        write_json(folder / DESCRIPTION, self.to_json(), indent=2)

    @classmethod
    def read(cls, folder: Path) -> "ModelCard":
        """Read model.json, or config.json.

        Args:
            folder: The model/ folder of a run, or an exported folder.

        Raises:
            UserError: The file is not json, has another format, or a field is missing, unknown or of another type.
        """
        file = description_of(folder)
        try:
            values = json.loads(file.read_text("utf-8"))
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}") from None
        except RecursionError:
            raise UserError(f"{file} is not a model description: its lists are nested too deeply") from None
        except ValueError as error:
            raise UserError(f"{file} is not json: {shorten(error)}") from None
        if file.name == exported.CONFIG:
            values = exported.card_values(folder, values)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise UserError(f"{file} is not a model description of format {FORMAT}, the only one this version can read")
        names = [attribute.name for attribute in fields(cls)]
        if missing := [name for name in names if name not in values and name != "units"]:
            raise UserError(f"{file} lacks {', '.join(missing)}")
        try:
            check_plain(values, "")
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        for error in argument_errors(cls, values, "", file.name):
            raise UserError(f"{file}: {error}")
        if not isinstance(values["weights"], str):
            raise UserError(f"{file}: weights: expected the sha256 of {weights_of(folder).name}, got null")
        if not values["name"].isprintable():
            raise UserError(f"{file}: name: expected printable characters, got {shorten(values['name'])}")
        return cls(**{**values, "genome": tuple(values["genome"]), "units": tuple(values.get("units", ()))})


def description_of(folder: Path) -> Path:
    """The file with the card of a model: config.json in an exported folder, else model.json."""
    file = folder / DESCRIPTION
    return folder / exported.CONFIG if not file.is_file() and (folder / exported.CONFIG).is_file() else file


def weights_of(folder: Path) -> Path:
    """The file with the weights of a model."""
    return folder / (WEIGHTS if description_of(folder).name == DESCRIPTION else exported.WEIGHTS)


def uses_both_strands(reverse_complement: str) -> bool:
    """True for the values of `reverse_complement` under which scores are averaged over both strands."""
    return reverse_complement in ("average", "equivariant")
