"""What is easier at the start of training: more mutations, other kinds, shorter windows, moving to the task's own."""

from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import NamedTuple

from genoattn.errors import UserError
from genoattn.genome.simulate import Rates


class CurriculumStage(NamedTuple):
    """Where training stands: the rates at which to mutate and the length of a window in bases."""

    rates: Rates
    length: int


@dataclass(frozen=True)
class Curriculum:
    """Values at the first step, each on its way to the task's own, reached at the share `until` of training.

    Shares and rates move in a straight line, the length by equal factors. None leaves a value as the task has it.
    """

    until: float = 0.6
    rate: float | None = None
    snv: float | None = None
    mnv: float | None = None
    insertion: float | None = None
    deletion: float | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise UserError(f"curriculum.until must be a share of training above 0 and at most 1, got {self.until}")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise UserError(f"curriculum.rate must be events per base between 0 and 1, got {self.rate}")
        for name in ("snv", "mnv", "insertion", "deletion"):
            share = getattr(self, name)
            if share is not None and not (isfinite(share) and share >= 0):
                raise UserError(f"curriculum.{name} must be a number of at least 0, got {share}")
        if self.length is not None and self.length < 1:
            raise UserError(f"curriculum.length must be at least 1 base, got {self.length}")

    def at(self, progress: float, rates: Rates, length: int) -> CurriculumStage:
        """The stage at `progress` (0 at the first step, 1 at the last) of a task with these true rates and length."""
        left = max(0.0, 1 - progress / self.until)
        if left == 0:
            return CurriculumStage(rates, length)
        moved = {
            field.name: true + left * (start - true)
            for field in fields(Rates)
            if (start := getattr(self, field.name, None)) is not None
            and (true := getattr(rates, field.name)) is not None
        }
        shorter = length if self.length is None else round(length * (min(self.length, length) / length) ** left)
        return CurriculumStage(replace(rates, **moved), shorter)
