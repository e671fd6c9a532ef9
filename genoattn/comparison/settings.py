"""The settings of a comparison as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge

from genoattn.data.settings import DataSettings

Number: TypeAlias = int | float
Unit: TypeAlias = Literal["seconds", "bytes"]


@dataclass(frozen=True)
class ComparedData(DataSettings):
    """`data` of a comparison: `length` may be a list."""

    length: Annotated[int, Ge(1)] | Sequence[Annotated[int, Ge(1)]] = 512  # type: ignore[assignment]


@dataclass(frozen=True)
class Budget:
    """The length of a training run, in one of three units."""

    steps: int | None = None
    bases: int | None = None
    seconds: Number | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of a layer, or a limit on it; None: not known, or no limit."""

    seconds: Number | None = None
    """Time to read a million bases."""
    bytes: Number | None = None
    """Memory that training adds to the process."""

    def amount(self, unit: Unit) -> Number | None:
        """The cost in one of its units."""
        return self.seconds if unit == "seconds" else self.bytes


NO_LIMIT = Cost()


@dataclass(frozen=True)
class TakeOff:
    """The validation accuracy from which a run of a ladder counts as having begun to learn."""

    length: int | None = None
    """Sample bases of the windows; None: the shortest length of the ladder."""
    accuracy: Number = 0.6


@dataclass(frozen=True)
class ComparisonSettings:
    """The settings of `genoattn compare` that no training run has (see conf/compare.yaml)."""

    name: str
    task: str
    layers: tuple[str, ...]
    lengths: tuple[int, ...]
    learning_rates: tuple[Number, ...]
    seeds: tuple[int, ...]
    budget: Budget
    sweep: Budget
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    match_size: Literal["parameters", "flops"] | None = None
    extrapolate: tuple[int, ...] = ()
    cost_lengths: tuple[int, ...] = ()
    cost_limit: Cost = NO_LIMIT
    hypotheses: str | None = None
    """The user's expectations, written before the runs."""
    ladder: tuple[int, ...] = ()
    """Lengths of the mixture that every layer is trained on, and at which it is tested; empty: no ladder."""
    ladder_ceiling: Number = 1.0
    take_off: TakeOff = TakeOff()
    spread: Number | None = None
    """Standard deviation of seeds in an earlier comparison; None: not known before the runs."""

    def tested(self, length: int) -> tuple[int, ...]:
        """The lengths at which models of a training length are tested, that length included."""
        return tuple(sorted({length, *self.ladder, *(factor * length for factor in self.extrapolate)}))
