"""The contract of a task: from bases of a genome to an example with its truth, base by base, before any token."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Int8, UInt8

from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.mutate import Event, Rates, Sample
from genoattn.objective import Output

SHOWN, MASKED, REPLACED, KEPT = range(4)
"""What becomes of a base: shown and not asked for, or asked for behind a mask, behind another token, or as it is."""


class Query(NamedTuple):
    """A question in a window about another place of it: bases [start, stop) are those of the needle at `source`."""

    start: int
    stop: int
    source: int
    """The first of the bases that answer it, as many as are asked for, counted from where the context begins."""
    opposite: bool
    """True where they are on the other strand, and so are to be read as their reverse complement."""
    distance: int
    """Bases from the needle to the query."""
    rivals: tuple[int, ...] = ()
    """The first of the bases that would answer it if a near-duplicate of the key were taken for it."""


class Example(NamedTuple):
    """One window: what is shown, and what is asked of each of its bases."""

    bases: UInt8[np.ndarray, "length"]
    beside: UInt8[np.ndarray, "wide"] | None
    """The reference laid beside the bases, `reach` bases longer at both ends; None where a task shows no such."""
    targets: dict[str, Int8[np.ndarray, "asked"]]
    """For each output the class (or 0 and 1) of each base, IGNORE where nothing is asked; of the window: one."""
    events: tuple[Event, ...]
    """The mutations in the window, in its own coordinates (0-based, half-open)."""
    before: UInt8[np.ndarray, "context"] | None = None
    """The reference that stands before the bases in the same context, a separator between them."""
    leads: bool = False
    """True where the bases come first, and `before` after them."""
    hidden: UInt8[np.ndarray, "length"] | None = None
    """SHOWN, MASKED, REPLACED or KEPT for each base."""
    block: tuple[int, int] = (0, 0)
    """Which stretch of the genome it was drawn from: record, and number of the stretch in it."""
    sites: tuple[tuple[int, int], tuple[int, int]] | None = None
    """What a verdict on the window looks at: bases [start, stop) of `before`, and of `bases`."""
    distance: Int[np.ndarray, "length"] | None = None
    """How far back each base has its counterpart in `before`, in bases and the separator; -1 where it has none there.
    None: the task shows no reference before the bases."""
    queries: tuple[Query, ...] = ()
    """What is asked about other places of the window, in order."""


class Framing(NamedTuple):
    """What a batch must know of a task: whether the positions of the bases begin anew after `before`, and whether
    tokens are asked for: the hidden ones, each next one, or none."""

    restart: bool = False
    asks: Literal["", "hidden", "next"] = ""


PLAIN = Framing()


class Task(ABC):
    """Makes examples; knows neither tokenizer nor model."""

    exam: ClassVar[str]
    """How a model trained for it is examined: "detection", "language", "classification" or "retrieval"."""
    side_by_side: ClassVar[bool] = False
    """True where a reference is laid beside the bases, so that each token must own one base."""
    elastic: ClassVar[bool] = False
    """True where a window may be shorter than asked for, as a short record is."""
    outputs: dict[str, Output]
    reach: int = 0
    """How many bases of a reference that is laid beside stand before a window's first and after its last base."""
    segments: int = 1
    """How many sequences stand in one context."""
    framing: Framing = PLAIN
    rates: Rates = Rates()
    """The true rates, at which a model is tested and at which a curriculum ends."""

    @abstractmethod
    def span(self, length: int) -> int:
        """Reference bases needed for a window of `length` sample bases."""

    @abstractmethod
    def example(
        self, reference: UInt8[np.ndarray, "span"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        """A window of `length` sample bases, mutated at `rates`, from the first bases of `reference`."""

    def refuse(self, tokens_own: int, causal: bool, reads_on: int = 0) -> str:
        """Why this task cannot be set to a model; empty if it can.

        Its tokens own so many bases and read `reads_on` beyond them, and it is causal or not.
        """
        if self.side_by_side and tokens_own > 1:
            return (
                "it lays reference and sample side by side, one token a base, and a token of this tokenizer owns up to"
                f" {tokens_own}; use tokenizer=base, or tokenizer=kmer tokenizer.overlapping=true, or another task"
            )
        return ""


class Comparison(Task):
    """A task that shows a reference and a sample, and asks of each sample base whether it is mutated."""

    exam = "detection"
    starts_together: bool = True
    """True where sample and reference begin at the same place on the same strand, as an aligner takes them."""

    @abstractmethod
    def lay(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        """The example of a sample that starts at reference base `start`, which is beside[reach]."""


def other_strand(example: Example) -> Example:
    """What the other strand shows, read 5' to 3'; the truth about it is not turned and left out."""

    def turned(bases: np.ndarray | None) -> np.ndarray | None:
        return None if bases is None else reverse_complement(bases)

    sites = example.sites
    if sites is not None and example.before is not None:
        lengths = (len(example.before), len(example.bases))
        (one, other) = ((size - stop, size - start) for size, (start, stop) in zip(lengths, sites, strict=True))
        sites = (one, other)
    return Example(
        bases=reverse_complement(example.bases),
        beside=turned(example.beside),
        targets={},
        events=(),
        before=turned(example.before),
        hidden=None if example.hidden is None else example.hidden[::-1],
        sites=sites,
    )
