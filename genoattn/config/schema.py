"""Settings of each program, with their bounds: the keys of a config that belong to no constructor's signature."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

Count = Annotated[int, Ge(1)]
Devices = Count | Literal["auto"]
Positive = Annotated[float, Gt(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # the range that numpy takes
ReverseComplement = Literal["none", "augment", "average", "equivariant"]


def _with_target(value: Any) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        return value
    raise PydanticCustomError("target", "a mapping with a _target_")


Target = Annotated[Any, AfterValidator(_with_target)]
"""A node that Hydra builds: a mapping whose `_target_` names a class or a function."""


class Settings(BaseModel):
    """Settings of a program, or of one of its groups. Numbers and words are not converted into each other."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class Recipe(Settings):
    """Settings of every program that trains."""

    seed: Seed
    data: Target
    trainer: Target
    test: Target
    curriculum: Target
    optimizer: Target
    schedule: Target
    logger: dict[str, Target]


class Train(Recipe):
    reverse_complement: ReverseComplement
    heads: Target
    attention: Target
    control: Target | None
    tokenizer: Target
    task: Target
    model: Target


class Finetune(Recipe):
    checkpoint: str
    trust: list[str]
    finetune: Target
    lora: Target
    reverse_complement: ReverseComplement | None
    task: Target | None


class Budget(Settings):
    """`budget` and `sweep` of a comparison: the length of each run, in one of three units."""

    steps: Count | None
    bases: Count | None
    seconds: Positive | None


class CostLimit(Settings):
    """`cost_limit` of a comparison: the cost that the recommended layer may have."""

    seconds: Positive | None
    bytes: Positive | None


class TakeOff(Settings):
    """`take_off` of a comparison: the validation accuracy from which a run of a ladder has begun to learn."""

    length: Count | None
    accuracy: Annotated[float, Gt(0), Le(1)]


class Compare(Train):
    layers: list[str]
    variants: dict[str, list[str]]
    learning_rates: list[Positive]
    seeds: list[Seed]
    budget: Budget
    sweep: Budget
    match_size: Literal["parameters", "flops"] | None
    extrapolate: list[Annotated[int, Ge(2)]]
    cost_lengths: list[Count]
    cost_limit: CostLimit
    ladder: list[Count]
    ladder_ceiling: Annotated[float, Gt(0), Le(1)]
    take_off: TakeOff
    former: str | None
    hypotheses: str | None
    again: bool | list[str]
    report: str | None
    name: str


class Plan(Train):
    measure: bool
    capacity: list[Count]
    devices: list[Count]
    available_memory: str | None


class LabelledFile(Settings):
    """`task` of an evaluation: another file of labelled variants."""

    file: str | None
    label: str | None


class SavedModel(Settings):
    """Settings of every program that applies a saved model."""

    seed: Seed
    reverse_complement: ReverseComplement | None
    checkpoint: str
    trust: list[str]
    data: Target


class Evaluate(SavedModel):
    task: LabelledFile
    test: Target
    devices: Devices


class Context(SavedModel):
    windows: Count
    positions: Count
    relative_threshold: Annotated[float, Gt(0), Le(1)]


class Detect(Settings):
    checkpoint: str
    reference: str | list[str]
    sample: str | list[str]
    out: str
    truth: str | None
    truth_regions: str | None
    track: bool
    all: bool
    threshold: Annotated[float, Ge(0), Le(1)]
    min_placed: Annotated[float, Ge(0), Le(1)]
    reverse_complement: ReverseComplement | None
    devices: Devices
    shards: Count
    shard: str | None
    parts: str | None
    trust: list[str]


class Score(Settings):
    checkpoint: str
    fasta: str | list[str]
    vcf: str
    out: str
    ref_policy: Literal["error", "skip", "flip"]
    length: Annotated[int, Ge(2)] | None
    both_strands: bool | None
    embeddings: bool
    batch: Count
    devices: Devices
    shards: Count
    shard: str | None
    parts: str | None
    trust: list[str]


class Scan(Settings):
    checkpoint: str
    fasta: str | list[str]
    region: str
    out: str
    length: Annotated[int, Ge(2)] | None
    both_strands: bool | None
    batch: Count
    devices: Devices
    shards: Count
    shard: str | None
    parts: str | None
    trust: list[str]


class Export(Settings):
    checkpoint: str
    out: str
    trust: list[str]


class TokenizerReport(Settings):
    seed: Seed
    checkpoint: str | None
    trust: list[str]
    data: Target
    tokenizer: Target
    test: Target


class CheckLayer(Settings):
    heads: Target
    attention: Target
    dim: Count


class Kernels(Settings):
    all: bool
    family: Literal["sm_80", "sm_86", "sm_90", "sm_100", "gfx942"] | None
    update: bool
    choices: bool
    tune: bool


class Models(Settings):
    pass


SCHEMAS: dict[str, type[Settings]] = {
    "train": Train,
    "finetune": Finetune,
    "compare": Compare,
    "plan": Plan,
    "evaluate": Evaluate,
    "context": Context,
    "detect": Detect,
    "models": Models,
    "score": Score,
    "scan": Scan,
    "export": Export,
    "tokenizer-report": TokenizerReport,
    "check-layer": CheckLayer,
    "kernels": Kernels,
}
"""The settings of each program, by its name."""
