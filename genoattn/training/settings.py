"""Settings of training and fine-tuning: `trainer`, `finetune` and `lora` in the config."""

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
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    devices: Annotated[int, Ge(1)] = 1
    num_nodes: Annotated[int, Ge(1)] = 1
    sequence_parallel: Annotated[int, Ge(1)] = 1
    precision: Literal["auto", "32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed"] = "auto"
    sharded_checkpoints: bool = False
    accumulate_batches: Annotated[int, Ge(1)] = 1
    gradient_clip: Annotated[int | float, Ge(0)] = 1.0
    validate_every: Annotated[int, Ge(1)] = 100
    log_every: Annotated[int, Ge(1)] = 1
    resume: str | None = None
    requeue: bool = False
    threads: Annotated[int, Ge(1)] | None = None
    memory_check: bool = True

    @property
    def processes(self) -> int:
        """Processes of the run, one for each device."""
        return self.devices * self.num_nodes

    @property
    def shards(self) -> int:
        """Parts that the weights of a model are shared out in."""
        return self.processes if self.strategy == "fsdp" else 1


@dataclass(frozen=True)
class FinetuneSettings:
    """Weights that fine-tuning trains, and the activations that it recomputes; `conf/finetune.yaml` explains both."""

    mode: Literal["full", "head", "lora"] = "full"
    activation_checkpointing: Literal["none", "mlp", "block"] | None = None


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on linear layers, weighted by alpha / rank (Hu et al. 2021, arXiv:2106.09685)."""

    rank: Annotated[int, Ge(1)] = 8
    alpha: Annotated[int | float, Gt(0)] = 16
    dropout: Annotated[int | float, Ge(0), Le(0.99)] = 0.0
