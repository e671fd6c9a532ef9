"""The effective context of a saved model: how far away a base may be and still change its outputs."""

from omegaconf import DictConfig

from genoattn.cli.values import data_of, output_folder, saved_model
from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.source import build_dataset
from genoattn.evaluation.effective_context import perturbation_effect, theoretical_receptive_field
from genoattn.evaluation.effective_context_report import ContextResult
from genoattn.evaluation.report import write_report


def main(config: DictConfig) -> None:
    """Replace one base at a time in windows of the test blocks, and report up to which distance outputs change."""
    folder, loaded = output_folder(), saved_model(config)
    card, predictor = loaded.card, loaded.predictor
    data, source, both_strands = data_of(config, loaded)
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
