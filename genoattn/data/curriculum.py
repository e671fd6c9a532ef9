"""A curriculum: training begins with other mutation rates or shorter windows and moves to those of the task."""

from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import NamedTuple

from genoattn.errors import UserError
from genoattn.genome.simulate import Rates


class CurriculumStage(NamedTuple):
    """The mutation rates and the length of a window, in bases, at some point of training."""

    rates: Rates
    length: int


@dataclass(frozen=True)
class Curriculum:
    """Rates and length at the first step (config group `curriculum`); None: as in the task from the start.

    Rates and shares move linearly to those of the task, the length geometrically. Raises UserError if a value is out of
    range.

    Attributes:
        until: Fraction of training after which the rates and the length are those of the task.
        rate: Mutations per base.
        snv: Share of substitutions of one base.
        mnv: Share of substitutions of several bases.
        insertion: Share of insertions.
        deletion: Share of deletions.
        length: Sample bases of a window.
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
        """The stage at `progress` (0: first step, 1: last step) for a task with these rates and this length."""
        left = max(0.0, 1 - progress / self.until)
        if left == 0:
            return CurriculumStage(rates, length)
        changed = {
            field.name: final + left * (start - final)
            for field in fields(Rates)
            if (start := getattr(self, field.name, None)) is not None
            and (final := getattr(rates, field.name)) is not None
        }
        shorter = length if self.length is None else round(length * (min(self.length, length) / length) ** left)
        return CurriculumStage(replace(rates, **changed), shorter)
