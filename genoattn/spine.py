"""What every run has, as dataclasses: the settings that no constructor's signature describes, with their bounds."""

from dataclasses import dataclass
from typing import Annotated, Literal

from genoattn.signature import Between, Node


@dataclass(frozen=True)
class Data:
    """`data`: which genome, and how it is cut into examples; lengths in bases."""

    fasta: str | list[str] | None
    vcf: str | list[str] | None
    length: Annotated[int, Between(minimum=1)]
    batch: Annotated[int, Between(minimum=1)]
    split: Literal["block", "record"]
    soft_mask: Literal["use", "hide"]
    max_unknown: Annotated[float, Between(minimum=0, maximum=1)]
    cache: str | None
    workers: Annotated[int, Between(minimum=0)]


@dataclass(frozen=True)
class Trainer:
    """`trainer`: how long and on what; steps are the optimiser's."""

    max_steps: Annotated[int, Between(minimum=0)]
    max_seconds: Annotated[float, Between(above=0)] | None
    accelerator: str
    devices: int | str
    precision: str | int
    accumulate: Annotated[int, Between(minimum=1)]
    clip: Annotated[float, Between(minimum=0)]
    validate_every: Annotated[int, Between(minimum=1)]
    log_every: Annotated[int, Between(minimum=1)]
    resume: str | None
    threads: Annotated[int, Between(minimum=1)] | None


@dataclass(frozen=True)
class Train:
    """What every training run has."""

    seed: Annotated[int, Between(minimum=0)]
    data: Data
    trainer: Trainer
    attention: Node | list[Node]
    tokenizer: Node
    task: Node
    model: Node
    optimizer: Node
    logger: Node | None


@dataclass(frozen=True)
class Evaluate:
    """What every evaluation has."""

    seed: Annotated[int, Between(minimum=0)]
    checkpoint: str
    data: Data
    trainer: Trainer


SPINE: dict[str, type] = {"train": Train, "evaluate": Evaluate}
