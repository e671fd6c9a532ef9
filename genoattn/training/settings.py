"""Settings of the config groups `trainer` and `lora`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True)
class TrainerSettings:
    """Budget, device and logging of a training run; `conf/trainer/default.yaml` explains every field.

    Steps are steps of the optimiser.
    """

    max_steps: Annotated[int, Ge(1)] = 600
    max_seconds: Annotated[int | float, Gt(0)] | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Annotated[int, Ge(1)] | Literal["auto"] = 1
    precision: Literal["32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed"] = "32-true"
    accumulate_batches: Annotated[int, Ge(1)] = 1
    gradient_clip: Annotated[int | float, Ge(0)] = 1.0
    validate_every: Annotated[int, Ge(1)] = 100
    log_every: Annotated[int, Ge(1)] = 1
    resume: str | None = None
    threads: Annotated[int, Ge(1)] | None = None
    memory_check: bool = True


@dataclass(frozen=True)
class LoraSettings:
    """Adapters of low rank on linear layers, weighted by alpha / rank (Hu et al. 2021)."""

    rank: Annotated[int, Ge(1)] = 8
    alpha: Annotated[int | float, Gt(0)] = 16
    dropout: Annotated[int | float, Ge(0), Le(0.99)] = 0.0
