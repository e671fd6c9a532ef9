"""An audit of a tokenizer: what a mutation does to the tokens of a window, and what the frame does to its scores."""

from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.values import value_of
from genoattn.data.source import describe_source, open_data_source
from genoattn.data.tasks.base import MutationDetection
from genoattn.data.tasks.language_modeling import LanguageModeling
from genoattn.errors import UserError
from genoattn.evaluation.report import write_report
from genoattn.evaluation.tokenizer_audit import frame_spread, tokenizer_report
from genoattn.genome.windows import Windows
from genoattn.models.build import build_tokenizer, load_predictor
from genoattn.models.checkpoint import find_model, read_description


def main(config: DictConfig) -> None:
    """Audit the tokenizer that is named, or that of a checkpoint, on windows of the genome."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    home = find_model(Path(config.checkpoint)) if config.checkpoint else None
    about = read_description(home) if home else {}
    parts = load_predictor(home, about) if home else None
    if parts and not isinstance(parts.task, MutationDetection):
        raise UserError(f"checkpoint={config.checkpoint} is no detector; its scores by base cannot be compared")
    data, test = value_of(config.data), value_of(config.test)
    source = open_data_source(data, parts.task if parts else LanguageModeling(), config.seed, about or None)
    describe_source(source)
    tokenizer = parts.tokenizer if parts else build_tokenizer(config.tokenizer, source, config.seed)
    windows = Windows(source.genome, source.splits.test, data.length, data.max_n_fraction)
    rng = np.random.default_rng(test.seed)
    drawn = [source.genome.fetch(*windows.draw(rng)) for _ in range(test.windows)]
    figures, sheets = tokenizer_report(tokenizer, drawn, rng)
    if parts:
        more, sheet = frame_spread(parts, source, data, test, about)
        figures |= more
        sheets.append(sheet)
    write_report(folder, sheets, figures, {})
    print(f"run folder: {folder}")
