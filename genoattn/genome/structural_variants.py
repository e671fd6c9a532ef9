"""Structural variants: inversions, tandem duplications, repeats that gain or lose units, large indels."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import COMPLEMENT, reverse_complement
from genoattn.genome.mutations import Event, Mutation, Sample, apply_mutations, shifted

_INVERSION, _TANDEM, _REPEAT, _INSERTION, _DELETION = range(5)
_NAMES = ("inversion", "duplication", "", "insertion", "deletion")


class StructuralVariant(NamedTuple):
    """A structural variant of reference bases [start, stop), 0-based and half-open.

    All of the bases are inverted, copied directly behind themselves (duplication) or deleted; or they are a short
    tandem repeat that gains (expansion) or loses (contraction) `size` bases. An insertion puts the codes in `inserted`
    before base `start`, which is `stop` too.
    """

    kind: Literal["inversion", "duplication", "expansion", "contraction", "insertion", "deletion"]
    start: int
    stop: int
    size: int
    inserted: bytes = b""

    def on_reverse_strand(self, length: int) -> "StructuralVariant":
        """The same variant in the coordinates of the opposite strand of a reference of `length` bases."""
        inserted = reverse_complement(np.frombuffer(self.inserted, np.uint8)).tobytes()
        return self._replace(start=length - self.stop, stop=length - self.start, inserted=inserted)

    def shifted(self, by: int) -> "StructuralVariant":
        """The same variant `by` bases further right."""
        return self._replace(start=self.start + by, stop=self.stop + by)

    def mutation(self, reference: UInt8[np.ndarray, "reference"]) -> Mutation:
        """The same change as a mutation."""
        if self.kind == "inversion":
            return Mutation(self.start, self.stop, reverse_complement(reference[self.start : self.stop]).tobytes())
        if self.kind == "insertion":
            return Mutation(self.start, self.stop, self.inserted)
        begin = self.stop - self.size
        if self.kind in ("contraction", "deletion"):
            return Mutation(begin, self.stop, b"")
        return Mutation(self.stop, self.stop, reference[begin : self.stop].tobytes())


@dataclass(frozen=True)
class StructuralRates:
    """Rates and sizes of structural variants; raises UserError if a value is out of range.

    Attributes:
        inversion: Inversions per base of the reference.
        tandem: Tandem duplications per base.
        repeat: Changes of a short tandem repeat per base.
        shortest: Fewest bases of every kind but the changes of repeats.
        longest: Most bases of them; every size between is equally likely.
        unit: Most bases of a unit of a repeat.
        units: Most units that are gained or lost; two or more are left.
        large_insertion: Large insertions of random bases per base.
        large_deletion: Large deletions per base.
    """

    inversion: float = 0.0
    tandem: float = 0.0
    repeat: float = 0.0
    shortest: int = 20
    longest: int = 200
    unit: int = 6
    units: int = 5
    large_insertion: float = 0.0
    large_deletion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("inversion", "tandem", "repeat", "large_insertion", "large_deletion"):
            rate = getattr(self, name)
            if not (isfinite(rate) and 0 <= rate <= 1):
                raise UserError(f"task.{name} must be events per base between 0 and 1, got {rate}")
        if self.rate > 1:
            raise UserError(
                "task.inversion, tandem, repeat, large_insertion and large_deletion must be 1 event per base together"
                f" at most, got {self.rate}"
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
        """Events per base of all kinds."""
        return self.inversion + self.tandem + self.repeat + self.large_insertion + self.large_deletion

    def simulate(
        self, reference: UInt8[np.ndarray, "reference"], rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "reference"], list[StructuralVariant]]:
        """Random variants, sorted by start, with an unchanged base between any two and at both ends.

        Also returns the reference, in which every tandem repeat that is to change has been written over the bases,
        because a genome has few of them. Events that touch the event before them, or a letter other than A, C, G, T,
        are left out. If all rates are 0, no random number is drawn.
        """
        if self.rate == 0:
            return reference, []
        starts = np.flatnonzero(rng.random(len(reference)) < self.rate)
        rates = {_INVERSION: self.inversion, _TANDEM: self.tandem, _REPEAT: self.repeat}
        rates |= {_INSERTION: self.large_insertion, _DELETION: self.large_deletion}
        kinds = rng.choice(list(rates), len(starts), p=np.array(list(rates.values())) / self.rate)
        sizes = rng.integers(self.shortest, self.longest + 1, len(starts))
        reference = reference.copy()
        variants: list[StructuralVariant] = []
        free = 1  # the first base that a next event may begin at
        for start, kind, size in zip(starts.tolist(), kinds.tolist(), sizes.tolist(), strict=True):
            letters = b""
            if kind == _REPEAT:
                variant, letters = self._repeat(start, rng)
            elif kind == _INSERTION:
                random_bases = rng.integers(0, 4, size, dtype=np.uint8).tobytes()
                variant = StructuralVariant("insertion", start, start, size, random_bases)
            else:
                variant = StructuralVariant(_NAMES[kind], start, start + size, size)
            if (
                start < free
                or variant.stop >= len(reference)
                or reference[start : max(variant.stop, start + 1)].max() > 3
            ):
                continue
            if letters:
                reference[start : variant.stop] = np.frombuffer(letters, np.uint8)
            variants.append(variant)
            free = variant.stop + 1
        return reference, variants

    def _repeat(self, start: int, rng: np.random.Generator) -> tuple[StructuralVariant, bytes]:
        """A repeat that is to change, and its letters before the change."""
        unit, units = int(rng.integers(1, self.unit + 1)), int(rng.integers(1, self.units + 1))
        copies = units + 2 + int(rng.integers(0, 2 * self.units + 1))
        letters = rng.integers(0, 4, unit, dtype=np.uint8).tobytes() * copies
        kind = "expansion" if rng.random() < 0.5 else "contraction"
        return StructuralVariant(kind, start, start + unit * copies, unit * units), letters


def drop_overlapping(mutations: Sequence[Mutation], variants: Sequence[StructuralVariant]) -> list[Mutation]:
    """The mutations that neither overlap nor touch a structural variant; both lists are sorted by start."""
    separate: list[Mutation] = []
    number = 0
    for mutation in mutations:
        while number < len(variants) and variants[number].stop < mutation.start:
            number += 1
        if number == len(variants) or mutation.stop < variants[number].start:
            separate.append(mutation)
    return separate


def apply_structural(
    reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation], variants: Sequence[StructuralVariant]
) -> Sample:
    """The sample that mutations and structural variants make of a reference; each becomes one event.

    A duplication or expansion is an insertion and a contraction is a deletion, left-aligned and with all equivalent
    placements; only the kind of the event differs. Inverted bases are neither substituted nor inserted, and their
    `reference_position` runs backwards. The event of an inversion is the shortest that gives the sample, and
    [earliest, latest) the longest that touches no other event: bases that pair with those at the other end are the same
    before and after. An inversion that changes no base is not an event. Mutations and variants are sorted by start, and
    none touches another.
    """
    if not variants:
        return apply_mutations(reference, mutations)
    named = [(mutation, "") for mutation in mutations]
    named += [(variant.mutation(reference), variant.kind) for variant in variants if variant.kind != "inversion"]
    named.sort(key=lambda item: item[0][:2])
    shortest = [_shortest_inversion(reference, variant) for variant in variants if variant.kind == "inversion"]
    pieces: list[Sample] = []
    copied = number = 0
    for start, stop in [*((start, stop) for start, stop in shortest if start < stop), (len(reference), None)]:
        between: list[tuple[Mutation, str]] = []
        while number < len(named) and named[number][0].stop <= start:
            between.append(named[number])
            number += 1
        pieces.append(_forward_piece(reference, copied, start, between))
        if stop is not None:
            pieces.append(_inverted_piece(reference, start, stop))
            copied = stop
    return _concatenate(pieces)


def _shortest_inversion(reference: np.ndarray, inversion: StructuralVariant) -> tuple[int, int]:
    """The inversion without the bases at both ends that pair with each other: they are the same after it."""
    start, stop = inversion.start, inversion.stop
    while start < stop and reference[start] == COMPLEMENT[reference[stop - 1]]:
        start, stop = start + 1, stop - 1
    return start, max(start, stop)


def _forward_piece(reference: np.ndarray, start: int, stop: int, named: list[tuple[Mutation, str]]) -> Sample:
    """The sample of reference bases [start, stop), which lie between two inversions."""
    mutations = [Mutation(first - start, last - start, inserted) for (first, last, inserted), _ in named]
    sample = apply_mutations(reference[start:stop], mutations)
    events = (
        event._replace(kind=kind or event.kind, reference=event.reference + start)
        for event, (_, kind) in zip(sample.events, named, strict=True)
    )
    return sample._replace(reference_position=sample.reference_position + start, events=tuple(events))


def _inverted_piece(reference: np.ndarray, start: int, stop: int) -> Sample:
    size = stop - start
    event = Event("inversion", size, 0, size, 0, size, start)
    unchanged = apply_mutations(reverse_complement(reference[start:stop]), [])
    return unchanged._replace(reference_position=stop - 1 - unchanged.reference_position, events=(event,))


def _concatenate(pieces: list[Sample]) -> Sample:
    arrays = [np.concatenate(columns) for columns in zip(*(piece[:-1] for piece in pieces), strict=True)]
    offsets = np.cumsum([0, *(len(piece.bases) for piece in pieces)]).tolist()
    events = [shifted(event, by) for piece, by in zip(pieces, offsets, strict=False) for event in piece.events]
    return Sample(*arrays, events=tuple(_widened(arrays[0], events, number) for number in range(len(events))))


def _widened(bases: np.ndarray, events: list[Event], number: int) -> Event:
    """An inversion widened to both sides as far as bases pair, without touching another event."""
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
