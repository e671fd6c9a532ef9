"""Settings of an evaluation: the config group `test`, and `data` of the programs that open a saved model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from genoattn.data.settings import DataSettings


@dataclass(frozen=True)
class TestSettings:
    """The fixed test set of simulated mutations; `conf/test/standard.yaml` explains every field.

    Rates are events per base; kinds are shares of the events.
    """

    windows: Annotated[int, Ge(1)] = 400
    lengths: Sequence[Annotated[int, Ge(1)]] | None = None
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
    context: Sequence[Annotated[int, Ge(2)]] | None = None
    average_frames: bool = False
    placement: Literal["vcf", "anchors", "both"] = "anchors"


@dataclass(frozen=True)
class EvaluationData(DataSettings):
    """`data` of a program that opens a saved model: by default windows have the length that it was trained at."""

    length: Annotated[int, Ge(1)] | None = None  # type: ignore[assignment]

    def at(self, trained_length: int) -> DataSettings:
        """The data settings with a definite length; prints which one if it is not the one of training."""
        if self.length not in (None, trained_length):
            print(f"windows of {self.length} bases; the model was trained on windows of {trained_length} bases")
        elif self.length is None:
            print(f"windows of {trained_length} bases, as in training")
        return DataSettings(**{**asdict(self), "length": self.length or trained_length})
