"""The report of training for a saved model: on the genome that ships, or on another genome and its variants."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.values import value_of
from genoattn.data.source import describe_source, open_data_source
from genoattn.evaluation import build_evaluator
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.report import write_report
from genoattn.models import cost
from genoattn.models.build import build_from_card, load_predictor
from genoattn.models.card import uses_both_strands


def main(config: DictConfig) -> None:
    """Load a model (and what stands beside it in its run), put it to the exam of a genome, and report."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    loaded = load_predictor(Path(config.checkpoint))
    card, parts = loaded.card, loaded.predictor
    if config.data.length != card.length:
        print(f"data.length is {config.data.length}; the model was trained on windows of {card.length}")
    data, test = value_of(config.data), value_of(config.test)
    source = open_data_source(data, parts.task, config.seed, card.training_split)
    print(describe_source(source))
    strands = uses_both_strands(config.reverse_complement or card.reverse_complement)
    exam = build_evaluator(source, data, test, parts.task, strands, source.trained_on)

    sitting = [Candidate("model", card.name, parts, card.calibration)]
    for key in ("control", "pretrained"):
        beside = loaded.folder.parent / key / "model"
        if beside.is_dir():
            other = load_predictor(beside)
            sitting.append(Candidate(key, other.card.name, other.predictor, other.card.calibration))
    untrained = build_from_card(card, card.seed)
    untrained.model.to(parts.device)
    sitting.append(Candidate("untrained", "untrained", untrained, card.untrained_calibration))
    outcome = exam.evaluate(sitting)

    predicted = cost.predicted_cost(parts.model, config.data.length)._asdict()
    figures = outcome.metrics | {f"cost/{key}": value for key, value in predicted.items()}
    if outcome.replicates:
        outcome.replicates.write(folder)
    write_report(folder, outcome.tables, figures, outcome.plots)
    print(f"run folder: {folder}")
