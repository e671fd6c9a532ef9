"""An example: the bases of a window and their labels, before any token."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from genoattn.data.targets import IGNORE_INDEX
from genoattn.genome.alphabet import UNKNOWN, reverse_complement
from genoattn.genome.mutations import Event, shifted

VISIBLE, MASK, RANDOM, UNCHANGED = range(4)
"""Masking of a base: VISIBLE has no label; of the others the model reads a mask, a random token or the base itself."""


class Query(NamedTuple):
    """A query of associative recall: the value at bases [start, stop) is that of a needle.

    Positions are 0-based and half-open. Those of needles and distractors count from the start of the context.

    Attributes:
        start: The first base of the predicted value, counted from the start of `Example.bases`.
        stop: The base after its last.
        needle: The first base of the needle's value.
        reverse_strand: True if the needle is on the reverse strand, so that its value is read as the reverse
            complement.
        distance: Bases from the needle to the query.
        distractors: The first bases of the values of near-duplicates of the needle.
    """

    start: int
    stop: int
    needle: int
    reverse_strand: bool
    distance: int
    distractors: tuple[int, ...] = ()


class Example(NamedTuple):
    """The bases of a window and their labels.

    Attributes:
        bases: Codes of the bases that have labels.
        reference_window: The reference beside the bases, with `max_shift` more bases at both ends; None if the task has
            none there.
        targets: By output the class of each base (class or number of the window), `IGNORE_INDEX` without a label.
        events: The mutations in the window, in coordinates of the sample (0-based, half-open).
        reference: The reference in the same context as the bases, with a separator between them; None if there is none.
        sample_first: True if the bases come before `reference` in the context.
        masking: VISIBLE, MASK, RANDOM or UNCHANGED for each base; None: all visible.
        block: The part of the genome that a bootstrap resamples together: record, and number of the part in the record.
        allele_spans: The allele that is classified: bases [start, stop) of `reference`, and of `bases`.
        site: The bases [start, stop) of `bases` that the class of a window is read at, besides the mean of all; None:
            it is read from the mean alone.
        kind: How the window was made, such as "stop"; the evaluation makes groups of it.
        distance: Bases from each base back to its counterpart in `reference`, the separator counted; if the two are
            interleaved, the bases by which they have drifted apart there. -1 without a counterpart.
        queries: The queries of associative recall, in order.
    """

    bases: UInt8[np.ndarray, "length"]
    reference_window: UInt8[np.ndarray, "wide"] | None
    targets: dict[str, Shaped[np.ndarray, "labels"]]
    events: tuple[Event, ...]
    reference: UInt8[np.ndarray, "context"] | None = None
    sample_first: bool = False
    masking: UInt8[np.ndarray, "length"] | None = None
    block: tuple[int, int] = (0, 0)
    allele_spans: tuple[tuple[int, int], tuple[int, int]] | None = None
    site: tuple[int, int] | None = None
    kind: str = ""
    distance: Int[np.ndarray, "length"] | None = None
    queries: tuple[Query, ...] = ()


class ContextFormat(NamedTuple):
    """The way in which `collate` puts the examples of a task into tokens.

    Attributes:
        restart_positions: True if the positions of the sample begin at 0 again after the reference.
        interleaved: True if the tokens of reference and sample alternate, r0 s0 r1 s1 …, both of a pair at the same
            position; False if the one follows the other.
        token_objective: The tokens that are labels: none, the masked ones, or the next one of each.
        answer_before: True if a base of the sample is predicted at the token of the sample before it, and the first one
            at the separator, as a causal model does; every token owns one base then.
    """

    restart_positions: bool = False
    interleaved: bool = False
    token_objective: Literal["", "hidden", "next"] = ""
    answer_before: bool = False


DEFAULT_FORMAT = ContextFormat()


def reverse_complement_example(example: Example) -> Example:
    """The same window on the reverse strand, read 5' to 3', without labels."""

    def reverse(bases: np.ndarray | None) -> np.ndarray | None:
        return None if bases is None else reverse_complement(bases)

    spans = example.allele_spans
    if spans is not None and example.reference is not None:
        (first, last), (start, stop) = spans
        size, length = len(example.reference), len(example.bases)
        spans = ((size - last, size - first), (length - stop, length - start))
    site = example.site and (len(example.bases) - example.site[1], len(example.bases) - example.site[0])
    return Example(
        bases=reverse_complement(example.bases),
        reference_window=reverse(example.reference_window),
        targets={},
        events=(),
        reference=reverse(example.reference),
        masking=None if example.masking is None else example.masking[::-1],
        allele_spans=spans,
        site=site,
    )


def concatenate_examples(pieces: Sequence[Example], gap: int) -> Example:
    """One example of several, with `gap` N without labels between the bases, and between the references, of any two.

    References beside the bases are joined as they are: each is `gap` bases longer than its bases.
    """
    offsets = np.cumsum([0, *(len(piece.bases) + gap for piece in pieces[:-1])]).tolist()

    def join(rows: Sequence[np.ndarray], filler: int) -> np.ndarray:
        between = np.full(gap, filler, rows[0].dtype)
        return np.concatenate([column for row in rows for column in (between, row)][1:])

    beside = [piece.reference_window for piece in pieces if piece.reference_window is not None]
    references = [piece.reference for piece in pieces if piece.reference is not None]
    distances = [piece.distance for piece in pieces if piece.distance is not None]
    return Example(
        bases=join([piece.bases for piece in pieces], UNKNOWN),
        reference_window=np.concatenate(beside) if beside else None,
        targets={name: join([piece.targets[name] for piece in pieces], IGNORE_INDEX) for name in pieces[0].targets},
        events=tuple(shifted(event, by) for piece, by in zip(pieces, offsets, strict=True) for event in piece.events),
        reference=join(references, UNKNOWN) if references else None,
        distance=join(distances, -1) if distances else None,
    )
