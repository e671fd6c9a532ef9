"""A model, what it was made for, and what reads bases for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.data.batch import Batch, collate
from genoattn.data.example import Example
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.models.sequence_model import SequenceModel

CHUNKED_ABOVE = 32_768
"""Tokens from which on a model that is not in training answers layer by layer, in place, in segments."""


def token_layout(batch: Batch) -> TokenLayout:
    """Where each token of a batch stands."""
    # Without padding there is no mask, which some layers can do without and run faster.
    keep = None if bool(batch.padding_mask.all()) else batch.padding_mask
    return TokenLayout(keep, batch.position_ids, batch.segment_ids)


def predict(
    model: SequenceModel, batch: Batch, outputs: Mapping[str, TargetSpec]
) -> dict[str, Float[Tensor, "batch _ _"]]:
    """The logits of every output, [batch, asked, classes] at its own level.

    Where the batch holds the other strand too, both go through the same weights and the logits are averaged: what
    comes out is then equivariant by construction, but for outputs whose mirror is "none".
    """
    answers = _one_strand(model, batch, outputs)
    if batch.reverse_complement is None:
        return answers
    turned = _one_strand(model, batch.reverse_complement, outputs)
    lengths = (batch.padding_mask if batch.base_to_answer is None else batch.base_to_answer >= 0).sum(1)
    return {
        name: answers[name]
        if output.strand_symmetry == "none"
        else (answers[name] + to_forward_strand(turned[name], output.strand_symmetry, lengths)) / 2
        for name, output in outputs.items()
    }


def to_forward_strand(
    answers: Float[Tensor, "batch asked classes"], symmetry: str, lengths: Tensor
) -> Float[Tensor, "batch asked classes"]:
    """Answers about the other strand, read on this one; `lengths` are the real bases of each row. Its own inverse."""
    if symmetry == "invariant":
        return answers
    index = torch.arange(answers.shape[1], device=answers.device)
    # What lies before base i of one strand lies before base n - i of the other; before base 0 there is nothing.
    turned = lengths[:, None] - index - int(symmetry != "between_bases")
    turned = torch.where((turned >= 0) & (turned < lengths[:, None]), turned, index)
    answers = answers.gather(1, turned[..., None].expand_as(answers))
    return answers.flip(-1) if symmetry == "complement" else answers


def per_base(
    answers: Float[Tensor, "batch tokens numbers"], places: Int[Tensor, "batch bases"] | None, classes: int
) -> Float[Tensor, "batch bases classes"]:
    """Answers base by base, of tokens each of which holds one for every base that it may own."""
    if places is None:
        return answers
    single = answers.unflatten(2, (-1, classes)).flatten(1, 2)
    return single.gather(1, places.clamp_min(0)[..., None].expand(-1, -1, classes))


def _one_strand(model: SequenceModel, batch: Batch, outputs: Mapping[str, TargetSpec]) -> dict[str, Tensor]:
    # In one piece a long sequence makes tensors that the allocator faults in anew at every step of every layer.
    long = batch.ids.shape[1] >= CHUNKED_ABOVE and not torch.is_grad_enabled()
    answer = model.forward_chunked if long else model
    raw = answer(batch.ids, batch.reference_window, token_layout(batch), batch.pooling_weights)
    return {
        name: per_base(raw[name], batch.base_to_answer, output.classes) if output.level == "base" else raw[name]
        for name, output in outputs.items()
    }


BATCH_BASES = 8_192
"""How many bases are answered at once: larger batches only make tensors that the allocator faults in anew each time."""


@dataclass(frozen=True)
class Predictor:
    """A tokenizer, a task and the model built for both."""

    tokenizer: Tokenizer
    task: Task
    model: SequenceModel

    def logits(
        self, examples: Sequence[Example], both_strands: bool = False, frame: int = 0
    ) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """Batches of the examples in order, and the logits of every output, in evaluation mode, which is put back.

        With `strands` those of both strands are averaged; `phase` moves the frame of the tokens.
        """
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        size = max(1, BATCH_BASES // max(map(context_length, examples), default=1))
        try:
            for first in range(0, len(examples), size):
                chosen = examples[first : first + size]
                batch = collate(chosen, self.tokenizer, None, self.task.context_format, frame, both_strands).to(device)
                with torch.no_grad():
                    answers = predict(self.model, batch, self.task.outputs)
                yield batch, answers
        finally:
            self.model.train(training)

    def probabilities_per_base(
        self, examples: Sequence[Example], outputs: Sequence[str], both_strands: bool = False, frame: int = 0
    ) -> Iterator[np.ndarray]:
        """For each example the probabilities [length, outputs] of outputs that answer yes or no at each base."""
        done = 0
        for _, answers in self.logits(examples, both_strands, frame):
            table = torch.cat([answers[output] for output in outputs], -1).double().sigmoid().cpu().numpy()
            for row in table:
                yield row[: len(examples[done].bases)]
                done += 1


def context_length(example: Example) -> int:
    """Bases in the context of an example."""
    return len(example.bases) + (0 if example.reference is None else len(example.reference))
