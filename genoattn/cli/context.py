"""The effective context of a saved model: how far away a base may be and still change what it answers."""

from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.data.curriculum import Curriculum, Stage
from genoattn.data.source import announce, examples_of, open_source
from genoattn.evaluation.effective_context import influence, nominal
from genoattn.evaluation.effective_context_report import FILE, findings, plot, sheet_of, told
from genoattn.evaluation.report import publish
from genoattn.files import write_json
from genoattn.models.build import load
from genoattn.models.checkpoint import find_model, read_description


def main(config: DictConfig) -> None:
    """Change a base at a time in windows of the test blocks, and tell at what distance the answers no longer change."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    home = find_model(Path(config.checkpoint))
    about = read_description(home)
    parts = load(home, about)
    if config.data.length != about["length"]:
        print(f"data.length is {config.data.length}; the model was trained on windows of {about['length']}")
    source = open_source(config.data, parts.task, config.seed, about)
    announce(source)
    strands = (config.rc or about["rc"]) in ("average", "equivariant")
    drawn = examples_of(source, "test", config.data, parts.task, config.seed, 1, Curriculum())
    stage = Stage(parts.task.rates, config.data.length)
    examples = [drawn.make(number, stage) for number in range(config.windows)]

    seen = influence(parts, examples, config.spots, config.seed, strands)
    tokenizer = parts.tokenizer
    bounds = nominal(parts.model, tokenizer.span, tokenizer.overlap, strands)
    found = findings(seen, bounds, config.threshold)
    about_run = {"attention": about["name"], "length": config.data.length, "trained_length": about["length"]}
    write_json(folder / FILE, {**about_run, **found}, indent=1)
    figures = {f"context/{key}": found[key] for key in ("nominal", "effective", "left", "right", "windows", "noise")}
    title = f"Changes of the answers with one base, attention={about['name']}"
    publish(folder, [sheet_of(seen, title)], figures, {"context": partial(plot, seen, found, str(about["name"]))})
    print(told(found, config.threshold))
    print(f"run folder: {folder}")
