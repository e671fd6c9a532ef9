"""From a config to live parts: the genome and its splits, tokenizer, task, model, and examples of a task."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.errors import UserError
from genoattn.genome.intervals import Interval
from genoattn.models.checkpoint import load_weights
from genoattn.models.predictor import Predictor

BPE_CHUNK = 4096
"""Bases of a stretch from which a tokenizer learns."""


NEEDED = (
    "tokenizer",
    "task",
    "model",
    "attention",
    "name",
    "kept",
    "untrained",
    "length",
    "split",
    "seed",
    "genome",
    "reverse_complement",
)
"""What a model's description says besides its weights."""


def build_model(config: Mapping, task: Task, tokenizer: Tokenizer, attention: str = "attention") -> Predictor:
    """The model that a config (or a saved description) names; `attention` is the key of the layer's node."""
    # A config's layer refers to `heads`; in a saved description its heads are written out.
    node = OmegaConf.create({name: config[name] for name in ("model", "heads", attention) if name in config})
    sizes = {
        name: output.classes * (tokenizer.max_token_length if output.level == "base" else 1)
        or tokenizer.vocabulary_size
        for name, output in task.outputs.items()
    }
    model = instantiate(node.model)(
        vocabulary_size=tokenizer.vocabulary_size
        + (task.segment_count > 1),  # the separator comes after the tokenizer's ids
        token_heads={name: size for name, size in sizes.items() if task.outputs[name].level != "window"},
        sequence_heads={name: size for name, size in sizes.items() if task.outputs[name].level == "window"},
        max_shift=task.max_shift if task.side_by_side else None,
        segment_count=task.segment_count,
        attention=instantiate(node[attention]),
    )
    if reason := task.refuse(tokenizer.max_token_length, model.causal, tokenizer.overlap):
        raise UserError(f"this task cannot be set to this model: {reason}")
    return Predictor(tokenizer, task, model)


def load_predictor(home: Path, about: dict) -> Predictor:
    """The parts of a saved model, its weights in place."""
    missing = [key for key in NEEDED if key not in about]
    if missing:
        raise UserError(f"{home} lacks {', '.join(missing)} in its description")
    parts = build_model(about, instantiate(about["task"]), build_tokenizer(about["tokenizer"], None, about["seed"]))
    load_weights(home, parts.model)
    return parts


def build_tokenizer(node: Mapping, source: DataSource | None, seed: int) -> Tokenizer:
    """The tokenizer of a config; one that must learn does so from the training blocks."""
    tokenizer: Tokenizer = instantiate(node)
    if not tokenizer.trained:
        assert source is not None, "a saved tokenizer has learned"
        tokenizer.train(training_sequences(source, seed))
    return tokenizer


def training_sequences(source: DataSource, seed: int):
    """Stretches of the training blocks in random order, each block cut into stretches of equal length."""
    whole = [
        Interval(block.record, start, min(start + BPE_CHUNK, block.stop))
        for block in source.splits.train
        for start in range(block.start, block.stop, BPE_CHUNK)
    ]
    for number in np.random.default_rng(seed).permutation(len(whole)).tolist():
        yield source.genome.fetch(*whole[number])


def build_seeded(config: DictConfig, task: Task, tokenizer: Tokenizer, key: str) -> Predictor:
    """The model of a config with the weights that its seed draws, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(config, task, tokenizer, key)  # type: ignore[arg-type]
