"""Settings of the config group `test`: the fixed test set and the bootstrap."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le


@dataclass(frozen=True)
class TestSettings:
    """The fixed test set of simulated mutations; `conf/test/standard.yaml` explains every field.

    Rates are events per base; kinds are shares of the events.
    """

    windows: Annotated[int, Ge(1)] = 400
    rate: Annotated[int | float, Ge(0), Le(1)] = 0.02
    snv: Annotated[int | float, Ge(0), Le(1)] = 0.7
    mnv: Annotated[int | float, Ge(0), Le(1)] = 0.0
    insertion: Annotated[int | float, Ge(0), Le(1)] = 0.15
    deletion: Annotated[int | float, Ge(0), Le(1)] = 0.15
    longest: Annotated[int, Ge(1)] = 3
    transitions: Annotated[int | float, Ge(0)] = 2.0
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 8325
    threshold_windows: Annotated[int, Ge(1)] = 200
    resamples: Annotated[int, Ge(1)] = 200
    average_frames: bool = False
