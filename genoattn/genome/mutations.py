"""Mutations as plain values: applied to a reference, and described as events of the sample that results."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

LONG = 10
"""An indel of more bases is a long one."""


class Mutation(NamedTuple):
    """The codes in `inserted` replace reference bases [start, stop), 0-based and half-open.

    If start == stop, they are inserted before base `start`.
    """

    start: int
    stop: int
    inserted: bytes

    @property
    def kind(self) -> Literal["snv", "mnv", "insertion", "deletion", "complex"]:
        """The kind of the mutation by the bases that it removes and inserts."""
        removed, inserted = self.stop - self.start, len(self.inserted)
        if removed == inserted:
            return "snv" if removed == 1 else "mnv"
        return "insertion" if removed == 0 else "deletion" if inserted == 0 else "complex"


class Event(NamedTuple):
    """A mutation in the coordinates of the sample, 0-based and half-open.

    [start, stop) is the left-aligned placement: the bases that are substituted or inserted, or for a deletion the one
    base before which `size` bases are missing. [earliest, latest) covers every placement that gives the same sequence.
    `earliest == start`, except for inversions, which are reported at their shortest. Duplications and expansions of a
    tandem repeat are insertions, contractions are deletions (see `structural_variants`).
    """

    kind: Literal["snv", "mnv", "insertion", "deletion", "inversion", "duplication", "expansion", "contraction"]
    size: int
    start: int
    stop: int
    earliest: int
    latest: int
    reference: int
    """The first substituted or deleted reference base, or the reference base before which bases are inserted."""


class Sample(NamedTuple):
    """A mutated sequence and its true alignment, base by base.

    `reference_position` is the reference base that each sample base is aligned to; for an inserted base it is the next
    reference base (the length of the reference after its end). `substituted`, `inserted` and `deleted_before` (bases
    are missing directly before this one) mark the left-aligned placements, `ambiguous_inserted` and
    `ambiguous_deleted_before` all equivalent ones. A deletion with no sample base behind it, even when left-aligned,
    is in no mask and no event.
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
    """The sample that sorted, non-overlapping mutations make of a reference; raises ValueError if they are not sorted.

    Of n bases replaced by m, the first min(n, m) are substitutions where they differ, and the rest is one indel. Indels
    are left-aligned: they move through unmutated bases only, and never so far that they touch another mutation.
    """
    letters = reference.tobytes()
    pieces = _pieces(letters, mutations)
    bases = _splice(letters, pieces)
    events = _events(letters, bases, _left_aligned(letters, bases, pieces))

    length = len(bases)
    substituted, inserted, deleted_before, any_inserted, any_deleted = (bytearray(length) for _ in range(5))
    steps = np.ones(length, np.int64)
    steps[:1] = 0
    for kind, size, start, stop, earliest, latest, _ in events:
        if kind == "insertion":
            inserted[start:stop] = b"\1" * size
            any_inserted[earliest:latest] = b"\1" * (latest - earliest)
            steps[start + 1 : stop + 1] -= 1  # the base after an insertion has the same position as the inserted bases
        elif kind == "deletion":
            deleted_before[start] = 1
            any_deleted[earliest:latest] = b"\1" * (latest - earliest)
            steps[start] += size
        else:
            substituted[start:stop] = b"\1" * size
    return Sample(
        bases=np.frombuffer(bases, np.uint8),
        reference_position=np.cumsum(steps),
        substituted=np.frombuffer(substituted, np.bool_),
        inserted=np.frombuffer(inserted, np.bool_),
        deleted_before=np.frombuffer(deleted_before, np.bool_),
        ambiguous_inserted=np.frombuffer(any_inserted, np.bool_),
        ambiguous_deleted_before=np.frombuffer(any_deleted, np.bool_),
        events=tuple(events),
    )


def mutated_sequence(
    reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation]
) -> UInt8[np.ndarray, "sample"]:
    """Only the bases of the sample that `apply_mutations` gives."""
    letters = reference.tobytes()
    return np.frombuffer(_splice(letters, _pieces(letters, mutations)), np.uint8)


