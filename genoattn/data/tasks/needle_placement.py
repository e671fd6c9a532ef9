"""Positions of needles and queries in a window of associative recall."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, NamedTuple

import numpy as np

from genoattn.errors import UserError

MAX_DRAWS = 200
"""Positions of a query that are drawn before the window counts as full."""


class PlacedQuery(NamedTuple):
    """The positions of a query and its needles: the first base of each, the key first on the forward strand.

    Attributes:
        needles: The needle, and then its distractors.
        reverse_strand: True if the needles are on the reverse strand.
        distance: Bases from the needle to the query, without a separator.
    """

    query: int
    needles: tuple[int, ...]
    reverse_strand: bool
    distance: int


@dataclass(frozen=True)
class NeedlePlacement:
    """Draws positions at which the needles (key K, value V) and the queries (Q, V) of a window do not overlap.

        queries="among":   ......KKVV..........QQVV...      the queries are part of the window
                                 |<--distance-->|
        queries="after":   ......KKVV...........QQVVQQVV    the queries follow the window, as a sequence of their own
                                 |<---distance-->|
        queries="before":  QQVVQQVV......KKVV...........    the queries come before the window
                           |<--distance-->|

    Positions count from the start of the window. Queries of their own sequence count on behind the window, even if
    the model reads them before it.

    Attributes:
        pairs: Queries of a window; fewer if they would fill more than half of it.
        unit: Bases of a key with its value.
        distractors: Near-duplicates of each needle.
        queries: The place of the queries.
        distance: Fewest and most bases from a needle to its query, log-uniform; None: all equally likely.
        reverse_strand_fraction: Share of needles on the reverse strand.
    """

    pairs: int
    unit: int
    distractors: int
    queries: Literal["among", "after", "before"]
    distance: Sequence[int] | None
    reverse_strand_fraction: float

    def __post_init__(self) -> None:
        share, distance = self.reverse_strand_fraction, self.distance
        if not 0 <= share <= 1:
            raise UserError(f"task.reverse_strand_fraction must be a share between 0 and 1, got {share}")
        if distance is not None and (len(distance) != 2 or not 0 < distance[0] <= distance[1]):
            raise UserError(f"task.distance must be null or [fewest, most] bases, got {list(distance)}")

    @property
    def group_length(self) -> int:
        """Bases of the window that a query and its needles take."""
        return (1 + self.distractors + (self.queries == "among")) * self.unit

    def capacity(self, length: int) -> int:
        """Queries whose needles fill half of a window of `length` bases; more would be hard to place."""
        return length // 2 // self.group_length

    def draw(self, length: int, rng: np.random.Generator) -> list[PlacedQuery] | None:
        """Random positions of all queries of a window of `length` bases; None if one was not placed."""
        starts: list[int] = []
        placed: list[PlacedQuery] = []
        count = min(self.pairs, self.capacity(length))
        for number in range(count):
            candidates = self._candidates(length, number, count, rng)
            chosen = next((query for query in candidates if self._fits(query, starts)), None)
            if chosen is None:
                return None
            starts += [chosen.query, *chosen.needles]
            placed.append(chosen)
        return placed

    def _candidates(self, length: int, number: int, count: int, rng: np.random.Generator) -> Iterator[PlacedQuery]:
        """Random positions of query `number` of `count`, which may overlap."""
        last = length - self.unit  # where the last needle of a window can begin
        query, ahead = length + number * self.unit, (count - number) * self.unit  # ahead: bases of the later queries
        nearest = {"among": self.unit, "after": query - last, "before": ahead}[self.queries]
        farthest = {"among": last, "after": query, "before": ahead + last}[self.queries]
        low, high = (nearest, farthest) if self.distance is None else self.distance
        high = max(min(high, farthest), nearest)
        low = min(max(low, nearest), high)
        for _ in range(MAX_DRAWS):
            if self.distance is None:
                drawn = rng.integers(low, high + 1, 1 + self.distractors)
            else:
                drawn = np.exp(rng.uniform(log(low), log(high + 1), 1 + self.distractors)).astype(np.int64)
            distances = np.clip(drawn, low, high).tolist()
            if self.queries == "among":
                query = int(rng.integers(max(distances), farthest + 1))
            starts = [distance - ahead if self.queries == "before" else query - distance for distance in distances]
            yield PlacedQuery(query, tuple(starts), bool(rng.random() < self.reverse_strand_fraction), distances[0])

    def _fits(self, placed: PlacedQuery, starts: Sequence[int]) -> bool:
        """True if the query and its needles overlap neither each other nor those at `starts`."""
        before = list(starts)
        for start in (placed.query, *placed.needles):
            if any(abs(start - other) < self.unit for other in before):
                return False
            before.append(start)
        return True
