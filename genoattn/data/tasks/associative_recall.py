"""Needles in a long haystack: a key is shown again, and the bases that stood beside it are to be told."""

from collections.abc import Iterator, Sequence
from math import log
from typing import Literal, NamedTuple, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import MASK, VISIBLE, Example, Query
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.simulate import Rates

TRIES = 200
"""How often a place for a query or values that differ are drawn again before it is held to be impossible."""


WINDOWS = 50
"""How often a whole window is."""


MARGIN = 64
"""How many times as many k-mers as bases there must be, so that a key is rarely met by chance."""


class _Group(NamedTuple):
    """Where a query starts, and the needle and then its rivals; of the other strand or of its own.

    `distance` is that of query and needle, without a separator.
    """

    query: int
    copies: tuple[int, ...]
    opposite: bool
    distance: int


@final
class AssociativeRecall(Task):
    """Associative recall (zoology's MQAR, Arora et al. 2023; Genome-NIAH) in four letters.

    A needle is a `key` of so many bases and, after it, a `value`. Later in the window its query shows the key once
    more, and the value after it is asked for: behind masks ("masked"), or each base from those before it, which are
    shown ("causal"). A share `opposite` of the needles lies on the other strand: there the window reads the reverse
    complement of key and value, value first. So a query reads the same in every case, and a causal model can answer it.

    With `delta` each needle has `rivals`: any two of their keys differ in exactly `delta` bases, at the same places,
    and their values differ. Without it there are none, and other keys are unrelated. Every key is met nowhere else in
    the window, on either strand.

    `distance` is that from a needle's first base to its query's; drawn between these bounds, as far as the window goes,
    each doubling as likely, or (None) with all distances equally likely. Rivals are placed by the same draw, none later
    than the query, and letters of keys and values are as common as in the window: but for its key nothing tells a
    needle from a rival, and little from the haystack. `pairs` needles are asked for in a window of full length, and in
    the shorter ones of a curriculum as many as fill half of it.

    `queries` stand "among" the haystack's bases, or in a sequence of their own "after" or "before" it, a separator
    between them: heads for the other sequence alone (`attention.cross`) do then not take a query for a needle. Where
    they come before it, they are the first tokens, which a layer may let see everything (`attention.global_tokens`).
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
        for name, word, words in (
            ("haystack", haystack, ("genome", "random")),
            ("form", form, ("masked", "causal")),
            ("queries", queries, ("among", "after", "before")),
        ):
            if word not in words:
                raise UserError(f"task.{name} must be {' or '.join(map(repr, words))}, got {word!r}")
        if queries == "before" and form == "causal":
            raise UserError('task.queries="before" asks for what is yet to come, which task.form=causal never shows')
        for name, number in (("pairs", pairs), ("key", key), ("value", value)):
            if number < 1:
                raise UserError(f"task.{name} must be at least 1, got {number}")
        if distractor_mismatches is not None and not 1 <= distractor_mismatches <= key:
            raise UserError(
                f"task.distractor_mismatches must be null or lie within 1 and the {key} bases of task.key, got"
                f" {distractor_mismatches}"
            )
        if not 1 <= distractors <= 3:
            raise UserError(
                "task.distractors must be 1, 2 or 3, as many letters as a base can be besides its own, got"
                f" {distractors}"
            )
        if not 0 <= reverse_strand_fraction <= 1:
            raise UserError(
                f"task.reverse_strand_fraction must be a share between 0 and 1, got {reverse_strand_fraction}"
            )
        if distance is not None and (len(distance) != 2 or not 0 < distance[0] <= distance[1]):
            raise UserError(
                f"task.distance must be null or the least and the greatest number of bases, got {list(distance)}"
            )
        self.haystack, self.pairs, self.key, self.value = haystack, pairs, key, value
        self.distractor_mismatches, self.reverse_strand_fraction, self.distance, self.form = (
            distractor_mismatches,
            reverse_strand_fraction,
            distance,
            form,
        )
        self.distractors = 0 if distractor_mismatches is None else distractors
        self.unit, self.apart, self.leads = key + value, queries != "among", queries == "before"
        self.segment_count = 1 + self.apart
        self.outputs = {"value": TargetSpec(4, 1.0, strand_symmetry="complement" if form == "masked" else "none")}

    def reference_length(self, length: int) -> int:
        """The window itself; raises UserError where it cannot hold what is to be planted."""
        if self._room(length) < self.pairs:
            raise UserError(
                f"task.pairs={self.pairs} queries, each with {1 + self.distractors} needle(s) of {self.unit} bases,"
                f" take {self.pairs * self._group} bases, more than half of data.length={length}; choose fewer, a"
                " shorter task.key or a longer data.length"
            )
        if 4**self.key < MARGIN * length:
            least = next(key for key in range(1, 64) if 4**key >= MARGIN * length)
            raise UserError(
                f"task.key must be at least {least} to be unique among {length} bases of data.length, got {self.key}"
            )
        if self.distance is not None and self.distance[0] + self.unit > length:
            raise UserError(
                f"task.distance begins at {self.distance[0]} bases, and a needle and its query in data.length={length}"
                f" are at most {length - self.unit} apart"
            )
        return length

    def refuse(self, tokens_own: int, causal: bool, reads_on: int = 0) -> str:
        if tokens_own > 1:
            return (
                f"task=recall asks base by base, and a token of this tokenizer owns up to {tokens_own}; use"
                " tokenizer=nucleotide, or tokenizer=kmer tokenizer.overlapping=true"
            )
        if self.form == "causal" and not causal:
            return "task.form=causal shows the bases it asks for, which needs model.causal=true, and it is false"
        if self.form == "causal" and reads_on:
            return (
                "task.form=causal asks for the next base, which an overlapping token already reads; use"
                " tokenizer=nucleotide"
            )
        return ""

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        if not self._room(length):
            raise UserError(
                f"a window of {length} bases, as curriculum.length has it, cannot hold a query and its needle(s) of"
                f" {self.unit} bases in half of it"
            )
        haystack = rng.integers(0, 4, length, np.uint8) if self.haystack == "random" else reference[:length]
        known = haystack[haystack < 4]
        letters = known if len(known) else np.arange(4, dtype=np.uint8)
        for _ in range(WINDOWS):
            groups = self._places(length, rng)
            planted = None if groups is None else self._planted(haystack, groups, letters, rng)
            if groups is not None and planted is not None:
                made = self._asked(planted, groups)
                return _split(made, length, self.leads) if self.apart else made
        raise UserError(
            f"task.pairs={self.pairs} needles with unique keys found no place in a window of {length} bases; choose"
            " fewer, a wider task.distance or a longer task.key or task.value"
        )

    @property
    def _group(self) -> int:
        """Bases of a needle, its rivals and, where it is there too, its query."""
        return (2 + self.distractors - self.apart) * self.unit

    def _room(self, length: int) -> int:
        """How many groups fill half of a window; more would be hard to place."""
        return length // 2 // self._group

    def _places(self, length: int, rng: np.random.Generator) -> list[_Group] | None:
        """Groups none of whose units overlap; None where they found no room."""
        taken: list[int] = []
        groups: list[_Group] = []
        count = min(self.pairs, self._room(length))
        for number in range(count):
            drawn = self._draws(length, number, count, rng)
            found = next((group for group in drawn if _free(group, taken, self.unit)), None)
            if found is None:
                return None
            taken += [found.query, *found.copies]
            groups.append(found)
        return groups

    def _draws(self, length: int, number: int, count: int, rng: np.random.Generator) -> Iterator[_Group]:
        """Places of query `number`, of its needle and of their rivals; queries that stand apart do so one by one."""
        nearest, farthest = self.unit, length - self.unit
        behind, ahead = length + number * self.unit, (count - number) * self.unit
        if self.leads:
            nearest, farthest = ahead, ahead + farthest
        elif self.apart:
            nearest, farthest = behind - farthest, behind
        low, high = (nearest, farthest) if self.distance is None else self.distance
        high = max(min(high, farthest), nearest)
        low = min(max(low, nearest), high)
        for _ in range(TRIES):
            if self.distance is None:
                drawn = rng.integers(low, high + 1, 1 + self.distractors)
            else:
                drawn = np.exp(rng.uniform(log(low), log(high + 1), 1 + self.distractors)).astype(np.int64)
            apart = [min(max(one, low), high) for one in drawn.tolist()]
            query = behind if self.apart else int(rng.integers(max(apart), farthest + 1))
            copies = tuple(one - ahead if self.leads else query - one for one in apart)
            yield _Group(query, copies, bool(rng.random() < self.reverse_strand_fraction), apart[0])

    def _planted(
        self, haystack: np.ndarray, groups: Sequence[_Group], letters: np.ndarray, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "length"] | None:
        """The window with all units in place; None where a key is met elsewhere or near-duplicates share a value."""
        beside = np.zeros(len(groups) * self.unit * self.apart, np.uint8)
        bases, planted = np.concatenate([haystack, beside]), []
        for group in groups:
            keys, values = self._keys(letters, rng), self._values(letters, rng)
            for number, (start, unit) in enumerate(zip(group.copies, np.hstack([keys, values]), strict=True)):
                bases[start : start + self.unit] = reverse_complement(unit) if group.opposite else unit
                if number == 0:
                    bases[group.query : group.query + self.unit] = unit
            planted.append((keys, values))
        text = bases.tobytes()
        for keys, values in planted:
            if not _differ(values):
                return None
            for number, key in enumerate(keys):  # the needle's own stands at the query too
                met = sum(_count(text, strand.tobytes()) for strand in (key, reverse_complement(key)))
                if met > 1 + (number == 0):
                    return None
        return bases

    def _keys(self, letters: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "copies key"]:
        keys = np.tile(letters[rng.integers(len(letters), size=self.key)], (1 + self.distractors, 1))
        for place in rng.choice(self.key, self.distractor_mismatches or 0, replace=False):
            keys[:, place] = rng.permutation(4)[: 1 + self.distractors]
        return keys

    def _values(self, letters: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "copies value"]:
        for _ in range(TRIES):
            values = letters[rng.integers(len(letters), size=(1 + self.distractors, self.value))]
            if _differ(values):
                break
        return values

    def _asked(self, bases: UInt8[np.ndarray, "length"], groups: Sequence[_Group]) -> Example:
        target = np.full(len(bases), IGNORE_INDEX, np.int8)
        hidden = np.full(len(bases), VISIBLE, np.uint8)
        queries = []
        ahead = int(self.form == "causal")  # what the next base is, is answered at the one before it
        for group in sorted(groups):
            start, stop = group.query + self.key, group.query + self.unit
            target[start - ahead : stop - ahead] = bases[start:stop]
            hidden[start:stop] = MASK
            needle, *rivals = (copy + (0 if group.opposite else self.key) for copy in group.copies)
            queries.append(Query(start, stop, needle, group.opposite, group.distance, tuple(rivals)))
        return Example(bases, None, {"value": target}, (), masking=None if ahead else hidden, queries=tuple(queries))


def _split(example: Example, length: int, leads: bool) -> Example:
    """The same with what comes after `length` bases as a sequence of its own; needles stay where they are told."""
    queries = tuple(
        one._replace(start=one.start - length, stop=one.stop - length, distance=one.distance + 1)
        for one in example.queries
    )
    targets = {name: target[length:] for name, target in example.targets.items()}
    hidden = None if example.masking is None else example.masking[length:]
    bases, before = example.bases[length:], example.bases[:length]
    return example._replace(
        bases=bases, reference=before, sample_first=leads, targets=targets, masking=hidden, queries=queries
    )


def visible_context(example: Example) -> tuple[UInt8[np.ndarray, "context"], int]:
    """The context of an example without a separator, hidden bases as 255, and where its own bases begin in it."""
    shown = example.bases.copy()
    if example.masking is not None:
        shown[example.masking > 0] = 255
    if example.reference is None:
        return shown, 0
    return np.concatenate([example.reference, shown]), len(example.reference)


def _free(group: _Group, taken: Sequence[int], unit: int) -> bool:
    """Whether the units of a group overlap neither each other nor those that are placed."""
    placed = list(taken)
    for start in (group.query, *group.copies):
        if any(abs(start - other) < unit for other in placed):
            return False
        placed.append(start)
    return True


def _differ(values: np.ndarray) -> bool:
    return len({value.tobytes() for value in values}) == len(values)


def _count(text: bytes, word: bytes) -> int:
    """Occurrences, those that overlap too."""
    count, at = 0, text.find(word)
    while at >= 0:
        count, at = count + 1, text.find(word, at + 1)
    return count
