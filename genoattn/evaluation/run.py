"""Evaluation from Python: the evaluator of each task, and one call for a model."""

from dataclasses import replace

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource, open_data_source
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.data.tasks.conditional import Conditional
from genoattn.errors import UserError
from genoattn.evaluation.associative_recall import AssociativeRecallEvaluator
from genoattn.evaluation.base import Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.by_length import LengthsEvaluator, longest_window, windows_at
from genoattn.evaluation.conditional.evaluator import ConditionalEvaluator
from genoattn.evaluation.detection.evaluator import MutationDetectionEvaluator
from genoattn.evaluation.language_modeling import LanguageModelEvaluator
from genoattn.evaluation.settings import EvaluationData, TestSettings
from genoattn.evaluation.variant_classification import VariantClassificationEvaluator
from genoattn.evaluation.variant_scores import VariantScoreEvaluator
from genoattn.evaluation.window_classification import WindowClassificationEvaluator
from genoattn.evaluation.window_scores import WindowScoreEvaluator
from genoattn.models.predictor import Predictor
from genoattn.models.pretrained import PretrainedModel

EVALUATORS: dict[str, type[Evaluator]] = {
    "conditional": ConditionalEvaluator,
    "classification": VariantClassificationEvaluator,
    "detection": MutationDetectionEvaluator,
    "language": LanguageModelEvaluator,
    "retrieval": AssociativeRecallEvaluator,
    "windows": WindowClassificationEvaluator,
    "variant_score": VariantScoreEvaluator,
    "window_scores": WindowScoreEvaluator,
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
    if data.vcf and not isinstance(task, MutationDetection | Conditional):
        raise UserError(
            f"data.vcf={data.vcf} has mutations to detect, but {type(task).__name__} reads none; leave data.vcf out"
        )
    if isinstance(task, MutationDetection) and not source.vcfs:
        print("no data.vcf: only simulated mutations are tested")
    evaluator = EVALUATORS[task.evaluator](source, data, test, task, both_strands)
    at_lengths: dict[int, Evaluator] = {}
    for length in sorted({*(test.lengths or ())} - {data.length}):
        there, other = task.at_length(length), replace(data, length=length, min_length=None)
        if longest_window(source) < there.reference_length(length):
            print(f"test.lengths: {length} is left out; no test block holds a window of so many bases")
        else:
            fewer = replace(test, lengths=None, windows=windows_at(length, data, test))
            quiet = replace(source, vcfs=())
            at_lengths[length] = EVALUATORS[task.evaluator](quiet, other, fewer, there, both_strands)
    return LengthsEvaluator(evaluator, data.length, at_lengths) if test.lengths else evaluator


def evaluate(
    model: PretrainedModel | Predictor,
    data: DataSettings | None = None,
    test: TestSettings | None = None,
    seed: int = 0,
    both_strands: bool | None = None,
) -> EvaluationResult:
    """Evaluate a model beside the baselines of its task, as `genoattn evaluate` does.

    Args:
        model: A model from `genoattn.load`, or a predictor of your own.
        data: The genome, by default the bundled one; without `length`, windows are as long as those of training.
        test: Size and rates of the test set, and the number of bootstrap resamples.
        seed: Decides splits by record and by gene on a genome that the model was not trained on.
        both_strands: Average the outputs of both strands; None: as the model was trained.

    Returns:
        Metrics, tables, plots and bootstrap replicates; nothing is written.

    Raises:
        UserError: If the data does not suit the task, or a predictor comes without `data.length`.
    """
    data, test = data or EvaluationData(), test or TestSettings()
    if isinstance(model, Predictor):
        card, candidate = None, Candidate("model", "model", model)
    else:
        card = model.card
        candidate = Candidate("model", card.name, model.predictor, card.calibration)
        both_strands = card.scores_both_strands if both_strands is None else both_strands
    if isinstance(data, EvaluationData):
        trained_length = card.length if card else data.length
        if trained_length is None:
            raise UserError("data.length must be given: a predictor has no length of training")
        data = data.at(trained_length)
    task = candidate.predictor.task
    source = open_data_source(data, task, seed, card.training_split if card else None)
    evaluator = build_evaluator(source, data, test, task, bool(both_strands))
    return evaluator.evaluate([candidate])
