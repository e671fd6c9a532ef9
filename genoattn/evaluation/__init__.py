"""How a trained model is examined: one file a kind of task."""

from omegaconf import DictConfig

from genoattn.data.source import Source
from genoattn.data.tasks.base import Task
from genoattn.evaluation.associative_recall import Retrieval
from genoattn.evaluation.base import Exam
from genoattn.evaluation.detection.evaluator import Detection
from genoattn.evaluation.language_modeling import Language
from genoattn.evaluation.variant_classification import Classification

EXAMS = {"classification": Classification, "detection": Detection, "language": Language, "retrieval": Retrieval}


def open_exam(source: Source, data: DictConfig, test: DictConfig, task: Task, strands: bool, known: bool) -> Exam:
    """The exam that goes with a task; what is wrong with its material is found now, before the long work.

    `strands` averages over both strands; `known` says that the genome's test blocks were held out from training.
    """
    return EXAMS[task.exam](source, data, test, task, strands, known)
