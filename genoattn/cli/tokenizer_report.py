"""The report of a tokenizer: how many tokens a mutation changes, and how much scores depend on the frame of tokens."""

import numpy as np
from omegaconf import DictConfig

from genoattn.cli.values import open_source, output_folder, saved_model, value_of
from genoattn.data.tasks.base import MutationDetection
from genoattn.data.tasks.language_modeling import LanguageModeling
from genoattn.errors import UserError
from genoattn.evaluation.report import write_report
from genoattn.genome.windows import Windows
from genoattn.models.build import train_tokenizer


def main(config: DictConfig) -> None:
    """Report on the tokenizer that is named, or on that of a checkpoint, with windows of the genome."""
    folder = output_folder()
    loaded = saved_model(config) if config.checkpoint else None
    if loaded and not isinstance(loaded.predictor.task, MutationDetection):
        raise UserError(f"checkpoint={config.checkpoint} is no mutation detector, so it has no scores per base")
    test, data = value_of(config.test), value_of(config.data)
    task, split = (loaded.predictor.task, loaded.card.training_split) if loaded else (LanguageModeling(), None)
    source = open_source(data, task, config.seed, split)
    # Late: a mistake in the data need not wait for torchmetrics.
    from genoattn.evaluation.tokenizer_report import frame_report, tokenizer_report

    tokenizer = (
        loaded.predictor.tokenizer if loaded else train_tokenizer(value_of(config.tokenizer), source, config.seed)
    )
    windows = Windows(source.genome, source.splits.test, data.length, data.max_n_fraction)
    rng = np.random.default_rng(test.seed)
    sampled = [source.genome.fetch(*windows.draw(rng)) for _ in range(test.windows)]
    metrics, table = tokenizer_report(tokenizer, sampled, rng)
    tables = [table]
    if loaded:
        frames = frame_report(loaded.predictor, loaded.card.name, source, data, test)
        metrics += frames.metrics
        tables.append(frames.table)
    write_report(folder, tables, metrics, {})
