"""From a config to live parts: the genome and its splits, tokenizer, task, model, and examples of a task."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from genoattn.data.source import Source
from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.errors import UserError
from genoattn.genome.intervals import Interval
from genoattn.models.checkpoint import load_weights
from genoattn.models.predictor import Parts

LEARNED_FROM = 4096
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
    "rc",
)
"""What a model's description says besides its weights."""


def build(config: Mapping, task: Task, tokenizer: Tokenizer, attention: str = "attention") -> Parts:
    """The model that a config (or a saved description) names; `attention` is the key of the layer's node."""
    node = OmegaConf.create({name: config[name] for name in ("model", attention)})
    sizes = {
        name: output.classes * (tokenizer.span if output.level == "base" else 1) or tokenizer.vocabulary
        for name, output in task.outputs.items()
    }
    model = instantiate(node.model)(
        vocabulary=tokenizer.vocabulary + (task.segments > 1),  # the separator comes after the tokenizer's ids
        outputs={name: size for name, size in sizes.items() if task.outputs[name].level != "window"},
        verdicts={name: size for name, size in sizes.items() if task.outputs[name].level == "window"},
        reach=task.reach if task.side_by_side else None,
        segments=task.segments,
        attention=instantiate(node[attention]),
    )
    if reason := task.refuse(tokenizer.span, model.causal, tokenizer.overlap):
        raise UserError(f"this task cannot be set to this model: {reason}")
    return Parts(tokenizer, task, model)


def load(home: Path, about: dict) -> Parts:
    """The parts of a saved model, its weights in place."""
    missing = [key for key in NEEDED if key not in about]
    if missing:
        raise UserError(f"{home} lacks {', '.join(missing)} in its description")
    parts = build(about, instantiate(about["task"]), build_tokenizer(about["tokenizer"], None, about["seed"]))
    load_weights(home, parts.model)
    return parts


def build_tokenizer(node: Mapping, source: Source | None, seed: int) -> Tokenizer:
    """The tokenizer of a config; one that must learn does so from the training blocks."""
    tokenizer: Tokenizer = instantiate(node)
    if not tokenizer.trained:
        assert source is not None, "a saved tokenizer has learned"
        tokenizer.train(stretches(source, seed))
    return tokenizer


def stretches(source: Source, seed: int):
    """Stretches of the training blocks in random order, each block cut into stretches of equal length."""
    whole = [
        Interval(block.record, start, min(start + LEARNED_FROM, block.stop))
        for block in source.splits.train
        for start in range(block.start, block.stop, LEARNED_FROM)
    ]
    for number in np.random.default_rng(seed).permutation(len(whole)).tolist():
        yield source.genome.bases(*whole[number])


def build_seeded(config: DictConfig, task: Task, tokenizer: Tokenizer, key: str) -> Parts:
    """The model of a config with the weights that its seed draws, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build(config, task, tokenizer, key)  # type: ignore[arg-type]
