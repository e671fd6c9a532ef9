"""Models from their factories, a task and a tokenizer; and saved models from their folders."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from genoattn.attention.base import Attention
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.errors import UserError, shorten
from genoattn.genome.intervals import Interval
from genoattn.models.block import AttentionFactory
from genoattn.models.card import ModelCard, description_of, weights_of
from genoattn.models.checkpoint import find_model, load_weights, read_shapes
from genoattn.models.nodes import PACKAGE, CheckedNode, Place, check_node
from genoattn.models.precision import fast_dtype
from genoattn.models.predictor import Predictor
from genoattn.models.sequence_model import SequenceModel
from genoattn.models.shipped import DETECTOR

ModelFactory: TypeAlias = Callable[..., SequenceModel]
"""Takes the arguments of SequenceModel that tokenizer, task and attention layer determine."""

PLACES: Mapping[str, Place] = {
    "tokenizer": Place(Tokenizer, False),
    "task": Place(Task, False),
    "model": Place(SequenceModel, True),
    "attention": Place(Attention, True),
}
"""The nodes of a card, and the class that each of them must name."""

SLACK = 4
"""Factor by which the numbers of a model may exceed those saved while it is built: a layer may replace a parameter."""

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
        task: Determines the heads, the stem, and the number of sequences in a context and their order.
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
            sites=task.sites,
            segment_count=task.segment_count,
            interleaved=task.context_format.interleaved,
            attention=attention,
        )
    if reason := task.refuse(tokenizer.max_token_length, model.causal, tokenizer.overlap):
        raise UserError(f"this task cannot be set to this model: {reason}")
    return Predictor(tokenizer, task, model)


def check_card(
    card: ModelCard, trust: Sequence[str] = (), names: Iterable[str] = tuple(PLACES)
) -> dict[str, CheckedNode]:
    """Nodes of a card, checked; nothing that they name has been called.

    Args:
        card: The card, which may come from a stranger.
        trust: Packages besides genoattn whose classes the card may name.
        names: The nodes.

    Raises:
        UserError: A node names anything but a class for its place, or its settings do not fit.
    """
    if isinstance(trust, str):
        raise UserError(f"trust: expected a list of packages, got {shorten(trust)}; write [{shorten(trust)}]")
    return {name: check_node(getattr(card, name), PLACES[name], name, [PACKAGE, *trust]) for name in names}


def build_from_card(card: ModelCard, seed: int | None = None, trust: Sequence[str] = ()) -> Predictor:
    """The model that a card describes, without its weights; `seed` as in `build_model`, `trust` as in `check_card`."""
    nodes = {name: node.build() for name, node in check_card(card, trust).items()}
    return build_model(nodes["model"], nodes["attention"], nodes["task"], nodes["tokenizer"], seed)


def load_predictor(
    path: Path, device: torch.device | str | None = None, trust: Sequence[str] = (), default: str = DETECTOR
) -> LoadedModel:
    """Open a saved model, which may come from a stranger: nothing is called but classes of genoattn.

    Args:
        path: A run folder, its model/ folder, a .ckpt file in its checkpoints/ folder, an exported folder, or the name
            of a model that comes with the package.
        device: Where the model is put; None takes the GPU if there is one.
        trust: Packages besides genoattn whose classes the model may use; their code is run.
        default: The model that the name "default" stands for.

    Raises:
        UserError: There is no saved model, its files cannot be read or do not fit each other, or its card asks for
            another package.
    """
    folder = find_model(path, default)
    card = ModelCard.read(folder)
    with _naming(description_of(folder)):
        nodes = check_card(card, trust)
        if foreign := [name for node in nodes.values() for name in node.names() if name.partition(".")[0] != PACKAGE]:
            print(f"trust: this model uses {', '.join(dict.fromkeys(foreign))}, whose code is run")
        saved = sum(tensor.numel() for tensor in read_shapes(folder).values())
        with _no_more_numbers_than(saved, weights_of(folder).name):
            predictor = build_from_card(card, None, trust)
    load_weights(folder, predictor.model, card.weights)
    place = default_device() if device is None else torch.device(device)
    predictor.model.to(place).autocast_dtype = fast_dtype(place)
    return LoadedModel(card, predictor, folder)


@contextmanager
def _no_more_numbers_than(saved: int, weights: str) -> Iterator[None]:
    """Within it, a model that is far larger than its saved weights is refused before memory is filled."""
    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        total += 0 if parameter is None else parameter.numel()
        if total > SLACK * saved:
            raise UserError(f"it describes a model far larger than {weights} beside it, which holds {saved:,} numbers")

    hook = register_module_parameter_registration_hook(count)  # called before a parameter gets its first values
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Within it, an error that a value in a file causes becomes a sentence that names the file."""
    try:
        yield
    except UserError as error:
        raise error if str(file.parent) in str(error) else UserError(f"{file}: {error}") from None
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        raise UserError(f"{file}: no model can be built of these settings: {shorten(error)}") from error


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
