"""A curriculum: training begins with other mutation rates and moves to those of the task; windows may be shorter."""

from dataclasses import dataclass, fields, replace
from math import ceil, isfinite, log2
from typing import Literal, NamedTuple

from genoattn.errors import UserError
from genoattn.genome.simulate import Rates


class CurriculumStage(NamedTuple):
    """The mutation rates and the length of a window, in bases, at some point of training."""

    rates: Rates
    length: int


@dataclass(frozen=True)
class Curriculum:
    """Rates and length at the first step (config group `curriculum`); None: as in the task from the start.

    Rates and shares move linearly to those of the task. Raises UserError if a value is out of range.

    Attributes:
        until: Fraction of training after which the rates and the length are those of the task.
        rate: Mutations per base.
        snv: Share of substitutions of one base.
        mnv: Share of substitutions of several bases.
        insertion: Share of insertions.
        deletion: Share of deletions.
        length: Sample bases of a window.
        lengths: "grow": the length moves geometrically to that of the task. "mixed": until the end of training the
            length of each batch is drawn from `length`, twice `length`, … and that of the task.
    """

    until: float = 0.6
    rate: float | None = None
    snv: float | None = None
    mnv: float | None = None
    insertion: float | None = None
    deletion: float | None = None
    length: int | None = None
    lengths: Literal["grow", "mixed"] = "grow"

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
        if self.lengths == "mixed" and self.length is None:
            raise UserError("curriculum.lengths=mixed needs curriculum.length, the shortest of the lengths, got null")

    def at(self, progress: float, rates: Rates, length: int, chance: float = 0.0) -> CurriculumStage:
        """The stage at a point of training.

        Args:
            progress: 0 at the first step, 1 at the last.
            rates: The rates of the task.
            length: The length of the task.
            chance: A random number in [0, 1) that decides a mixed length.
        """
        left = max(0.0, 1 - progress / self.until)
        stage_length = self._length(progress, left, length, chance)
        if left == 0:
            return CurriculumStage(rates, stage_length)
        changed = {
            field.name: final + left * (start - final)
            for field in fields(Rates)
            if (start := getattr(self, field.name, None)) is not None
            and (final := getattr(rates, field.name)) is not None
        }
        return CurriculumStage(replace(rates, **changed), stage_length)

    def _length(self, progress: float, left: float, length: int, chance: float) -> int:
        """The length of a window; `left` is the share of the curriculum that is to come."""
        if self.length is None or progress >= 1:
            return length
        if self.lengths == "grow":
            return round(length * (min(self.length, length) / length) ** left)
        doublings = ceil(max(0.0, log2(length / self.length)))
        return min(self.length * 2 ** int(chance * (doublings + 1)), length)
