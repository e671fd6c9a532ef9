"""Stretches of a genome: which are for training, validation and test, and the windows drawn from them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genoattn.errors import UserError
from genoattn.genome.intervals import Interval

_WINDOWS_A_BLOCK = 8


class Splits(NamedTuple):
    """The intervals of each split in the order of the genome, and the names of the records too short for any."""

    train: tuple[Interval, ...]
    validation: tuple[Interval, ...]
    test: tuple[Interval, ...]
    skipped: tuple[str, ...]


def split_blocks(
    lengths: Sequence[int],
    window: int,
    cycles: int = 5,
    validation: float = 0.1,
    test: float = 0.1,
    names: Sequence[str] = (),
    min_length: int | None = None,
) -> Splits:
    """Cuts every record into cycles of train, validation and test blocks with a window's gap between any two.

    A record of fewer than about eight windows a block gets fewer cycles, down to one; its blocks hold a window each at
    least. One that cannot hold that is for training as a whole, and one shorter than a window (than `shortest`, where
    that is given) is passed over.
    """
    names = names or [f"number {number + 1}" for number in range(len(lengths))]
    _check_fractions(validation, test)
    _check_longest(names, lengths, window)
    least = min(min_length or window, window)
    parts: tuple[list[Interval], ...] = ([], [], [])
    for record, length in enumerate(lengths):
        count = next((c for c in range(cycles, 0, -1) if _fits(length, window, c, validation, test)), 0)
        start = 0
        for number, size in enumerate(_blocks(length, window, count, validation, test)):
            parts[number % 3].append(Interval(record, start, start + size))
            start += size + window
        if count == 0 and length >= least:
            parts[0].append(Interval(record, 0, length))
    if not parts[2]:
        longest = max(range(len(lengths)), key=lambda record: lengths[record])
        raise UserError(
            f"no record can be split: the longest, {names[longest]}, has {lengths[longest]} bases, and three blocks of"
            f" a window with gaps of a window need {5 * window}, a window taking {window} (data.length and the flanks"
            f" of the task); choose a shorter data.length"
        )
    train, held_out, tested = (tuple(part) for part in parts)
    return Splits(train, held_out, tested, _too_short(names, lengths, least))


def _fits(length: int, window: int, cycles: int, validation: float, test: float) -> bool:
    least = window if cycles == 1 else _WINDOWS_A_BLOCK * window
    return min(_blocks(length, window, cycles, validation, test), default=0) >= least


def _blocks(length: int, window: int, cycles: int, validation: float, test: float) -> list[int]:
    """Lengths of train, validation, test, train, …, which with gaps of a window between them make up the record."""
    room = length - (3 * cycles - 1) * window
    sizes: list[int] = []
    for cycle in range(cycles):
        size = room * (cycle + 1) // cycles - room * cycle // cycles
        tested = min(max(window, round(size * test)), size - 2 * window)
        held_out = min(max(window, round(size * validation)), size - window - tested)
        sizes += [size - held_out - tested, held_out, tested]
    return sizes


def split_records(
    names: Sequence[str],
    lengths: Sequence[int],
    window: int,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    min_length: int | None = None,
) -> Splits:
    """Gives whole records to test and validation while they fit in their fraction, the rest to train.

    The seed decides in which order records are offered; no split is left empty, be its record larger than its fraction.
    Records shorter than a window, down to `shortest` where that is given, are for training.
    """
    _check_fractions(validation, test)
    _check_longest(names, lengths, window)
    usable = [record for record, length in enumerate(lengths) if length >= window]
    if len(usable) < 3:
        raise UserError(
            f"data.split=record needs at least three records of a window or more ({window} bases: data.length and the"
            f" flanks of the task), found {len(usable)}; use data.split=block"
        )
    total = sum(lengths[record] for record in usable)
    room = {"test": test * total, "validation": validation * total}
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for record in np.random.default_rng(seed).permutation(usable).tolist():
        place = next((name for name in room if lengths[record] <= room[name]), "train")
        parts[place].append(record)
        if place != "train":
            room[place] -= lengths[record]
    for part in parts.values():
        if not part:
            fullest = max(parts.values(), key=len)
            part.append(min(fullest, key=lambda record: lengths[record]))
            fullest.remove(part[0])
    least = min(min_length or window, window)
    parts["train"] += [record for record, length in enumerate(lengths) if least <= length < window]
    whole = {name: tuple(Interval(r, 0, lengths[r]) for r in sorted(part)) for name, part in parts.items()}
    return Splits(whole["train"], whole["validation"], whole["test"], _too_short(names, lengths, least))


def test_only(names: Sequence[str], lengths: Sequence[int], window: int) -> Splits:
    """Every record of a window or more for the test as a whole (and for validation), none for training."""
    _check_longest(names, lengths, window)
    whole = tuple(Interval(record, 0, length) for record, length in enumerate(lengths) if length >= window)
    return Splits((), whole, whole, _too_short(names, lengths, window))


def sizes(splits: Splits) -> dict[str, int]:
    """Bases in each split, and how many records were passed over."""
    bases = {name: sum(interval.length for interval in getattr(splits, name)) for name in Splits._fields[:3]}
    return bases | {"passed_over": len(splits.skipped)}


def _check_fractions(validation: float, test: float) -> None:
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UserError(
            f"data.validation and data.test must be above 0 and below 1 together, got {validation} and {test}"
        )


def _check_longest(names: Sequence[str], lengths: Sequence[int], window: int) -> None:
    if window < 1:
        raise UserError(f"data.length must be at least 1, got {window}")
    longest = max(range(len(lengths)), key=lambda record: lengths[record])
    if lengths[longest] < window:
        raise UserError(
            f"the FASTA is shorter than a window: its longest record, {names[longest]}, has {lengths[longest]} bases,"
            f" and a window takes {window} (data.length and the flanks of the task); choose a shorter data.length"
        )


def _too_short(names: Sequence[str], lengths: Sequence[int], window: int) -> tuple[str, ...]:
    return tuple(name for name, length in zip(names, lengths, strict=True) if length < window)
