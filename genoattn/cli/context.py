"""The effective context of a saved model: how far away a base may be and still change what it answers."""

from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.values import value_of
from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.source import build_dataset, describe_source, open_data_source
from genoattn.evaluation.effective_context import perturbation_effect, theoretical_receptive_field
from genoattn.evaluation.effective_context_report import FILE, describe, effect_table, plot, summary
from genoattn.evaluation.report import write_report
from genoattn.files import write_json
from genoattn.models.build import load_predictor
from genoattn.models.card import uses_both_strands


def main(config: DictConfig) -> None:
    """Change a base at a time in windows of the test blocks, and tell at what distance the answers no longer change."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    loaded = load_predictor(Path(config.checkpoint))
    card, parts = loaded.card, loaded.predictor
    if config.data.length != card.length:
        print(f"data.length is {config.data.length}; the model was trained on windows of {card.length}")
    data = value_of(config.data)
    source = open_data_source(data, parts.task, config.seed, card.training_split)
    print(describe_source(source))
    strands = uses_both_strands(config.reverse_complement or card.reverse_complement)
    drawn = build_dataset(source, "test", data, parts.task, config.seed, 1, Curriculum())
    stage = CurriculumStage(parts.task.rates, config.data.length)
    examples = [drawn.example(number, stage) for number in range(config.windows)]

    seen = perturbation_effect(parts, examples, config.positions, config.seed, strands)
    tokenizer = parts.tokenizer
    bounds = theoretical_receptive_field(parts.model, tokenizer.max_token_length, tokenizer.overlap, strands)
    found = summary(seen, bounds, config.relative_threshold)
    about_run = {"attention": card.name, "length": config.data.length, "trained_length": card.length}
    write_json(folder / FILE, {**about_run, **found}, indent=1)
    figures = {f"context/{key}": found[key] for key in ("nominal", "effective", "left", "right", "windows", "noise")}
    title = f"Changes of the answers with one base, attention={card.name}"
    write_report(folder, [effect_table(seen, title)], figures, {"context": partial(plot, seen, found, card.name)})
    print(describe(found, config.relative_threshold))
    print(f"run folder: {folder}")
