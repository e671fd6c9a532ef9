"""what a task makes"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Int8, UInt8

from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.mutations import Event

VISIBLE, MASK, RANDOM, UNCHANGED = range(4)
"""What becomes of a base: shown and not asked for, or asked for behind a mask, behind another token, or as it is."""


class Query(NamedTuple):
    """A question in a window about another place of it: bases [start, stop) are those of the needle at `source`."""

    start: int
    stop: int
    needle: int
    """The first of the bases that answer it, as many as are asked for, counted from where the context begins."""
    reverse_strand: bool
    """True where they are on the other strand, and so are to be read as their reverse complement."""
    distance: int
    """Bases from the needle to the query."""
    distractors: tuple[int, ...] = ()
    """The first of the bases that would answer it if a near-duplicate of the key were taken for it."""


class Example(NamedTuple):
    """One window: what is shown, and what is asked of each of its bases."""

    bases: UInt8[np.ndarray, "length"]
    reference_window: UInt8[np.ndarray, "wide"] | None
    """The reference laid beside the bases, `reach` bases longer at both ends; None where a task shows no such."""
    targets: dict[str, Int8[np.ndarray, "asked"]]
    """For each output the class (or 0 and 1) of each base, IGNORE where nothing is asked; of the window: one."""
    events: tuple[Event, ...]
    """The mutations in the window, in its own coordinates (0-based, half-open)."""
    reference: UInt8[np.ndarray, "context"] | None = None
    """The reference that stands before the bases in the same context, a separator between them."""
    sample_first: bool = False
    """True where the bases come first, and `before` after them."""
    masking: UInt8[np.ndarray, "length"] | None = None
    """SHOWN, MASKED, REPLACED or KEPT for each base."""
    block: tuple[int, int] = (0, 0)
    """Which stretch of the genome it was drawn from: record, and number of the stretch in it."""
    allele_spans: tuple[tuple[int, int], tuple[int, int]] | None = None
    """What a verdict on the window looks at: bases [start, stop) of `before`, and of `bases`."""
    distance: Int[np.ndarray, "length"] | None = None
    """How far back each base has its counterpart in `before`, in bases and the separator; -1 where it has none there.
    None: the task shows no reference before the bases."""
    queries: tuple[Query, ...] = ()
    """What is asked about other places of the window, in order."""


class ContextFormat(NamedTuple):
    """What a batch must know of a task: whether the positions of the bases begin anew after `before`, and whether
    tokens are asked for: the hidden ones, each next one, or none."""

    restart_positions: bool = False
    token_objective: Literal["", "hidden", "next"] = ""


DEFAULT_FORMAT = ContextFormat()


def reverse_complement_example(example: Example) -> Example:
    """What the other strand shows, read 5' to 3'; the truth about it is not turned and left out."""

    def turned(bases: np.ndarray | None) -> np.ndarray | None:
        return None if bases is None else reverse_complement(bases)

    sites = example.allele_spans
    if sites is not None and example.reference is not None:
        lengths = (len(example.reference), len(example.bases))
        (one, other) = ((size - stop, size - start) for size, (start, stop) in zip(lengths, sites, strict=True))
        sites = (one, other)
    return Example(
        bases=reverse_complement(example.bases),
        reference_window=turned(example.reference_window),
        targets={},
        events=(),
        reference=turned(example.reference),
        masking=None if example.masking is None else example.masking[::-1],
        allele_spans=sites,
    )
