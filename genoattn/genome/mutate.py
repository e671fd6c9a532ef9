"""Mutations as plain values: planted in a reference at random, applied to it, told back as the sample shows them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genoattn.errors import UserError

_SNV, _MNV, _INSERTION, _DELETION = range(4)


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
    first: int
    last: int
    reference: int  # first substituted or deleted reference base, or the one before which bases are inserted


class Sample(NamedTuple):
    """A mutated sequence and the truth about it, base by base.

    `origin` is the reference base that each sample base is aligned to; for an inserted base the reference base that
    follows it (the reference's length, after its end). `substituted`, `inserted` and `missing` (bases are gone just
    before this one) mark the left-aligned places, `ambiguous_inserted` and `ambiguous_missing` every equivalent one.
    A deletion that leaves no sample base behind it even when left-aligned is in no mask and no event.
    """

    bases: UInt8[np.ndarray, "sample"]
    origin: Int[np.ndarray, "sample"]
    substituted: Bool[np.ndarray, "sample"]
    inserted: Bool[np.ndarray, "sample"]
    missing: Bool[np.ndarray, "sample"]
    ambiguous_inserted: Bool[np.ndarray, "sample"]
    ambiguous_missing: Bool[np.ndarray, "sample"]
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Rates:
    """How often and how to mutate: events a base, shares of the kinds (on any scale), sizes, and the ts/tv ratio.

    Indels are 1 to `longest` bases long and multi-base substitutions 2 to max(2, `longest`), each size equally likely.
    A share `duplication` of the insertions copies the bases just before them, as a polymerase that slips does; the
    others insert random ones.
    """

    rate: float = 0.02
    snv: float = 0.7
    mnv: float = 0.0
    insertion: float = 0.15
    deletion: float = 0.15
    longest: int = 3
    transitions: float = 2.0
    duplication: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UserError(f"rate must be events per base between 0 and 1, got {self.rate}")
        shares = {"snv": self.snv, "mnv": self.mnv, "insertion": self.insertion, "deletion": self.deletion}
        for name, value in {**shares, "transitions": self.transitions}.items():
            if not (isfinite(value) and value >= 0):
                raise UserError(f"{name} must be a number of at least 0, got {value}")
        if not any(shares.values()):
            raise UserError("one of snv, mnv, insertion and deletion must be above 0, all are 0")
        if not 0 <= self.duplication <= 1:
            raise UserError(f"duplication must be a share between 0 and 1, got {self.duplication}")
        if self.longest < 1:
            raise UserError(f"longest must be at least 1 base, got {self.longest}")

    def boundaries(self) -> tuple[float, float, float]:
        """Where in [0, 1) the shares of mnv, insertion and deletion begin, snv's beginning at 0."""
        total = self.snv + self.mnv + self.insertion + self.deletion
        return self.snv / total, (self.snv + self.mnv) / total, (self.snv + self.mnv + self.insertion) / total


def plant(reference: UInt8[np.ndarray, "reference"], rates: Rates, rng: np.random.Generator) -> list[Mutation]:
    """Random mutations in order, on A, C, G and T only, with at least one untouched base between any two.

    Each base begins an event with probability `rate`; an event that would touch the one before it, or a letter that is
    not A, C, G or T, is left out, so slightly fewer than rate x length are planted. Indels keep off both ends.
    """
    starts = np.flatnonzero(rng.random(len(reference)) < rates.rate)
    kinds = np.searchsorted(rates.boundaries(), rng.random(len(starts)), side="right")
    sizes = rng.integers(1, rates.longest + 1, len(starts))
    sizes[kinds == _SNV] = 1
    multiple = np.flatnonzero(kinds == _MNV)
    sizes[multiple] = rng.integers(2, max(2, rates.longest) + 1, len(multiple))
    ends = np.cumsum(sizes)
    chance = rng.random(int(sizes.sum()))
    fresh = (chance * 4).astype(np.uint8).tobytes()
    flips = _flips(chance, rates.transitions).tobytes()
    copied = (rng.random(len(starts)) < rates.duplication).tolist()

    letters = reference.tobytes()
    mutations: list[Mutation] = []
    free = 0
    drawn = zip(starts.tolist(), kinds.tolist(), sizes.tolist(), ends.tolist(), copied, strict=True)
    for start, kind, size, end, copy in drawn:
        stop = start if kind == _INSERTION else start + size
        indel = kind in (_INSERTION, _DELETION)
        if start < free or (indel and start == 0) or stop > len(letters) - indel:
            continue
        if max(letters[start : max(stop, start + 1)]) > 3:
            continue
        if kind == _DELETION:
            inserted = b""
        elif kind == _INSERTION:
            source = letters[max(start - size, 0) : start]
            inserted = source if copy and len(source) == size and max(source) < 4 else fresh[end - size : end]
        else:
            inserted = bytes(
                [letter ^ flip for letter, flip in zip(letters[start:stop], flips[end - size : end], strict=True)]
            )
        mutations.append(Mutation(start, stop, inserted))
        free = stop + 1
    return mutations


def apply(reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation]) -> Sample:
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
        origin=np.cumsum(steps),
        substituted=np.frombuffer(substituted, np.bool_),
        inserted=np.frombuffer(inserted, np.bool_),
        missing=np.frombuffer(missing, np.bool_),
        ambiguous_inserted=np.frombuffer(may_insert, np.bool_),
        ambiguous_missing=np.frombuffer(may_miss, np.bool_),
        events=tuple(events),
    )


def splice(reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation]) -> UInt8[np.ndarray, "sample"]:
    """The bases alone that `apply` gives."""
    letters = reference.tobytes()
    return np.frombuffer(_splice(letters, _pieces(letters, mutations)), np.uint8)


def moved(event: Event, by: int) -> Event:
    """The event `by` bases further on in the sample."""
    return event._replace(start=event.start + by, stop=event.stop + by, first=event.first + by, last=event.last + by)


def _flips(chance: np.ndarray, transitions: float) -> np.ndarray:
    """What to XOR a code with for another base: 2 is the transition (A-G, C-T), 1 and 3 are the transversions."""
    transition = transitions / (1 + transitions)
    return np.where(chance < transition, 2, np.where(chance < (1 + transition) / 2, 1, 3)).astype(np.uint8)


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
