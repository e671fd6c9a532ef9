"""The recipe that all models of a run share: data, budget, optimiser, curriculum and seeds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import nn
from torch.optim import Optimizer

from genoattn.data.curriculum import Curriculum
from genoattn.data.settings import DataSettings
from genoattn.models.card import uses_both_strands
from genoattn.training.schedule import WarmupCosine
from genoattn.training.settings import TrainerSettings

OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]

ReverseComplement: TypeAlias = Literal["none", "augment", "average", "equivariant"]
"""Use of the other strand: none; half of the examples; half, and both scored; both in one equivariant model."""


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything that the model of a run and its control share, so that only the layer differs."""

    data: DataSettings
    trainer: TrainerSettings
    curriculum: Curriculum
    optimizer: OptimizerFactory
    schedule: WarmupCosine
    seed: int
    validation_seed: int
    reverse_complement: ReverseComplement = "none"

    @property
    def scores_both_strands(self) -> bool:
        """True if the scores of the model are averaged over both strands."""
        return uses_both_strands(self.reverse_complement)
