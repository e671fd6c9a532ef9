"""A model with its tokenizer and task: from examples to logits and probabilities."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.data.batch import Batch, collate
from genoattn.data.example import Example
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.models.precision import autocast_of
from genoattn.models.segments import Segments, segments
from genoattn.models.sequence_model import SequenceModel
from genoattn.models.shards import gather_answers, own_labels

CHUNKED_ABOVE = 32_768
"""Tokens from which a model that is not in training computes layer by layer, in chunks; on a GPU with memory, more."""

BATCH_BASES = 8_192
"""Bases of a batch of `Predictor.logits` on a CPU: larger ones cost time, because each layer then gets new memory."""


def token_layout(batch: Batch) -> TokenLayout:
    """The layout of the tokens of a batch."""
    host = batch.host or batch
    # Without padding there is no mask: some layers are faster without one.
    padding_mask = None if bool(host.padding_mask.all()) else batch.padding_mask
    on_host = None if host is batch else token_layout(host)
    return TokenLayout(padding_mask, batch.position_ids, batch.segment_ids, host=on_host, keeps=True)


def predict(
    model: SequenceModel, batch: Batch, outputs: Mapping[str, TargetSpec], group: Any = None
) -> dict[str, Float[Tensor, "batch _ _"]]:
    """The logits of every output, `[batch, answers, classes]` at its own level.

    If the batch holds the other strand too, both go through the same weights and their logits are averaged. The result
    is then equivariant by construction, except for outputs whose strand symmetry is "none". The processes of a `group`
    compute a shard of each sequence; all of them get all logits.
    """
    forward = _one_strand(model, batch, outputs, group)
    if batch.reverse_complement is None:
        return forward
    reverse = _one_strand(model, batch.reverse_complement, outputs, group)
    lengths = (batch.padding_mask if batch.base_to_answer is None else batch.base_to_answer >= 0).sum(1)
    return {
        name: forward[name]
        if output.strand_symmetry == "none"
        else (forward[name] + to_forward_strand(reverse[name], output.strand_symmetry, lengths)) / 2
        for name, output in outputs.items()
    }


def to_forward_strand(
    logits: Float[Tensor, "batch answers classes"], symmetry: str, lengths: Tensor
) -> Float[Tensor, "batch answers classes"]:
    """Logits for the reverse strand, reordered to the forward strand; its own inverse.

    `lengths` are the numbers of real bases in each row.
    """
    if symmetry == "invariant":
        return logits
    index = torch.arange(logits.shape[1], device=logits.device)
    # A deletion before base i on one strand is one before base n - i on the other; position 0 has no counterpart.
    mirrored = lengths[:, None] - index - int(symmetry != "between_bases")
    mirrored = torch.where((mirrored >= 0) & (mirrored < lengths[:, None]), mirrored, index)
    logits = logits.gather(1, mirrored[..., None].expand_as(logits))
    return logits.flip(-1) if symmetry == "complement" else logits


def per_base(
    logits: Float[Tensor, "batch tokens numbers"], base_to_answer: Int[Tensor, "batch bases"] | None, classes: int
) -> Float[Tensor, "batch bases classes"]:
    """Logits of every base, from tokens that hold logits for each base that they may own."""
    if base_to_answer is None:
        return logits
    answers = logits.unflatten(2, (-1, classes)).flatten(1, 2)
    return answers.gather(1, base_to_answer.clamp_min(0)[..., None].expand(-1, -1, classes))


def _one_strand(model: SequenceModel, batch: Batch, outputs: Mapping[str, TargetSpec], group: Any) -> dict[str, Tensor]:
    inputs = batch.ids, batch.reference_window, token_layout(batch), batch.pooling_weights
    forward, length = partial(model, group=group), batch.ids.shape[1]
    if length >= CHUNKED_ABOVE and not torch.is_grad_enabled() and group is None:
        at = _segments(model, batch.ids.device)
        forward = partial(model.forward_chunked, chunk=at.tokens) if length >= at.above else model
    with autocast_of(model):
        logits = forward(*inputs)
    if group is not None:
        logits = gather_answers(logits, list(model.token_heads), batch.ids.shape[1], group)
    return _at_levels(logits, batch, outputs)


def _at_levels(
    logits: Mapping[str, Tensor], batch: Batch, outputs: Mapping[str, TargetSpec]
) -> dict[str, Float[Tensor, "batch _ _"]]:
    """The logits of the outputs, with those of tokens turned to those of bases where an output is of bases."""
    return {
        name: per_base(logits[name], batch.base_to_answer, output.classes) if output.level == "base" else logits[name]
        for name, output in outputs.items()
    }


class ShardAnswers(NamedTuple):
    """The answers of one process for a batch whose sequences several processes hold."""

    logits: dict[str, Float[Tensor, "batch _ _"]]
    targets: dict[str, Shaped[Tensor, "batch _"]]
    divided: frozenset[str]
    """Outputs of which each process has the logits and labels of its own tokens; of the others all have all."""


def predict_shard(model: SequenceModel, batch: Batch, outputs: Mapping[str, TargetSpec], group: Any) -> ShardAnswers:
    """The logits and labels that a process of a group learns from.

    Where an answer belongs to a token, it stays with the token. Outputs of the whole window, of bases that share a
    token and of both strands are the same on all processes.
    """
    divided = frozenset(
        name
        for name, output in outputs.items()
        if name in model.token_heads
        and (output.level == "token" or batch.base_to_answer is None)
        and not output.number
        and batch.reverse_complement is None
    )
    if not divided:
        return ShardAnswers(predict(model, batch, outputs, group), batch.targets, divided)
    inputs = batch.ids, batch.reference_window, token_layout(batch), batch.pooling_weights
    with autocast_of(model):
        logits = model(*inputs, group=group)
    shard = logits[next(iter(divided))].shape[1]
    others = [name for name in model.token_heads if name not in divided]
    logits = gather_answers(logits, others, batch.ids.shape[1], group)
    targets = {
        name: own_labels(target, shard, group) if name in divided else target for name, target in batch.targets.items()
    }
    return ShardAnswers(_at_levels(logits, batch, outputs), targets, divided)


def _segments(model: SequenceModel, device: torch.device) -> Segments:
    return segments(device, model.embed.embedding_dim, CHUNKED_ABOVE, BATCH_BASES)


@dataclass(frozen=True)
class Predictor:
    """A model with the tokenizer and the task that it was built for."""

    tokenizer: Tokenizer
    task: Task
    model: SequenceModel

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def logits(
        self, examples: Sequence[Example], both_strands: bool = False, frame: int = 0
    ) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """Predict examples in evaluation mode, in order, a batch at a time.

        Args:
            examples: Examples of the predictor's task.
            both_strands: True to average the logits of both strands.
            frame: Bases by which the frame of the tokens is moved.

        Yields:
            A batch on the model's device, and its logits by output.
        """
        training = self.model.training
        self.model.eval()
        try:
            for batch in self.batches(examples, both_strands, frame):
                batch = batch.to(self.device)
                with torch.no_grad():
                    logits = predict(self.model, batch, self.task.outputs)
                yield batch, logits
        finally:
            self.model.train(training)

    def batches(self, examples: Sequence[Example], both_strands: bool = False, frame: int = 0) -> Iterator[Batch]:
        """The batches of `logits`, on the CPU; its arguments are the same."""
        bases = _segments(self.model, self.device).batch
        size = max(1, bases // max(map(context_length, examples), default=1))
        for first in range(0, len(examples), size):
            chosen = examples[first : first + size]
            yield collate(chosen, self.tokenizer, None, self.task.context_format, frame, both_strands)

    def probabilities_per_base(
        self, examples: Sequence[Example], outputs: Sequence[str], both_strands: bool = False, frame: int = 0
    ) -> Iterator[np.ndarray]:
        """For each example the probabilities `[bases, outputs]` of outputs that answer yes or no at each base."""
        done = 0
        for _, logits in self.logits(examples, both_strands, frame):
            table = torch.cat([logits[output] for output in outputs], -1).double().sigmoid().cpu().numpy()
            for row in table:
                yield row[: len(examples[done].bases)]
                done += 1


def context_length(example: Example) -> int:
    """Bases in the context of an example."""
    return len(example.bases) + (0 if example.reference is None else len(example.reference))
