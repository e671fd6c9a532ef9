"""The report of training for a saved model: on the bundled genome, or on another genome and its variants."""

from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.values import value_of
from genoattn.data.source import describe_source, open_data_source
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.evaluation import build_evaluator
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import write_report
from genoattn.models import cost
from genoattn.models.build import build_model, load_predictor
from genoattn.models.checkpoint import find_model, read_description


def main(config: DictConfig) -> None:
    """Load a model, and the control and pretrained model of its run, evaluate them on a genome, and report."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    home = find_model(Path(config.checkpoint))
    about = read_description(home)
    parts = load_predictor(home, about)
    set_labelled_file(parts.task, config.task.file, config.task.label)
    data, test = value_of(config.data).at(about["length"]), value_of(config.test)
    source = open_data_source(data, parts.task, config.seed, about)
    describe_source(source)
    if not source.trained_on:
        print("this is not the genome that the model was trained on: all of it is held out")
    strands = (config.reverse_complement or about["reverse_complement"]) in ("average", "equivariant")
    evaluator = build_evaluator(source, data, test, parts.task, strands)

    candidates = [Candidate("model", str(about["name"]), parts, about["kept"])]
    for key in ("control", "pretrained"):
        beside = home.parent / key / "model"
        if beside.is_dir():
            other = read_description(beside)
            candidates.append(Candidate(key, str(other["name"]), load_predictor(beside, other), other["kept"]))
    torch.manual_seed(about["seed"])
    candidates.append(
        Candidate("untrained", "untrained", build_model(about, parts.task, parts.tokenizer), about["untrained"])
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for candidate in candidates:
        candidate.predictor.model.to(device)
    result = evaluator.evaluate(candidates)

    metrics = result.metrics + Metrics(costs=cost.predicted_cost(parts.model, data.length))
    if result.replicates:
        result.replicates.write(folder)
    write_report(folder, result.tables, metrics, result.plots)
    print(f"run folder: {folder}")


def set_labelled_file(task: Task, file: str | None, label: str | None) -> None:
    """Have a task read another file of labelled variants, or another label; None leaves that of training."""
    if file is None and label is None:
        return
    if not isinstance(task, VariantClassification):
        given = f"task.file={file}" if label is None else f"task.label={label}"
        raise UserError(f"{given} is for models of task=variant; this model was trained for {type(task).__name__}")
    task.file, task.label = file or task.file, label or task.label