def shifted(event: Event, by: int) -> Event:
    """The same event `by` bases further right in the sample."""
    return event._replace(
        start=event.start + by, stop=event.stop + by, earliest=event.earliest + by, latest=event.latest + by
    )


def _pieces(letters: bytes, mutations: Iterable[Mutation]) -> list[Mutation]:
    """Split mutations into runs of bases that all differ, pure insertions and pure deletions."""
    pieces: list[Mutation] = []
    end = 0
    for mutation in mutations:
        start, stop, inserted = mutation
        if not end <= start <= stop <= len(letters):
            raise ValueError(
                f"mutations must be sorted, not overlapping and within {len(letters)} bases, got {mutation}"
            )
        end = stop
        shared = min(stop - start, len(inserted))
        if shared == 0 or (stop - start == len(inserted) == 1 and letters[start] != inserted[0]):
            pieces += [mutation] if inserted or stop > start else []  # most are one piece, and stay the same tuple
            continue
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
    sequence: list[bytes] = []
    copied = 0
    for start, stop, inserted in pieces:
        sequence += (letters[copied:start], inserted)
        copied = stop
    sequence.append(letters[copied:])
    return bytearray().join(sequence)  # a bytearray, so that arrays on it are writable


def _left_aligned(letters: bytes, bases: bytearray, pieces: list[Mutation]) -> list[Mutation]:
    """The same pieces with every indel as far left as it goes without touching the (aligned) piece before it."""
    aligned: list[Mutation] = []
    floor, shift = 0, 0  # the leftmost start that touches no piece; sample position minus reference position
    for piece in pieces:
        start, stop, inserted = piece
        removed, added = stop - start, len(inserted)
        if added == 0:
            start = _roll_left(letters, start, removed, floor)
            piece = Mutation(start, start + removed, b"")
        elif removed == 0:
            at = _roll_left(bases, start + shift, added, floor + shift)
            start = at - shift
            piece = Mutation(start, start, bytes(bases[at : at + added]))
        aligned.append(piece)
        floor = start + removed + 1
        shift += added - removed
    return aligned


def _events(letters: bytes, bases: bytearray, pieces: list[Mutation]) -> list[Event]:
    """Left-aligned pieces in sample coordinates, with the rightmost equivalent placement of each indel."""
    events: list[Event] = []
    shift = 0
    ceilings = [piece.start - 1 for piece in pieces[1:]] + [None]  # the rightmost stop that touches no piece
    for (start, stop, inserted), ceiling in zip(pieces, ceilings, strict=False):
        removed, added = stop - start, len(inserted)
        at = start + shift
        shift += added - removed
        if removed == added:
            events.append(Event("snv" if added == 1 else "mnv", added, at, at + added, at, at + added, start))
        elif added:
            end = _roll_right(bases, at, added, len(bases) if ceiling is None else ceiling + shift) + added
            events.append(Event("insertion", added, at, at + added, at, end, start))
        elif at < len(bases):
            slack = _roll_right(letters, start, removed, len(letters) - 1 if ceiling is None else ceiling) - start
            events.append(Event("deletion", removed, at, at + 1, at, at + slack + 1, start))
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
    """Sample bases [start, stop) with their alignment; an event belongs to the slice that holds its first base."""
    stop = min(stop, len(sample.bases))
    arrays = (array[start:stop] for array in sample[:-1])
    begin, end = (bisect_left(sample.events, base, key=lambda event: event.start) for base in (start, stop))
    events = sample.events[begin:end]
    if start or any(event.stop > stop or event.latest > stop for event in events):
        events = tuple(
            Event(
                kind,
                size,
                first - start,
                min(last, stop) - start,
                max(earliest, start) - start,
                min(latest, stop) - start,
                reference,
            )  # no `_replace`, which takes three times as long
            for kind, size, first, last, earliest, latest, reference in events
        )
    return Sample(*arrays, events=events)
