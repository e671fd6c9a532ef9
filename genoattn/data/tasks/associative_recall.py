"""Associative recall: the key of a needle is repeated, and the value that followed it is predicted."""

from collections.abc import Sequence
from copy import copy
from typing import Literal, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import MASK, VISIBLE, Example, Query
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.needle_placement import NeedlePlacement, PlacedQuery
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.simulate import Rates

MAX_VALUE_DRAWS = 200
"""Draws of values that all have to differ."""

MAX_WINDOW_DRAWS = 50
"""Draws of a whole window."""

MIN_KMERS_PER_BASE = 64
"""Possible keys per base of a window, so that a key is rarely repeated by chance."""


@final
class AssociativeRecall(Task):
    """Associative recall (MQAR, Arora et al. 2023) in the four letters of DNA.

    A needle is a key and, after it, a value. A query repeats the key of a needle, and the value after it is predicted.
    A needle on the reverse strand is the reverse complement of key and value; its query is on the forward strand, so
    that a causal model can answer it. No key occurs anywhere else in the window, on either strand.

    Distractors are near-duplicates of a needle with another value. They are drawn at the same distances as the needle,
    and the letters of keys and values are as frequent as in the window, so that only the key tells a needle from its
    distractors. Queries in a sequence of their own cannot be taken for needles by heads that read only the other
    sequence (`heads.cross_segment`).
    """

    evaluator = "retrieval"

    def __init__(
        self,
        haystack: Literal["genome", "random"] = "genome",
        pairs: int = 4,
        key: int = 24,
        value: int = 8,
        distractor_mismatches: int | None = None,
        distractors: int = 1,
        reverse_strand_fraction: float = 0.0,
        distance: Sequence[int] | None = None,
        form: Literal["masked", "causal"] = "masked",
        queries: Literal["among", "after", "before"] = "among",
    ):
        """Build the task.

        Args:
            haystack: "genome": the window; "random": random bases.
            pairs: Queries of a window; in a shorter window of a curriculum as many as fill half of it.
            key: Bases of a key.
            value: Bases of a value.
            distractor_mismatches: Bases by which the key of a distractor differs; None: no distractors.
            distractors: Distractors of each needle, 1 to 3.
            reverse_strand_fraction: Share of needles on the reverse strand.
            distance: Fewest and most bases from a needle to its query, log-uniform; None: all equally likely.
            form: "masked": values are masked; "causal": every base of a value is predicted from those before it.
            queries: "among" the bases of the window, or as a sequence of their own "after" or "before" it.

        Raises:
            UserError: A setting is out of range or contradicts another.
        """
        for name, word, words in (
            ("haystack", haystack, ("genome", "random")),
            ("form", form, ("masked", "causal")),
            ("queries", queries, ("among", "after", "before")),
        ):
            if word not in words:
                raise UserError(f"task.{name} must be {' or '.join(map(repr, words))}, got {word!r}")
        if queries == "before" and form == "causal":
            raise UserError('task.queries="before" puts queries before needles, which task.form=causal cannot read yet')
        for name, number in (("pairs", pairs), ("key", key), ("value", value)):
            if number < 1:
                raise UserError(f"task.{name} must be at least 1, got {number}")
        if distractor_mismatches is not None and not 1 <= distractor_mismatches <= key:
            raise UserError(
                f"task.distractor_mismatches must be null or lie within 1 and the {key} bases of task.key, got"
                f" {distractor_mismatches}"
            )
        if not 1 <= distractors <= 3:
            raise UserError(f"task.distractors must be 1, 2 or 3 (a base has three other letters), got {distractors}")
        self.haystack, self.pairs, self.key, self.value, self.form = haystack, pairs, key, value, form
        self.distractor_mismatches, self.distance = distractor_mismatches, distance
        self.distractors = 0 if distractor_mismatches is None else distractors
        self.placement = NeedlePlacement(
            pairs, key + value, self.distractors, queries, distance, reverse_strand_fraction
        )
        self.segment_count = 1 if queries == "among" else 2
        self.outputs = {"value": TargetSpec(4, 1.0, strand_symmetry="complement" if form == "masked" else "none")}

    def reference_length(self, length: int) -> int:
        """Bases of the window; raises UserError if needles and queries do not fit into it."""
        placement, unit = self.placement, self.placement.unit
        if placement.capacity(length) < self.pairs:
            raise UserError(
                f"task.pairs={self.pairs} queries, each with {1 + self.distractors} needle(s) of {unit} bases,"
                f" take {self.pairs * placement.group_length} bases, more than half of data.length={length}; choose"
                " fewer, a shorter task.key or a longer data.length"
            )
        if 4**self.key < MIN_KMERS_PER_BASE * length:
            least = next(key for key in range(1, 64) if 4**key >= MIN_KMERS_PER_BASE * length)
            raise UserError(
                f"task.key must be at least {least} to be unique among {length} bases of data.length, got {self.key}"
            )
        if self.distance is not None and self.distance[0] + unit > length:
            raise UserError(
                f"task.distance begins at {self.distance[0]} bases, and a needle and its query in data.length={length}"
                f" are at most {length - unit} apart"
            )
        return length

    def at_length(self, length: int) -> "AssociativeRecall":
        """The same task with no more pairs than fit into half of a window, as in a curriculum."""
        shorter = copy(self)
        shorter.pairs = min(self.pairs, max(1, self.placement.capacity(length)))
        return shorter

    def refuse(self, tokens_own: int, causal: bool, reads_on: int = 0) -> str:
        if tokens_own > 1:
            return (
                f"task=recall predicts single bases, and a token of this tokenizer owns up to {tokens_own}; use"
                " tokenizer=nucleotide, or tokenizer=kmer tokenizer.overlapping=true"
            )
        if self.form == "causal" and not causal:
            return "task.form=causal shows the bases that it predicts, which needs model.causal=true, and it is false"
        if self.form == "causal" and reads_on:
            return (
                "task.form=causal predicts the next base, which an overlapping token already reads; use"
                " tokenizer=nucleotide"
            )
        return ""

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        if not self.placement.capacity(length):
            raise UserError(
                f"a window of {length} bases, as curriculum.length has it, cannot hold a query and its needle(s) of"
                f" {self.placement.unit} bases in half of it"
            )
        haystack = rng.integers(0, 4, length, np.uint8) if self.haystack == "random" else reference[:length]
        known = haystack[haystack < 4]
        letters = known if len(known) else np.arange(4, dtype=np.uint8)
        for _ in range(MAX_WINDOW_DRAWS):
            queries = self.placement.draw(length, rng)
            bases = None if queries is None else self._insert(haystack, queries, letters, rng)
            if queries is not None and bases is not None:
                example = self._label(bases, queries)
                return example if self.segment_count == 1 else self._separate(example, length)
        raise UserError(
            f"task.pairs={self.pairs} needles with unique keys found no place in a window of {length} bases; choose"
            " fewer, a wider task.distance or a longer task.key or task.value"
        )

    def _insert(
        self, haystack: np.ndarray, queries: Sequence[PlacedQuery], letters: np.ndarray, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "length"] | None:
        """The window with needles and queries; None if a key occurs elsewhere or two values of a query are the same."""
        unit, inserted = self.placement.unit, []
        own_sequence = np.zeros(len(queries) * unit * (self.segment_count - 1), np.uint8)
        bases = np.concatenate([haystack, own_sequence])
        for placed in queries:
            keys, values = self._keys(letters, rng), self._values(letters, rng)
            needles = np.hstack([keys, values])
            for start, needle in zip(placed.needles, needles, strict=True):
                bases[start : start + unit] = reverse_complement(needle) if placed.reverse_strand else needle
            bases[placed.query : placed.query + unit] = needles[0]
            inserted.append((keys, values))
        text = bases.tobytes()
        for keys, values in inserted:
            if not _all_differ(values):
                return None
            for number, key in enumerate(keys):
                expected = 2 if number == 0 else 1  # the key of the needle occurs in the query too
                if sum(_count(text, strand.tobytes()) for strand in (key, reverse_complement(key))) > expected:
                    return None
        return bases

    def _keys(self, letters: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "needles key"]:
        keys = np.tile(letters[rng.integers(len(letters), size=self.key)], (1 + self.distractors, 1))
        for position in rng.choice(self.key, self.distractor_mismatches or 0, replace=False):
            keys[:, position] = rng.permutation(4)[: 1 + self.distractors]
        return keys

    def _values(self, letters: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "needles value"]:
        for _ in range(MAX_VALUE_DRAWS):
            values = letters[rng.integers(len(letters), size=(1 + self.distractors, self.value))]
            if _all_differ(values):
                break
        return values

    def _label(self, bases: UInt8[np.ndarray, "length"], placed_queries: Sequence[PlacedQuery]) -> Example:
        targets = np.full(len(bases), IGNORE_INDEX, np.int8)
        masking = np.full(len(bases), VISIBLE, np.uint8)
        queries = []
        ahead = int(self.form == "causal")  # a causal model predicts a base at the base before it
        for placed in sorted(placed_queries):
            start, stop = placed.query + self.key, placed.query + self.placement.unit
            targets[start - ahead : stop - ahead] = bases[start:stop]
            masking[start:stop] = MASK
            before_value = 0 if placed.reverse_strand else self.key
            needle, *distractors = (start + before_value for start in placed.needles)
            queries.append(Query(start, stop, needle, placed.reverse_strand, placed.distance, tuple(distractors)))
        masking = None if self.form == "causal" else masking
        return Example(bases, None, {"value": targets}, (), masking=masking, queries=tuple(queries))

    def _separate(self, example: Example, length: int) -> Example:
        """The same example with the queries, which follow `length` bases, as a sequence of their own."""
        queries = tuple(
            query._replace(start=query.start - length, stop=query.stop - length, distance=query.distance + 1)
            for query in example.queries
        )
        return example._replace(
            bases=example.bases[length:],
            reference=example.bases[:length],
            sample_first=self.placement.queries == "before",
            targets={name: target[length:] for name, target in example.targets.items()},
            masking=None if example.masking is None else example.masking[length:],
            queries=queries,
        )


def visible_context(example: Example) -> tuple[UInt8[np.ndarray, "context"], int]:
    """The context without a separator and with 255 for masked bases, and the index of the first base of `bases`."""
    visible = example.bases.copy()
    if example.masking is not None:
        visible[example.masking != VISIBLE] = 255
    if example.reference is None:
        return visible, 0
    return np.concatenate([example.reference, visible]), len(example.reference)


def _all_differ(values: np.ndarray) -> bool:
    return len({value.tobytes() for value in values}) == len(values)


def _count(text: bytes, word: bytes) -> int:
    """Occurrences of a word, overlapping ones included."""
    count, start = 0, text.find(word)
    while start >= 0:
        count, start = count + 1, text.find(word, start + 1)
    return count
