"""Readers of windows of a strain: a model, and the baselines that count, mix and copy."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple, Protocol, final

import numpy as np
from jaxtyping import Float, UInt8

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE_INDEX
from genoattn.evaluation.baselines.context_mixing import COPIES, ContextMixing, KmerCounts
from genoattn.evaluation.baselines.markov import MarkovModel, Reading
from genoattn.evaluation.conditional.windows import StrainWindow
from genoattn.genome.alphabet import UNKNOWN, reverse_complement
from genoattn.models.predictor import Predictor

ORDER = 11
"""The highest order of the Markov model: bases before the base."""

Probabilities = Float[np.ndarray, "length 4"]
"""The probabilities of A, C, G and T at each base of a window; rows of bases that are not predicted say nothing."""


class Reader(Protocol):
    """A model or a baseline."""

    key: str
    name: str

    def read(self, windows: Sequence[StrainWindow], turned: bool = False) -> Iterator[Probabilities]:
        """The probabilities of the bases of each window, or of its other strand."""
        ...


@final
class ModelReader:
    """A model of the task; nothing is read but what its context shows."""

    def __init__(self, key: str, name: str, predictor: Predictor):
        self.key, self.name, self.predictor = key, name, predictor

    def read(self, windows: Sequence[StrainWindow], turned: bool = False) -> Iterator[Probabilities]:
        examples = [window.turned if turned else window.example for window in windows]
        done = 0
        for _, logits in self.predictor.logits(examples):
            for row in logits["base"].double().softmax(-1).cpu().numpy():
                yield row[: len(examples[done].bases)]
                done += 1


@final
class Counts:
    """The Markov model of the training blocks, both strands, of the order that suits the validation windows best."""

    key = "counts"

    def __init__(self, training: Sequence[UInt8[np.ndarray, "_"]], validation: Sequence[StrainWindow]):
        self._model = MarkovModel([*training, *map(reverse_complement, training)], ORDER)
        self.choice = self._model.choose([_reading(window.example) for window in validation])
        self.name = f"counts of {self.choice.order} bases before"

    def read(self, windows: Sequence[StrainWindow], turned: bool = False) -> Iterator[Probabilities]:
        for window in windows:
            reading = _reading(window.turned if turned else window.example)
            table = np.full((len(reading.bases), 4), 0.25)
            table[reading.targets] = list(self._model.probabilities(reading, self.choice.weight))[self.choice.order]
            yield table


class Kind(NamedTuple):
    """A variant of context mixing."""

    key: str
    name: str
    copies: tuple[int, ...]
    relative: bool
    """True if the relative of a window is read before its strain."""


KINDS = (
    Kind("mixing", "context mixing, no copies", (), False),
    Kind("copies_alone", "context mixing, copies of the strain's window", COPIES, False),
    Kind("copies", "context mixing, copies of the relative too", COPIES, True),
)


@final
class Mixing:
    """Context mixing; it learns from the validation windows, and goes on learning from each window that it has read."""

    def __init__(self, kind: Kind, counts: KmerCounts, validation: Sequence[StrainWindow]):
        self.key, self.name, self._kind = kind.key, kind.name, kind
        self._mixer = ContextMixing(counts, kind.copies)
        for window in validation:
            self._read(self._mixer, window.example)

    def read(self, windows: Sequence[StrainWindow], turned: bool = False) -> Iterator[Probabilities]:
        mixer = deepcopy(self._mixer, {id(self._mixer.counts): self._mixer.counts})  # the counts are shared
        for window in windows:
            yield self._read(mixer, window.turned if turned else window.example)

    def _read(self, mixer: ContextMixing, example: Example) -> Probabilities:
        text, start = example.bases, 0
        if self._kind.relative and example.reference is not None:
            text = np.concatenate([example.reference, [np.uint8(UNKNOWN)], text]).astype(np.uint8)
            start = len(example.reference) + 1
        return mixer.probabilities(text, start, example.targets["base"] != IGNORE_INDEX)


def _reading(example: Example) -> Reading:
    """A window for a Markov model, which may read all bases before the one that it predicts."""
    targets = example.targets["base"] != IGNORE_INDEX
    return Reading(example.bases, np.ones(len(targets), np.bool_), targets)
