"""Exact search for the key of a query: the baseline of associative recall, which needs no training."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example, Query
from genoattn.data.tasks.associative_recall import AssociativeRecall, visible_context
from genoattn.genome.alphabet import reverse_complement


def exact_match(example: Example, query: Query, task: AssociativeRecall) -> UInt8[np.ndarray, "value"]:
    """The value beside another occurrence of the query's key on either strand; all A if there is none.

    The search takes the longest end of the key, next to the value, that occurs again. It reads visible bases only: no
    masked base, and in the causal form no base from the value on.
    """
    visible, begin = visible_context(example)
    size, own = query.stop - query.start, begin + query.start
    readable = visible[:own] if task.form == "causal" else visible
    text = readable.tobytes()
    for width in range(task.key, 0, -1):
        key = visible[own - width : own]
        for at in _occurrences(text, key.tobytes()):
            value = readable[at + width : at + width + size]
            if at + width != own and len(value) == size and value.max() < 4:
                return value
        for at in _occurrences(text, reverse_complement(key).tobytes() if key.max() < 15 else b"\xff"):
            value = readable[max(at - size, 0) : at]
            if len(value) == size and value.max() < 4:
                return reverse_complement(value)
    return np.zeros(size, np.uint8)


def _occurrences(text: bytes, word: bytes) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)
