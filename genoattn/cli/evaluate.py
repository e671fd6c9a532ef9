"""The report of training for a saved model: on the genome that ships, or on another genome and its variants."""

from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.values import value_of
from genoattn.data.source import describe_source, open_data_source
from genoattn.evaluation import build_evaluator
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.report import write_report
from genoattn.models import cost
from genoattn.models.build import build_model, load_predictor
from genoattn.models.checkpoint import find_model, read_description, training_split


def main(config: DictConfig) -> None:
    """Load a model (and what stands beside it in its run), put it to the exam of a genome, and report."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    home = find_model(Path(config.checkpoint))
    about = read_description(home)
    parts = load_predictor(home, about)
    if config.data.length != about["length"]:
        print(f"data.length is {config.data.length}; the model was trained on windows of {about['length']}")
    data, test = value_of(config.data), value_of(config.test)
    source = open_data_source(data, parts.task, config.seed, training_split(about))
    print(describe_source(source))
    strands = (config.reverse_complement or about["reverse_complement"]) in ("average", "equivariant")
    exam = build_evaluator(source, data, test, parts.task, strands, source.trained_on)

    sitting = [Candidate("attention", str(about["name"]), parts, about["kept"])]
    for key in ("control", "before"):
        beside = home.parent / key / "model"
        if beside.is_dir():
            other = read_description(beside)
            sitting.append(Candidate(key, str(other["name"]), load_predictor(beside, other), other["kept"]))
    torch.manual_seed(about["seed"])
    sitting.append(
        Candidate("untrained", "untrained", build_model(about, parts.task, parts.tokenizer), about["untrained"])
    )
    outcome = exam.evaluate(sitting)

    predicted = cost.predicted_cost(parts.model, config.data.length)
    figures = outcome.metrics | {f"cost/{key}": value for key, value in predicted.items()}
    if outcome.replicates:
        outcome.replicates.write(folder)
    write_report(folder, outcome.tables, figures, outcome.plots)
    print(f"run folder: {folder}")
