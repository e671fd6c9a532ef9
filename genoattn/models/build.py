"""Models from their factories, a task and a tokenizer; and saved models from their folders."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from hydra.utils import instantiate

from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.errors import UserError
from genoattn.genome.intervals import Interval
from genoattn.models.block import AttentionFactory
from genoattn.models.card import ModelCard
from genoattn.models.checkpoint import find_model, load_weights
from genoattn.models.predictor import Predictor
from genoattn.models.sequence_model import SequenceModel

ModelFactory: TypeAlias = Callable[..., SequenceModel]
"""Takes the arguments of SequenceModel that tokenizer, task and attention layer determine."""

BPE_CHUNK = 4096
"""Bases of a sequence from which a tokenizer learns."""


@dataclass(frozen=True)
class LoadedModel:
    """A saved model: its card, the model with its weights, and its folder."""

    card: ModelCard
    predictor: Predictor
    folder: Path


def build_model(
    model_factory: ModelFactory,
    attention: AttentionFactory | Sequence[AttentionFactory],
    task: Task,
    tokenizer: Tokenizer,
    seed: int | None = None,
) -> Predictor:
    """Build an untrained model for a task and a tokenizer.

    Args:
        model_factory: SequenceModel, or a `functools.partial` of it with its sizes.
        attention: Called as `attention(dim=…, causal=…)` for every block; a list is cycled over the blocks.
        task: Determines the heads, the stem and the number of sequences in a context.
        tokenizer: A trained tokenizer; determines the vocabulary.
        seed: Seed of the weights, which leaves the global generator alone; None draws from the global generator.

    Raises:
        UserError: The task cannot be solved by this model or with this tokenizer.
    """
    sizes = {
        name: target.classes * (tokenizer.max_token_length if target.level == "base" else 1)
        or tokenizer.vocabulary_size
        for name, target in task.outputs.items()
    }
    with nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        model = model_factory(
            # The separator of two sequences comes after the tokenizer's ids.
            vocabulary_size=tokenizer.vocabulary_size + (task.segment_count > 1),
            token_heads={name: size for name, size in sizes.items() if task.outputs[name].level != "window"},
            sequence_heads={name: size for name, size in sizes.items() if task.outputs[name].level == "window"},
            max_shift=task.max_shift if task.side_by_side else None,
            segment_count=task.segment_count,
            attention=attention,
        )
    if reason := task.refuse(tokenizer.max_token_length, model.causal, tokenizer.overlap):
        raise UserError(f"this task cannot be set to this model: {reason}")
    return Predictor(tokenizer, task, model)


def build_from_card(card: ModelCard, seed: int | None = None) -> Predictor:
    """The model that a card describes, without its weights; `seed` as in `build_model`."""
    task, tokenizer = instantiate(card.task, _convert_="all"), instantiate(card.tokenizer, _convert_="all")
    return build_model(instantiate(card.model), instantiate(card.attention), task, tokenizer, seed)


def load_predictor(path: Path, device: torch.device | str | None = None) -> LoadedModel:
    """Open a saved model.

    Args:
        path: A run folder, its model/ folder, or a .ckpt file in its checkpoints/ folder.
        device: Where the model is put; None takes the GPU if there is one.

    Raises:
        UserError: There is no saved model, or its files cannot be read.
    """
    folder = find_model(path)
    card = ModelCard.read(folder)
    predictor = build_from_card(card)
    load_weights(folder, predictor.model)
    predictor.model.to(default_device() if device is None else device)
    return LoadedModel(card, predictor, folder)


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_tokenizer(tokenizer: Tokenizer, source: DataSource, seed: int) -> Tokenizer:
    """The same tokenizer; one that must learn its tokens does so from the training blocks."""
    if not tokenizer.trained:
        tokenizer.train(training_sequences(source, seed))
    return tokenizer


def training_sequences(source: DataSource, seed: int) -> Iterator[np.ndarray]:
    """The training blocks in pieces of `BPE_CHUNK` bases, in random order."""
    pieces = [
        Interval(block.record, start, min(start + BPE_CHUNK, block.stop))
        for block in source.splits.train
        for start in range(block.start, block.stop, BPE_CHUNK)
    ]
    for number in np.random.default_rng(seed).permutation(len(pieces)).tolist():
        yield source.genome.fetch(*pieces[number])
