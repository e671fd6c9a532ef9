"""The report of training for a saved model: on the genome that ships, or on another genome and its variants."""

from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.data.source import announce, open_source
from genoattn.evaluation import open_exam
from genoattn.evaluation.base import Contestant
from genoattn.evaluation.report import publish
from genoattn.models import cost
from genoattn.models.build import build, load
from genoattn.models.checkpoint import find_model, read_description


def main(config: DictConfig) -> None:
    """Load a model (and what stands beside it in its run), put it to the exam of a genome, and report."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    home = find_model(Path(config.checkpoint))
    about = read_description(home)
    parts = load(home, about)
    if config.data.length != about["length"]:
        print(f"data.length is {config.data.length}; the model was trained on windows of {about['length']}")
    source = open_source(config.data, parts.task, config.seed, about)
    announce(source)
    if not source.known:
        print("this is not the genome that the model was trained on: all of it is held out")
    strands = (config.rc or about["rc"]) in ("average", "equivariant")
    exam = open_exam(source, config.data, config.test, parts.task, strands, source.known)

    sitting = [Contestant("attention", str(about["name"]), parts, about["kept"])]
    for key in ("control", "before"):
        beside = home.parent / key / "model"
        if beside.is_dir():
            other = read_description(beside)
            sitting.append(Contestant(key, str(other["name"]), load(beside, other), other["kept"]))
    torch.manual_seed(about["seed"])
    sitting.append(Contestant("untrained", "untrained", build(about, parts.task, parts.tokenizer), about["untrained"]))
    outcome = exam.hold(sitting)

    predicted = cost.predicted(parts.model, config.data.length)
    figures = outcome.figures | {f"cost/{key}": value for key, value in predicted.items()}
    if outcome.evidence:
        outcome.evidence.write(folder)
    publish(folder, outcome.sheets, figures, outcome.plots)
    print(f"run folder: {folder}")
