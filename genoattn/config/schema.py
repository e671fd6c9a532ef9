"""What every run has, as dataclasses: the settings that no constructor's signature describes, with their bounds."""

from dataclasses import dataclass
from typing import Annotated, Literal

from genoattn.config.validate import Between, Node

Count = Annotated[int, Between(minimum=1)]


Share = Annotated[float, Between(minimum=0, maximum=1)]


Seed = Annotated[int, Between(minimum=0, maximum=2**32 - 1)]  # what numpy takes


Strands = Literal["none", "augment", "average", "equivariant"]


@dataclass(frozen=True)
class Train:
    """What every training run has."""

    seed: Seed
    reverse_complement: Strands
    data: Node
    trainer: Node
    test: Node
    heads: Node
    attention: Node
    control: Node | None
    tokenizer: Node
    task: Node
    curriculum: Node
    model: Node
    optimizer: Node
    schedule: Node
    logger: dict


@dataclass(frozen=True)
class Finetune:
    """What every fine-tuning run has."""

    checkpoint: str
    finetune: Node
    lora: Node
    seed: Seed
    reverse_complement: Strands | None
    data: Node
    trainer: Node
    test: Node
    task: Node | None
    curriculum: Node
    optimizer: Node
    schedule: Node
    logger: dict


@dataclass(frozen=True)
class Budget:
    """`budget`, `sweep`: how long every run of a comparison is, in one of three units."""

    steps: Count | None
    bases: Count | None
    seconds: Annotated[float, Between(above=0)] | None


@dataclass(frozen=True)
class Limit:
    """`cost_limit`: what the recommended layer may cost."""

    seconds: Annotated[float, Between(above=0)] | None
    bytes: Annotated[float, Between(above=0)] | None


@dataclass(frozen=True)
class Compare(Train):
    """What every comparison has."""

    layers: list[str]
    variants: dict
    learning_rates: list[Annotated[float, Between(above=0)]]
    seeds: list[Seed]
    budget: Budget
    sweep: Budget
    match_size: Literal["parameters", "flops"] | None
    extrapolate: list[Annotated[int, Between(minimum=2)]]
    cost_lengths: list[Count]
    cost_limit: Limit
    hypotheses: str | None
    report: str | None
    name: str


@dataclass(frozen=True)
class Plan(Train):
    """What every plan of a training run has."""

    measure: bool
    available_memory: str | None


@dataclass(frozen=True)
class LabelledFile:
    """`task` of an evaluation: another file of labelled variants."""

    file: str | None
    label: str | None


@dataclass(frozen=True)
class Evaluate:
    """What every evaluation has."""

    seed: Seed
    reverse_complement: Strands | None
    checkpoint: str
    task: LabelledFile
    data: Node
    test: Node


@dataclass(frozen=True)
class Context:
    """What every look at a model's context has."""

    seed: Seed
    reverse_complement: Strands | None
    checkpoint: str
    windows: Count
    positions: Count
    relative_threshold: Annotated[float, Between(above=0, maximum=1)]
    data: Node


@dataclass(frozen=True)
class Audit:
    """What every audit of a tokenizer has."""

    seed: Seed
    checkpoint: str | None
    data: Node
    tokenizer: Node
    test: Node


@dataclass(frozen=True)
class Doctor:
    """What every examination of a layer has."""

    heads: Node
    attention: Node
    dim: Count


@dataclass(frozen=True)
class Kernels:
    """What every look at the kernels has."""

    all: bool
    family: Literal["sm_80", "sm_86", "sm_90", "sm_100", "gfx942"] | None
    update: bool
    choices: bool


SPINE: dict[str, type] = {
    "train": Train,
    "finetune": Finetune,
    "compare": Compare,
    "plan": Plan,
    "evaluate": Evaluate,
    "context": Context,
    "tokenizer": Audit,
    "doctor": Doctor,
    "kernels": Kernels,
}
