"""The contract of an exam: what a trained model is put to, and what comes of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from genoattn.evaluation.report import Sheet
from genoattn.files import write_json
from genoattn.models.predictor import Parts

FILE = "evidence.json"
"""Its name in a run folder."""


class Stratum(NamedTuple):
    """A figure over a part of the questions: those of one kind, or at distances of `low` to `high` bases."""

    by: str
    """What the parts differ in: distance, kind, delta, strand, length."""
    name: str
    """Of the part, such as 512–1024."""
    kind: str
    """The kind of mutation; empty: all."""
    low: float | None
    """Of a part that is a range, half-open; None: it is none."""
    high: float | None
    count: int
    """Questions: events, or queries."""
    value: float
    draws: tuple[float, ...]
    """The figure in every resample."""


@dataclass(frozen=True)
class Evidence:
    """Figures in resamples of genomic blocks; draw r is the same resample in every run with the same test set."""

    headline: str
    """The key of the figure by which runs are ranked, higher being better, such as test/auprc."""
    draws: Mapping[str, Sequence[float]]
    """By the key of a figure (the headline's at least), its value in every resample; NaN where it has none."""
    strata: Sequence[Stratum] = ()

    def write(self, folder: Path) -> None:
        """Leave evidence.json in a run folder."""
        strata = [
            {**one._asdict(), "value": _plain(one.value), "draws": [_plain(draw) for draw in one.draws]}
            for one in self.strata
        ]
        draws = {key: [_plain(draw) for draw in values] for key, values in self.draws.items()}
        write_json(folder / FILE, {"headline": self.headline, "draws": draws, "strata": strata})


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


@dataclass(frozen=True)
class Contestant:
    """A model that sits an exam: the first is the one the run is about, others stand beside it."""

    key: str
    """attention, control, untrained or before: what it is to the run."""
    name: str
    parts: Parts
    kept: Mapping[str, Any] = field(default_factory=dict)
    """What an earlier exam found and its model keeps, such as thresholds; empty: this exam finds it."""


@dataclass(frozen=True)
class Outcome:
    """What an exam found."""

    figures: dict[str, int | float]
    """Flat keys for metrics.json; those of the model that the run is about begin with test/."""
    sheets: Sequence[Sheet]
    plots: Mapping[str, Callable[[Path], None]]
    """By name, what draws a file."""
    kept: Mapping[str, Mapping[str, Any]]
    """By the contestant's key, what its model is to keep, as plain values."""
    evidence: Evidence | None = None
    """What a comparison of runs needs of the model that the run is about; None: runs of this kind are not compared."""


class Exam(ABC):
    """Questions with known answers, drawn once and put to every contestant."""

    @abstractmethod
    def hold(self, contestants: Sequence[Contestant]) -> Outcome:
        """Put every contestant to all of it."""
