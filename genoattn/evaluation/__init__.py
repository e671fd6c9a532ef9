"""How a trained model is examined: one file a kind of task."""

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.evaluation.associative_recall import AssociativeRecallEvaluator
from genoattn.evaluation.base import Evaluator
from genoattn.evaluation.detection.evaluator import MutationDetectionEvaluator
from genoattn.evaluation.language_modeling import LanguageModelEvaluator
from genoattn.evaluation.settings import TestSettings
from genoattn.evaluation.variant_classification import VariantClassificationEvaluator

EVALUATORS = {
    "classification": VariantClassificationEvaluator,
    "detection": MutationDetectionEvaluator,
    "language": LanguageModelEvaluator,
    "retrieval": AssociativeRecallEvaluator,
}


def build_evaluator(
    source: DataSource, data: DataSettings, test: TestSettings, task: Task, strands: bool, known: bool
) -> Evaluator:
    """The exam that goes with a task; what is wrong with its material is found now, before the long work.

    `strands` averages over both strands; `known` says that the genome's test blocks were held out from training.
    """
    return EVALUATORS[task.evaluator](source, data, test, task, strands, known)
