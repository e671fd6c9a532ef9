"""The contract of an evaluator: one held-out test set for every candidate model, and the result."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.example import Example
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource, build_dataset
from genoattn.data.tasks.base import Task
from genoattn.evaluation.metrics import MetricKey, Metrics, Replicates
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.simulate import Rates
from genoattn.models.predictor import Predictor

Values = TypeVar("Values")

TEST = "test"
"""The key of the test set in held-out blocks of the genome."""


@dataclass(frozen=True)
class Candidate:
    """A model under evaluation; the first candidate is the model of the run."""

    key: str
    """model, control, untrained, pretrained or zero_shot: the first part of its metrics' keys."""
    name: str
    """The name in tables and plots, such as the layer's."""
    predictor: Predictor
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Values from an earlier evaluation, such as thresholds; empty: the evaluator determines them."""


@dataclass(frozen=True)
class Answers(Generic[Values]):
    """The answers of one model or baseline, or their scores."""

    key: str
    name: str
    values: Values


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics, tables and plots of an evaluation."""

    metrics: Metrics
    tables: Sequence[Table]
    plots: Mapping[str, Callable[[Path], None]]
    """By name, a function that draws the plot into a PNG file."""
    primary: MetricKey
    """The metric by which runs are compared."""
    calibration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By candidate key, plain values for its model card, such as thresholds; none: the task needs no calibration."""
    replicates: Replicates | None = None
    """Bootstrap replicates for a comparison of runs; None if the task supports no comparison."""


class Evaluator(ABC):
    """A fixed test set for one kind of task; every candidate gets the same examples."""

    primary: ClassVar[MetricKey]
    """The metric by which runs are compared."""

    @abstractmethod
    def __init__(
        self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool
    ) -> None:
        """Draw the test set; `both_strands` averages the outputs of both strands."""

    @abstractmethod
    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        """Evaluate every candidate, and the baselines of the task, on the whole test set."""


def fixed_windows(
    split: str, count: int, source: DataSource, data: DataSettings, test: TestSettings, task: Task, rates: Rates
) -> list[Example]:
    """The first `count` windows of a split (validation or test) at the seed and full length of the test set."""
    dataset = build_dataset(source, split, data, task, test.seed, 1, Curriculum())
    return [dataset.example(number, CurriculumStage(rates, data.length)) for number in range(count)]
