"""The contract of an exam: what a trained model is put to, and what comes of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genoattn.exams.evidence import Evidence
from genoattn.parts import Parts
from genoattn.report import Sheet


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
