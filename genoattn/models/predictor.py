"""A model, what it was made for, and what reads bases for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genoattn.attention.base import Layout
from genoattn.data.batch import Batch, collate
from genoattn.data.example import Example
from genoattn.data.targets import Output
from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.models.sequence_model import SequenceModel

STREAMED = 32_768
"""Tokens from which on a model that is not in training answers layer by layer, in place, in segments."""


def layout(batch: Batch) -> Layout:
    """Where each token of a batch stands."""
    # Without padding there is no mask, which some layers can do without and run faster.
    keep = None if bool(batch.keep.all()) else batch.keep
    return Layout(keep, batch.positions, batch.segments)


def predict(model: SequenceModel, batch: Batch, outputs: Mapping[str, Output]) -> dict[str, Float[Tensor, "batch _ _"]]:
    """The logits of every output, [batch, asked, classes] at its own level.

    Where the batch holds the other strand too, both go through the same weights and the logits are averaged: what
    comes out is then equivariant by construction, but for outputs whose mirror is "own".
    """
    answers = _one_strand(model, batch, outputs)
    if batch.other is None:
        return answers
    turned = _one_strand(model, batch.other, outputs)
    lengths = (batch.keep if batch.places is None else batch.places >= 0).sum(1)
    return {
        name: answers[name]
        if output.mirror == "own"
        else (answers[name] + reflect(turned[name], output.mirror, lengths)) / 2
        for name, output in outputs.items()
    }


def reflect(
    answers: Float[Tensor, "batch asked classes"], mirror: str, lengths: Tensor
) -> Float[Tensor, "batch asked classes"]:
    """Answers about the other strand, read on this one; `lengths` are the real bases of each row. Its own inverse."""
    if mirror == "whole":
        return answers
    index = torch.arange(answers.shape[1], device=answers.device)
    # What lies before base i of one strand lies before base n - i of the other; before base 0 there is nothing.
    turned = lengths[:, None] - index - int(mirror != "gap")
    turned = torch.where((turned >= 0) & (turned < lengths[:, None]), turned, index)
    answers = answers.gather(1, turned[..., None].expand_as(answers))
    return answers.flip(-1) if mirror == "letter" else answers


def by_base(
    answers: Float[Tensor, "batch tokens numbers"], places: Int[Tensor, "batch bases"] | None, classes: int
) -> Float[Tensor, "batch bases classes"]:
    """Answers base by base, of tokens each of which holds one for every base that it may own."""
    if places is None:
        return answers
    single = answers.unflatten(2, (-1, classes)).flatten(1, 2)
    return single.gather(1, places.clamp_min(0)[..., None].expand(-1, -1, classes))


def _one_strand(model: SequenceModel, batch: Batch, outputs: Mapping[str, Output]) -> dict[str, Tensor]:
    # In one piece a long sequence makes tensors that the allocator faults in anew at every step of every layer.
    long = batch.ids.shape[1] >= STREAMED and not torch.is_grad_enabled()
    answer = model.stream if long else model
    raw = answer(batch.ids, batch.beside, layout(batch), batch.sites)
    return {
        name: by_base(raw[name], batch.places, output.classes) if output.level == "base" else raw[name]
        for name, output in outputs.items()
    }


BATCH_BASES = 8_192
"""How many bases are answered at once: larger batches only make tensors that the allocator faults in anew each time."""


@dataclass(frozen=True)
class Parts:
    """A tokenizer, a task and the model built for both."""

    tokenizer: Tokenizer
    task: Task
    model: SequenceModel

    def answers(
        self, examples: Sequence[Example], strands: bool = False, phase: int = 0
    ) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """Batches of the examples in order, and the logits of every output, in evaluation mode, which is put back.

        With `strands` those of both strands are averaged; `phase` moves the frame of the tokens.
        """
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        size = max(1, BATCH_BASES // max(map(context, examples), default=1))
        try:
            for first in range(0, len(examples), size):
                chosen = examples[first : first + size]
                batch = collate(chosen, self.tokenizer, None, self.task.framing, phase, strands).to(device)
                with torch.no_grad():
                    answers = predict(self.model, batch, self.task.outputs)
                yield batch, answers
        finally:
            self.model.train(training)

    def by_base(
        self, examples: Sequence[Example], outputs: Sequence[str], strands: bool = False, phase: int = 0
    ) -> Iterator[np.ndarray]:
        """For each example the probabilities [length, outputs] of outputs that answer yes or no at each base."""
        done = 0
        for _, answers in self.answers(examples, strands, phase):
            table = torch.cat([answers[output] for output in outputs], -1).double().sigmoid().cpu().numpy()
            for row in table:
                yield row[: len(examples[done].bases)]
                done += 1


def context(example: Example) -> int:
    """Bases in the context of an example."""
    return len(example.bases) + (0 if example.before is None else len(example.before))
