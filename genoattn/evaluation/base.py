"""The contract of an exam: what a trained model is put to, and what comes of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from genoattn.evaluation.report import Table
from genoattn.files import write_json
from genoattn.models.predictor import Predictor

FILE = "bootstrap.json"
"""Its name in a run folder."""


class Subgroup(NamedTuple):
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
    replicates: tuple[float, ...]
    """The figure in every resample."""


@dataclass(frozen=True)
class Replicates:
    """Figures in resamples of genomic blocks; draw r is the same resample in every run with the same test set."""

    primary_metric: str
    """The key of the figure by which runs are ranked, higher being better, such as test/auprc."""
    replicates: Mapping[str, Sequence[float]]
    """By the key of a figure (the headline's at least), its value in every resample; NaN where it has none."""
    subgroups: Sequence[Subgroup] = ()

    def write(self, folder: Path) -> None:
        """Leave bootstrap.json in a run folder."""
        subgroups = [
            {**group._asdict(), "value": _plain(group.value), "replicates": [*map(_plain, group.replicates)]}
            for group in self.subgroups
        ]
        replicates = {key: [*map(_plain, values)] for key, values in self.replicates.items()}
        plain = {"primary_metric": self.primary_metric, "replicates": replicates, "subgroups": subgroups}
        write_json(folder / FILE, plain)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


@dataclass(frozen=True)
class Candidate:
    """A model that sits an exam: the first is the one the run is about, others stand beside it."""

    key: str
    """attention, control, untrained or before: what it is to the run."""
    name: str
    predictor: Predictor
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """What an earlier exam found and its model keeps, such as thresholds; empty: this exam finds it."""


@dataclass(frozen=True)
class EvaluationResult:
    """What an exam found."""

    metrics: dict[str, int | float]
    """Flat keys for metrics.json; those of the model that the run is about begin with test/."""
    tables: Sequence[Table]
    plots: Mapping[str, Callable[[Path], None]]
    """By name, what draws a file."""
    calibration: Mapping[str, Mapping[str, Any]]
    """By the contestant's key, what its model is to keep, as plain values."""
    replicates: Replicates | None = None
    """What a comparison of runs needs of the model that the run is about; None: runs of this kind are not compared."""


class Evaluator(ABC):
    """Questions with known answers, drawn once and put to every contestant."""

    @abstractmethod
    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        """Put every contestant to all of it."""
