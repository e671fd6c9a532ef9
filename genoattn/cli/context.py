"""The effective context of a saved model: how far away a base may be and still change its outputs."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.values import value_of
from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.source import build_dataset, describe_source, open_data_source
from genoattn.evaluation.effective_context import perturbation_effect, theoretical_receptive_field
from genoattn.evaluation.effective_context_report import ContextResult
from genoattn.evaluation.report import write_report
from genoattn.models.build import load_predictor
from genoattn.models.card import uses_both_strands


def main(config: DictConfig) -> None:
    """Replace one base at a time in windows of the test blocks, and report up to which distance outputs change."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    loaded = load_predictor(Path(config.checkpoint))
    card, predictor = loaded.card, loaded.predictor
    data = value_of(config.data).at(card.length)
    source = open_data_source(data, predictor.task, config.seed, card.training_split)
    print(describe_source(source))
    both_strands = uses_both_strands(config.reverse_complement or card.reverse_complement)
    dataset = build_dataset(source, "test", data, predictor.task, config.seed, 1, Curriculum())
    stage = CurriculumStage(predictor.task.rates, data.length)
    examples = [dataset.example(number, stage) for number in range(config.windows)]

    effects = perturbation_effect(predictor, examples, config.positions, config.seed, both_strands)
    tokenizer = predictor.tokenizer
    bounds = theoretical_receptive_field(predictor.model, tokenizer.max_token_length, tokenizer.overlap, both_strands)
    lengths = data.length, card.length
    result = ContextResult(card.name, *lengths, bounds, effects, config.relative_threshold)
    result.write(folder)
    write_report(folder, [result.table()], result.metrics(), {"context": result.plot})
    print(result.sentence())
    print(f"run folder: {folder}")
