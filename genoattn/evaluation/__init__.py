"""Evaluation: a fixed test set per task, the same for every model and baseline, with bootstrap intervals."""

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.errors import UserError
from genoattn.evaluation.associative_recall import AssociativeRecallEvaluator
from genoattn.evaluation.base import Evaluator
from genoattn.evaluation.detection.evaluator import MutationDetectionEvaluator
from genoattn.evaluation.language_modeling import LanguageModelEvaluator
from genoattn.evaluation.settings import TestSettings
from genoattn.evaluation.variant_classification import VariantClassificationEvaluator

EVALUATORS: dict[str, type[Evaluator]] = {
    "classification": VariantClassificationEvaluator,
    "detection": MutationDetectionEvaluator,
    "language": LanguageModelEvaluator,
    "retrieval": AssociativeRecallEvaluator,
}


def build_evaluator(
    source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool
) -> Evaluator:
    """Build the evaluator of a task, with its test set.

    Args:
        source: The genome, its splits and VCFs; its test blocks are held out from training.
        data: Lengths of the test windows.
        test: Size and rates of the test set, and the number of resamples.
        task: The task of the models.
        both_strands: Average the outputs of both strands.

    Raises:
        UserError: If the data does not suit the task.
    """
    if data.vcf and not isinstance(task, MutationDetection):
        raise UserError(
            f"data.vcf={data.vcf} has mutations to detect, but {type(task).__name__} is no task of mutation detection;"
            " leave data.vcf out"
        )
    return EVALUATORS[task.evaluator](source, data, test, task, both_strands)
