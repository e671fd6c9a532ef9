"""A model, what it was made for, and what reads bases for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genoattn.batch import Batch, collate
from genoattn.model import SequenceModel
from genoattn.predict import predict
from genoattn.tasks.base import Example, Task
from genoattn.tokenizers.contract import Tokenizer

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
