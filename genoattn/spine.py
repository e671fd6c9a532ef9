"""What every run has, as dataclasses: the settings that no constructor's signature describes, with their bounds."""

from dataclasses import dataclass
from typing import Annotated, Literal

from genoattn.signature import Between, Node

Count = Annotated[int, Between(minimum=1)]
Share = Annotated[float, Between(minimum=0, maximum=1)]
Seed = Annotated[int, Between(minimum=0, maximum=2**32 - 1)]  # what numpy takes


@dataclass(frozen=True)
class Nothing:
    """A choice whose yaml is empty."""


@dataclass(frozen=True)
class Data:
    """`data`: which genome, and how it is cut into examples; lengths in bases."""

    fasta: str | list[str] | None
    vcf: str | list[str] | None
    length: Count
    batch: Count
    split: Literal["block", "record"]
    soft_mask: Literal["use", "hide"]
    max_unknown: Share
    validation_windows: Count
    cache: str | None
    workers: Annotated[int, Between(minimum=0)]


@dataclass(frozen=True)
class Trainer:
    """`trainer`: how long and on what; steps are the optimiser's."""

    max_steps: Count
    max_seconds: Annotated[float, Between(above=0)] | None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Count | Literal["auto"]
    precision: Literal["32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed"]
    accumulate: Count
    clip: Annotated[float, Between(minimum=0)]
    validate_every: Count
    log_every: Count
    resume: str | None
    threads: Count | None


@dataclass(frozen=True)
class Test:
    """`test`: the fixed test set of planted mutations; rates are events a base, kinds are shares of them."""

    windows: Count
    rate: Share
    snv: Share
    mnv: Share
    insertion: Share
    deletion: Share
    longest: Count
    transitions: Annotated[float, Between(minimum=0)]
    seed: Seed
    threshold_windows: Count
    resamples: Count


@dataclass(frozen=True)
class Train:
    """What every training run has."""

    seed: Seed
    data: Data
    trainer: Trainer
    test: Test
    attention: Node
    control: Node | None
    tokenizer: Node
    task: Node
    curriculum: Node
    model: Node
    optimizer: Node
    schedule: Node
    logger: Node | Nothing


@dataclass(frozen=True)
class Evaluate:
    """What every evaluation has."""

    seed: Seed
    checkpoint: str
    data: Data
    test: Test


@dataclass(frozen=True)
class Doctor:
    """What every examination of a layer has."""

    attention: Node
    dim: Count


SPINE: dict[str, type] = {"train": Train, "evaluate": Evaluate, "doctor": Doctor}
