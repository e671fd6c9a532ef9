"""How a trained model is examined: one file a kind of task."""

from omegaconf import DictConfig

from genoattn.assemble import Source
from genoattn.exams.base import Exam
from genoattn.exams.classification import Classification
from genoattn.exams.detection import Detection
from genoattn.exams.language import Language
from genoattn.exams.retrieval import Retrieval
from genoattn.tasks.base import Task

EXAMS = {"classification": Classification, "detection": Detection, "language": Language, "retrieval": Retrieval}


def open_exam(source: Source, data: DictConfig, test: DictConfig, task: Task, strands: bool, known: bool) -> Exam:
    """The exam that goes with a task; what is wrong with its material is found now, before the long work.

    `strands` averages over both strands; `known` says that the genome's test blocks were held out from training.
    """
    return EXAMS[task.exam](source, data, test, task, strands, known)
