"""An audit of a tokenizer: what a mutation does to the tokens of a window, and what the frame does to its scores."""

from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.data.source import announce, open_source
from genoattn.data.tasks.base import Comparison
from genoattn.data.tasks.language_modeling import Pretrain
from genoattn.errors import UserError
from genoattn.evaluation.report import publish
from genoattn.evaluation.tokenizer_audit import audit, frames
from genoattn.genome.windows import Windows
from genoattn.models.build import build_tokenizer, load
from genoattn.models.checkpoint import find_model, read_description


def main(config: DictConfig) -> None:
    """Audit the tokenizer that is named, or that of a checkpoint, on windows of the genome."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    home = find_model(Path(config.checkpoint)) if config.checkpoint else None
    about = read_description(home) if home else {}
    parts = load(home, about) if home else None
    if parts and not isinstance(parts.task, Comparison):
        raise UserError(f"checkpoint={config.checkpoint} is no detector; its scores by base cannot be compared")
    source = open_source(config.data, parts.task if parts else Pretrain(), config.seed, about or None)
    announce(source)
    tokenizer = parts.tokenizer if parts else build_tokenizer(config.tokenizer, source, config.seed)
    windows = Windows(source.genome, source.splits.test, config.data.length, config.data.max_unknown)
    rng = np.random.default_rng(config.test.seed)
    drawn = [source.genome.bases(*windows.draw(rng)) for _ in range(config.test.windows)]
    figures, sheets = audit(tokenizer, drawn, rng)
    if parts:
        more, sheet = frames(parts, source, config, about)
        figures |= more
        sheets.append(sheet)
    publish(folder, sheets, figures, {})
    print(f"run folder: {folder}")
