"""What every run has, as dataclasses: the settings that no constructor's signature describes, with their bounds."""

from dataclasses import dataclass
from typing import Annotated, Literal

from genoattn.config.validate import Between, Node

Count = Annotated[int, Between(minimum=1)]


Share = Annotated[float, Between(minimum=0, maximum=1)]


Seed = Annotated[int, Between(minimum=0, maximum=2**32 - 1)]  # what numpy takes


Strands = Literal["none", "augment", "average", "equivariant"]


@dataclass(frozen=True)
class Nothing:
    """A choice whose yaml is empty."""


@dataclass(frozen=True)
class Data:
    """`data`: which genome, and how it is cut into examples; lengths in bases."""

    fasta: str | list[str] | None
    vcf: str | list[str] | None
    length: Count
    shortest: Count | None
    batch: Count
    split: Literal["block", "record"]
    soft_mask: Literal["use", "hide"]
    max_unknown: Share
    validation_windows: Count
    cache: str | None
    workers: Annotated[int, Between(minimum=0)]
    bucket: Count


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
    memory: Literal["check", "ignore"]


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
    phases: bool


@dataclass(frozen=True)
class Lora:
    """`lora`: adapters of low rank on linear layers."""

    rank: Count
    alpha: Annotated[float, Between(above=0)]
    dropout: Annotated[float, Between(minimum=0, maximum=0.99)]


@dataclass(frozen=True)
class Train:
    """What every training run has."""

    checkpoint: str | None
    tune: Literal["all", "head", "lora"]
    lora: Lora
    seed: Seed
    rc: Strands
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
class Lengths(Data):
    """`data` of a comparison."""

    length: Count | list[Count]


@dataclass(frozen=True)
class Budget:
    """`budget`, `sweep`: how long every run of a comparison is, in one of three units."""

    steps: Count | None
    bases: Count | None
    seconds: Annotated[float, Between(above=0)] | None


@dataclass(frozen=True)
class Limit:
    """`limit`: what the recommended layer may cost."""

    seconds: Annotated[float, Between(above=0)] | None
    bytes: Annotated[float, Between(above=0)] | None


@dataclass(frozen=True)
class Compare(Train):
    """What every comparison has."""

    data: Lengths
    layers: list[str]
    variants: dict
    learning_rates: list[Annotated[float, Between(above=0)]]
    seeds: list[Seed]
    budget: Budget
    sweep: Budget
    match: Literal["parameters", "flops"] | None
    extrapolate: list[Annotated[int, Between(minimum=2)]]
    costs: list[Count]
    limit: Limit
    expectations: str | None
    name: str


@dataclass(frozen=True)
class Plan(Train):
    """What every plan of a training run has."""

    measure: bool
    memory: str | None


@dataclass(frozen=True)
class Evaluate:
    """What every evaluation has."""

    seed: Seed
    rc: Strands | None
    checkpoint: str
    data: Data
    test: Test


@dataclass(frozen=True)
class Context:
    """What every look at a model's context has."""

    seed: Seed
    rc: Strands | None
    checkpoint: str
    windows: Count
    spots: Count
    threshold: Annotated[float, Between(above=0, maximum=1)]
    data: Data


@dataclass(frozen=True)
class Audit:
    """What every audit of a tokenizer has."""

    seed: Seed
    checkpoint: str | None
    data: Data
    tokenizer: Node
    test: Test


@dataclass(frozen=True)
class Doctor:
    """What every examination of a layer has."""

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
    "compare": Compare,
    "plan": Plan,
    "evaluate": Evaluate,
    "context": Context,
    "tokenizer": Audit,
    "doctor": Doctor,
    "kernels": Kernels,
}
