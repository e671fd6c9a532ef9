"""Mutations as plain values: planted in a reference at random, applied to it, told back as the sample shows them."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8


class Mutation(NamedTuple):
    """Reference bases [start, stop) give way to the codes in `inserted`; start == stop inserts before base `start`."""

    start: int
    stop: int
    inserted: bytes

    @property
    def kind(self) -> Literal["snv", "mnv", "insertion", "deletion", "complex"]:
        gone, came = self.stop - self.start, len(self.inserted)
        if gone == came:
            return "snv" if gone == 1 else "mnv"
        return "insertion" if gone == 0 else "deletion" if came == 0 else "complex"


class Event(NamedTuple):
    """One mutation as a sample shows it; all places but `reference` are sample bases, 0-based and half-open.

    [start, stop) is the left-aligned place: the bases that were substituted or inserted, or for a deletion the one
    base before which `size` bases are gone. [first, last) is the union of all places that give the same sample, so
    first == start, but for an inversion, which is told at its shortest. Duplications and expansions of a tandem repeat
    are insertions, contractions are deletions (see `structural`).
    """

    kind: Literal["snv", "mnv", "insertion", "deletion", "inversion", "duplication", "expansion", "contraction"]
    size: int
    start: int
    stop: int
    earliest: int
    latest: int
    reference: int  # first substituted or deleted reference base, or the one before which bases are inserted


class Sample(NamedTuple):
    """A mutated sequence and the truth about it, base by base.

    `origin` is the reference base that each sample base is aligned to; for an inserted base the reference base that
    follows it (the reference's length, after its end). `substituted`, `inserted` and `missing` (bases are gone just
    before this one) mark the left-aligned places, `ambiguous_inserted` and `ambiguous_missing` every equivalent one.
    A deletion that leaves no sample base behind it even when left-aligned is in no mask and no event.
    """

    bases: UInt8[np.ndarray, "sample"]
    reference_position: Int[np.ndarray, "sample"]
    substituted: Bool[np.ndarray, "sample"]
    inserted: Bool[np.ndarray, "sample"]
    deleted_before: Bool[np.ndarray, "sample"]
    ambiguous_inserted: Bool[np.ndarray, "sample"]
    ambiguous_deleted_before: Bool[np.ndarray, "sample"]
    events: tuple[Event, ...]


def apply_mutations(reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation]) -> Sample:
    """The sample that sorted, non-overlapping mutations make of a reference, and where it differs from it.

    Of n bases replaced by m, the first min(n, m) are substitutions where they differ and the rest is one indel. Indels
    are left-aligned: they roll through unmutated bases only, and never so far that they would touch another mutation.
    """
    letters = reference.tobytes()
    pieces = _pieces(letters, mutations)
    bases = _splice(letters, pieces)
    events = _events(letters, bases, _left_aligned(letters, bases, pieces))

    length = len(bases)
    substituted, inserted, missing, may_insert, may_miss = (bytearray(length) for _ in range(5))
    steps = np.ones(length, np.int64)
    steps[:1] = 0
    for kind, size, start, stop, first, last, _ in events:
        if kind == "insertion":
            inserted[start:stop] = b"\1" * size
            may_insert[first:last] = b"\1" * (last - first)
            steps[start + 1 : stop + 1] -= 1  # the base after an insertion has the same origin as the inserted ones
        elif kind == "deletion":
            missing[start] = 1
            may_miss[first:last] = b"\1" * (last - first)
            steps[start] += size
        else:
            substituted[start:stop] = b"\1" * size
    return Sample(
        bases=np.frombuffer(bases, np.uint8),
        reference_position=np.cumsum(steps),
        substituted=np.frombuffer(substituted, np.bool_),
        inserted=np.frombuffer(inserted, np.bool_),
        deleted_before=np.frombuffer(missing, np.bool_),
        ambiguous_inserted=np.frombuffer(may_insert, np.bool_),
        ambiguous_deleted_before=np.frombuffer(may_miss, np.bool_),
        events=tuple(events),
    )


def mutated_sequence(
    reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation]
) -> UInt8[np.ndarray, "sample"]:
    """The bases alone that `apply` gives."""
    letters = reference.tobytes()
    return np.frombuffer(_splice(letters, _pieces(letters, mutations)), np.uint8)


def shifted(event: Event, by: int) -> Event:
    """The event `by` bases further on in the sample."""
    return event._replace(
        start=event.start + by, stop=event.stop + by, earliest=event.earliest + by, latest=event.latest + by
    )


def _pieces(letters: bytes, mutations: Iterable[Mutation]) -> list[Mutation]:
    """Mutations taken apart into runs of bases that all differ, pure insertions and pure deletions."""
    pieces: list[Mutation] = []
    end = 0
    for mutation in mutations:
        start, stop, inserted = mutation
        if not end <= start <= stop <= len(letters):
            raise ValueError(f"mutations must be sorted, apart and within {len(letters)} bases, got {mutation}")
        end = stop
        shared = min(stop - start, len(inserted))
        begin = None
        for at in range(shared):
            differs = letters[start + at] != inserted[at]
            if differs and begin is None:
                begin = at
            elif not differs and begin is not None:
                pieces.append(Mutation(start + begin, start + at, inserted[begin:at]))
                begin = None
        if begin is not None:
            pieces.append(Mutation(start + begin, start + shared, inserted[begin:shared]))
        if stop - start != len(inserted):
            pieces.append(Mutation(start + shared, stop, inserted[shared:]))
    return pieces


def _splice(letters: bytes, pieces: Iterable[Mutation]) -> bytearray:
    parts: list[bytes] = []
    done = 0
    for start, stop, inserted in pieces:
        parts += (letters[done:start], inserted)
        done = stop
    parts.append(letters[done:])
    return bytearray().join(parts)  # a bytearray, so that the arrays made of it can be written to


def _left_aligned(letters: bytes, bases: bytearray, pieces: list[Mutation]) -> list[Mutation]:
    """The same pieces with every indel as far left as it goes, short of touching the (aligned) piece before it."""
    aligned: list[Mutation] = []
    floor, shift = 0, 0  # the leftmost start that touches nothing; how much further a base lies in the sample
    for piece in pieces:
        start, stop, inserted = piece
        gone, came = stop - start, len(inserted)
        if came == 0:
            start = _roll_left(letters, start, gone, floor)
            piece = Mutation(start, start + gone, b"")
        elif gone == 0:
            at = _roll_left(bases, start + shift, came, floor + shift)
            start = at - shift
            piece = Mutation(start, start, bytes(bases[at : at + came]))
        aligned.append(piece)
        floor = start + gone + 1
        shift += came - gone
    return aligned


def _events(letters: bytes, bases: bytearray, pieces: list[Mutation]) -> list[Event]:
    """Left-aligned pieces in sample coordinates, with the reach to the right of each indel."""
    events: list[Event] = []
    shift = 0
    ceilings = [piece.start - 1 for piece in pieces[1:]] + [None]  # the rightmost stop that touches nothing
    for (start, stop, inserted), ceiling in zip(pieces, ceilings, strict=False):
        gone, came = stop - start, len(inserted)
        at = start + shift
        shift += came - gone
        if gone == came:
            events.append(Event("snv" if came == 1 else "mnv", came, at, at + came, at, at + came, start))
        elif came:
            end = _roll_right(bases, at, came, len(bases) if ceiling is None else ceiling + shift) + came
            events.append(Event("insertion", came, at, at + came, at, end, start))
        elif at < len(bases):
            reach = _roll_right(letters, start, gone, len(letters) - 1 if ceiling is None else ceiling) - start
            events.append(Event("deletion", gone, at, at + 1, at, at + reach + 1, start))
    return events


def _roll_left(text: bytes | bytearray, start: int, size: int, floor: int) -> int:
    while start > floor and text[start - 1] == text[start + size - 1]:
        start -= 1
    return start


def _roll_right(text: bytes | bytearray, start: int, size: int, ceiling: int) -> int:
    while start + size < ceiling and text[start] == text[start + size]:
        start += 1
    return start


def slice_sample(sample: Sample, start: int, stop: int) -> Sample:
    """Sample bases [start, stop) with their truth; an event belongs to the window that holds its first base."""
    stop = min(stop, len(sample.bases))
    arrays = (array[start:stop] for array in sample[:-1])
    begin, end = (bisect_left(sample.events, place, key=lambda event: event.start) for place in (start, stop))
    moved = (
        event._replace(
            start=event.start - start,
            stop=min(event.stop, stop) - start,
            earliest=max(event.earliest, start) - start,
            latest=min(event.latest, stop) - start,
        )
        for event in sample.events[begin:end]
    )
    return Sample(*arrays, events=tuple(moved))
