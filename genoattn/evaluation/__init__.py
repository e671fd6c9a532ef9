"""How a trained model is examined: one file a kind of task."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genoattn.data.settings import DataSettings
    from genoattn.data.source import DataSource
    from genoattn.data.tasks.base import Task
    from genoattn.evaluation.base import Evaluator
    from genoattn.evaluation.settings import TestSettings

EVALUATORS = {
    "classification": "variant_classification.VariantClassificationEvaluator",
    "detection": "detection.evaluator.MutationDetectionEvaluator",
    "language": "language_modeling.LanguageModelEvaluator",
    "retrieval": "associative_recall.AssociativeRecallEvaluator",
}
"""Imported late: the check of a config imports `evaluation.settings`, and must not wait for torch."""


def build_evaluator(
    source: DataSource, data: DataSettings, test: TestSettings, task: Task, strands: bool, known: bool
) -> Evaluator:
    """The exam that goes with a task; what is wrong with its material is found now, before the long work.

    `strands` averages over both strands; `known` says that the genome's test blocks were held out from training.
    """
    module, _, name = EVALUATORS[task.evaluator].rpartition(".")
    evaluator: Callable[..., Evaluator] = getattr(import_module(f"genoattn.evaluation.{module}"), name)
    return evaluator(source, data, test, task, strands, known)
