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
