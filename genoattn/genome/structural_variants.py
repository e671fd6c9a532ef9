"""Structural changes: stretches inverted or copied in tandem, short tandem repeats that gain and lose units."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import COMPLEMENT, reverse_complement
from genoattn.genome.mutations import Event, Mutation, Sample, apply_mutations

_INVERSION, _TANDEM, _REPEAT = range(3)


class StructuralVariant(NamedTuple):
    """What becomes of reference bases [start, stop): all of them are inverted, or copied right behind themselves; or
    they are a short tandem repeat that gains (expansion) or loses (contraction) `size` bases.
    """

    kind: Literal["inversion", "duplication", "expansion", "contraction"]
    start: int
    stop: int
    size: int

    def on_reverse_strand(self, length: int) -> "StructuralVariant":
        """The same change as the other strand of a reference of `length` bases shows it."""
        return self._replace(start=length - self.stop, stop=length - self.start)

    def shifted(self, by: int) -> "StructuralVariant":
        """The same change, so many bases further on."""
        return self._replace(start=self.start + by, stop=self.stop + by)

    def mutation(self, reference: UInt8[np.ndarray, "reference"]) -> Mutation:
        """It as bases that give way to others."""
        if self.kind == "inversion":
            return Mutation(self.start, self.stop, reverse_complement(reference[self.start : self.stop]).tobytes())
        begin = self.stop - self.size
        if self.kind == "contraction":
            return Mutation(begin, self.stop, b"")
        return Mutation(self.stop, self.stop, reference[begin : self.stop].tobytes())


@dataclass(frozen=True)
class StructuralRates:
    """How often and how to rearrange: events a base of each kind, whatever the rate of small mutations, and sizes.

    Inversions and tandem duplications are `shortest` to `longest` bases long, each size equally likely. A short tandem
    repeat has units of 1 to `unit` random bases; 1 to `units` of them are gained or lost, and two or more are left.
    """

    inversion: float = 0.0
    tandem: float = 0.0
    repeat: float = 0.0
    shortest: int = 20
    longest: int = 200
    unit: int = 6
    units: int = 5

    def __post_init__(self) -> None:
        for name, rate in (("inversion", self.inversion), ("tandem", self.tandem), ("repeat", self.repeat)):
            if not (isfinite(rate) and 0 <= rate <= 1):
                raise UserError(f"task.{name} must be events per base between 0 and 1, got {rate}")
        if self.rate > 1:
            raise UserError(
                f"task.inversion, tandem and repeat must be 1 event per base together at most, got {self.rate}"
            )
        if not 2 <= self.shortest <= self.longest:
            raise UserError(
                f"task.structure_shortest must lie between 2 bases and task.structure_longest={self.longest},"
                f" got {self.shortest}"
            )
        for name, value in (("unit", self.unit), ("units", self.units)):
            if value < 1:
                raise UserError(f"task.{name} must be at least 1, got {value}")

    @property
    def rate(self) -> float:
        """Events a base of all kinds."""
        return self.inversion + self.tandem + self.repeat

    def simulate(
        self, reference: UInt8[np.ndarray, "reference"], rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "reference"], list[StructuralVariant]]:
        """Random changes in order, on A, C, G and T only, an untouched base between any two and at both ends.

        The reference comes back with a tandem repeat written over it wherever one is to change: a genome has few of
        them. An event that would touch the one before it is left out. Nothing is drawn where all rates are 0.
        """
        if self.rate == 0:
            return reference, []
        starts = np.flatnonzero(rng.random(len(reference)) < self.rate)
        rates = {_INVERSION: self.inversion, _TANDEM: self.tandem, _REPEAT: self.repeat}
        kinds = rng.choice(list(rates), len(starts), p=np.array(list(rates.values())) / self.rate)
        sizes = rng.integers(self.shortest, self.longest + 1, len(starts))
        reference = reference.copy()
        changes: list[StructuralVariant] = []
        free = 1
        for start, kind, size in zip(starts.tolist(), kinds.tolist(), sizes.tolist(), strict=True):
            change = StructuralVariant("inversion" if kind == _INVERSION else "duplication", start, start + size, size)
            letters = b""
            if kind == _REPEAT:
                change, letters = self._repeat(start, rng)
            if start < free or change.stop >= len(reference) or reference[start : change.stop].max() > 3:
                continue
            if letters:
                reference[start : change.stop] = np.frombuffer(letters, np.uint8)
            changes.append(change)
            free = change.stop + 1
        return reference, changes

    def _repeat(self, start: int, rng: np.random.Generator) -> tuple[StructuralVariant, bytes]:
        """A repeat that is to change, and its letters before it does."""
        unit, units = int(rng.integers(1, self.unit + 1)), int(rng.integers(1, self.units + 1))
        copies = units + 2 + int(rng.integers(0, 2 * self.units + 1))
        letters = rng.integers(0, 4, unit, dtype=np.uint8).tobytes() * copies
        kind = "expansion" if rng.random() < 0.5 else "contraction"
        return StructuralVariant(kind, start, start + unit * copies, unit * units), letters


def drop_overlapping(mutations: Sequence[Mutation], changes: Sequence[StructuralVariant]) -> list[Mutation]:
    """The mutations (in order) that neither lie in nor touch a change (in order)."""
    kept: list[Mutation] = []
    number = 0
    for mutation in mutations:
        while number < len(changes) and changes[number].stop < mutation.start:
            number += 1
        if number == len(changes) or mutation.stop < changes[number].start:
            kept.append(mutation)
    return kept


def apply_structural(
    reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation], changes: Sequence[StructuralVariant]
) -> Sample:
    """The sample that mutations and changes make, all in order, none touching another, each told by one event.

    A duplication or expansion is an insertion, a contraction a deletion, left-aligned and with every place that gives
    the same sample; only the kind of the event differs. Bases of an inverted stretch are neither substituted nor
    inserted, and their origin runs backwards. Its event is the shortest inversion that gives the sample, [first, last)
    the longest that touches no other event: bases that pair with those at the other end stay as they were. One that
    changes nothing is no event.
    """
    if not changes:
        return apply_mutations(reference, mutations)
    named = [(mutation, "") for mutation in mutations]
    named += [(change.mutation(reference), change.kind) for change in changes if change.kind != "inversion"]
    named.sort(key=lambda one: one[0][:2])
    tight = [_tightened(reference, change) for change in changes if change.kind == "inversion"]
    parts: list[Sample] = []
    done = number = 0
    for start, stop in [*((start, stop) for start, stop in tight if start < stop), (len(reference), None)]:
        inside: list[tuple[Mutation, str]] = []
        while number < len(named) and named[number][0].stop <= start:
            inside.append(named[number])
            number += 1
        parts.append(_part(reference, done, start, inside))
        if stop is not None:
            parts.append(_inverted(reference, start, stop))
            done = stop
    return _joined(parts)


def _tightened(reference: np.ndarray, inversion: StructuralVariant) -> tuple[int, int]:
    """Without the bases at both ends that pair with each other, and are the same after it."""
    start, stop = inversion.start, inversion.stop
    while start < stop and reference[start] == COMPLEMENT[reference[stop - 1]]:
        start, stop = start + 1, stop - 1
    return start, max(start, stop)


def _part(reference: np.ndarray, start: int, stop: int, named: list[tuple[Mutation, str]]) -> Sample:
    """What becomes of reference bases [start, stop) between two inversions."""
    moved = [Mutation(one.start - start, one.stop - start, one.inserted) for one, _ in named]
    sample = apply_mutations(reference[start:stop], moved)
    events = (
        event._replace(kind=kind or event.kind, reference=event.reference + start)
        for event, (_, kind) in zip(sample.events, named, strict=True)
    )
    return sample._replace(reference_position=sample.reference_position + start, events=tuple(events))


def _inverted(reference: np.ndarray, start: int, stop: int) -> Sample:
    size = stop - start
    event = Event("inversion", size, 0, size, 0, size, start)
    same = apply_mutations(reverse_complement(reference[start:stop]), [])  # in itself nothing is changed
    return same._replace(reference_position=stop - 1 - same.reference_position, events=(event,))


def _joined(parts: list[Sample]) -> Sample:
    arrays = [np.concatenate(columns) for columns in zip(*(part[:-1] for part in parts), strict=True)]
    offsets = np.cumsum([0, *(len(part.bases) for part in parts)]).tolist()
    events = [
        event._replace(
            start=event.start + by, stop=event.stop + by, earliest=event.earliest + by, latest=event.latest + by
        )
        for part, by in zip(parts, offsets, strict=False)
        for event in part.events
    ]
    widened = [_widened(arrays[0], events, number) for number in range(len(events))]
    return Sample(*arrays, events=tuple(widened))


def _widened(bases: np.ndarray, events: list[Event], number: int) -> Event:
    """An inversion with its reach to both sides, as far as bases pair and short of touching another event."""
    event = events[number]
    if event.kind != "inversion":
        return event
    before, after = events[number - 1] if number else None, events[number + 1] if number + 1 < len(events) else None
    left = event.start if before is None else event.start - (before.latest + 1)
    right = len(bases) - event.stop if after is None else after.earliest - 1 - event.stop
    by = 0
    while by < min(left, right) and bases[event.start - 1 - by] == COMPLEMENT[bases[event.stop + by]]:
        by += 1
    return event._replace(earliest=event.start - by, latest=event.stop + by)
