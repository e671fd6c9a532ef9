"""search for the key"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example, Query
from genoattn.data.tasks.associative_recall import AssociativeRecall, visible_context
from genoattn.genome.alphabet import reverse_complement


def exact_match(example: Example, query: Query, task: AssociativeRecall) -> UInt8[np.ndarray, "value"]:
    """The value beside another occurrence of the query's key, on either strand; A where there is none.

    Of the key it takes as many bases next to the value as are met once more, all of them first. It reads what is shown
    alone: no base that is hidden, and in the causal form none from the value on.
    """
    shown, begin = visible_context(example)
    size, own = query.stop - query.start, begin + query.start
    seen = shown[:own] if task.form == "causal" else shown
    text = seen.tobytes()
    for width in range(task.key, 0, -1):
        key = shown[own - width : own]
        for at in _occurrences(text, key.tobytes()):
            value = seen[at + width : at + width + size]
            if at + width != own and len(value) == size and value.max() < 4:
                return value
        for at in _occurrences(text, reverse_complement(key).tobytes() if key.max() < 15 else b"\xff"):
            value = seen[max(at - size, 0) : at]
            if len(value) == size and value.max() < 4:
                return reverse_complement(value)
    return np.zeros(size, np.uint8)


def _occurrences(text: bytes, word: bytes) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)
