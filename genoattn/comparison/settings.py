"""Settings that a comparison takes where a run takes one value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from genoattn.data.settings import DataSettings


@dataclass(frozen=True)
class ComparedData(DataSettings):
    """`data` of a comparison: `length` may be a list."""

    length: Annotated[int, Ge(1)] | Sequence[Annotated[int, Ge(1)]] = 512  # type: ignore[assignment]
