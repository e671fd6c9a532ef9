"""The report of training for a saved model: on the genome that ships, or on another genome and its variants."""

from dataclasses import replace
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn import cost
from genoattn.assemble import PARTS, Parts, build, divide, open_source, trials
from genoattn.checkpoint import find_model, load_weights, read_description
from genoattn.errors import UserError
from genoattn.evaluation import CALLS, AlignerScorer, ModelScorer, brief, put_to
from genoattn.report import flat, publish
from genoattn.train import announce

NEEDED = (*PARTS, "name", "thresholds", "untrained", "length", "split", "seed", "genome")
"""What a model's description says besides its weights."""


def main(config: DictConfig) -> None:
    """Load a model (and its control where there is one), put it to the trials of a genome, and report."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    home = find_model(Path(config.checkpoint))
    about = read_description(home)
    parts = load(home, about)
    if config.data.length != about["length"]:
        print(f"data.length is {config.data.length}; the model was trained on windows of {about['length']}")
    source = open_source(config.data, parts.task, config.seed)
    known = [record.sha256 for record in source.genome.records] == about["genome"]
    if known:  # what training held out, whatever this config says
        splits = divide(source.genome, parts.task, about["length"], about["split"], about["seed"])
        source = replace(source, splits=splits)
    announce(source)
    if not known:
        print("this is not the genome that the model was trained on: all of it is held out")
    tests = trials(source, config.data, config.test, parts.task, known)
    if not source.vcfs:
        print("no data.vcf: evaluation uses planted mutations only")

    name, resamples = str(about["name"]), config.test.resamples
    results = put_to(tests, ModelScorer(name, parts.model, parts.tokenizer), about["thresholds"], resamples)
    beside = home.parent / "control" / "model"
    if beside.is_dir():
        control = read_description(beside)
        rival = load(beside, control)
        scorer = ModelScorer(str(control["name"]), rival.model, rival.tokenizer)
        results += put_to(tests, scorer, control["thresholds"], resamples)
    torch.manual_seed(about["seed"])
    fresh = build(about)
    scorer = ModelScorer("untrained", fresh.model, fresh.tokenizer)
    results += put_to(brief(tests), scorer, about["untrained"], resamples)
    results += put_to(brief(tests), AlignerScorer(parts.task.reach), CALLS, resamples)

    figures = flat(results, name)
    figures |= {f"cost/{key}": value for key, value in cost.predicted(parts.model, config.data.length).items()}
    publish(folder, results, figures, name)
    print(f"run folder: {folder}")


def load(home: Path, about: dict) -> Parts:
    """The parts of a saved model, its weights in place."""
    missing = [key for key in NEEDED if key not in about]
    if missing:
        raise UserError(f"{home} lacks {', '.join(missing)} in its description")
    parts = build(about)
    load_weights(home, parts.model)
    return parts
