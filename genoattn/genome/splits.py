"""The split of a genome into training, validation and test: by blocks of every record, or by whole records."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from genoattn.errors import UserError
from genoattn.genome.intervals import Interval

WINDOWS_PER_BLOCK = 8
"""A record is cut into fewer cycles if a block would hold fewer windows than this."""


class Splits(NamedTuple):
    """The intervals of each split, in the order of the genome."""

    train: tuple[Interval, ...]
    validation: tuple[Interval, ...]
    test: tuple[Interval, ...]
    skipped: tuple[str, ...]
    """The names of the records that are too short for any split."""


def split_blocks(
    lengths: Sequence[int],
    window: int,
    cycles: int = 5,
    validation: float = 0.1,
    test: float = 0.1,
    names: Sequence[str] = (),
    min_length: int | None = None,
    require_test: bool = True,
) -> Splits:
    """Cut every record into cycles of a training, a validation and a test block, with a gap of a window between blocks.

    A record whose blocks would hold fewer than eight windows gets fewer cycles, down to one, whose blocks hold at least
    a window each. A record too short for that is used for training as a whole. Records shorter than a window (or than
    `min_length`, if it is given) are skipped. With `require_test` at least one record must be long enough for three
    blocks, or UserError is raised.
    """
    names = names or [f"number {number + 1}" for number in range(len(lengths))]
    _check_fractions(validation, test)
    if require_test:
        _check_longest(names, lengths, window)
    shortest = min(min_length or window, window)
    blocks: tuple[list[Interval], ...] = ([], [], [])
    for record, length in enumerate(lengths):
        count = next((c for c in range(cycles, 0, -1) if _fits(length, window, c, validation, test)), 0)
        start = 0
        for number, size in enumerate(_blocks(length, window, count, validation, test)):
            blocks[number % 3].append(Interval(record, start, start + size))
            start += size + window
        if count == 0 and length >= shortest:
            blocks[0].append(Interval(record, 0, length))
    if require_test and not blocks[2]:
        longest = max(range(len(lengths)), key=lambda record: lengths[record])
        raise UserError(
            f"no record can be split: the longest, {names[longest]}, has {lengths[longest]} bases, and three blocks of"
            f" a window with gaps of a window need {5 * window}, a window taking {window} (data.length and the flanks"
            f" of the task); choose a shorter data.length"
        )
    return Splits(*(tuple(intervals) for intervals in blocks), skipped=_too_short(names, lengths, shortest))


def _fits(length: int, window: int, cycles: int, validation: float, test: float) -> bool:
    shortest_block = window if cycles == 1 else WINDOWS_PER_BLOCK * window
    return min(_blocks(length, window, cycles, validation, test), default=0) >= shortest_block


def _blocks(length: int, window: int, cycles: int, validation: float, test: float) -> list[int]:
    """Lengths of the blocks train, validation, test, train, …; with gaps of a window they fill a record."""
    room = length - (3 * cycles - 1) * window
    sizes: list[int] = []
    for cycle in range(cycles):
        size = room * (cycle + 1) // cycles - room * cycle // cycles
        test_size = min(max(window, round(size * test)), size - 2 * window)
        validation_size = min(max(window, round(size * validation)), size - window - test_size)
        sizes += [size - validation_size - test_size, validation_size, test_size]
    return sizes


def split_records(
    names: Sequence[str],
    lengths: Sequence[int],
    window: int,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    min_length: int | None = None,
    units: Sequence[int] = (),
    kind: str = "record",
) -> Splits:
    """Give whole records to test and validation as long as they fit into the fraction, the others to training.

    No split stays empty, even if its only record is larger than its fraction. The seed decides
    the order in which records are given out. Records shorter than a window are used for training if they have at least
    `min_length` bases. With `units`, the number of the file or group of each record, these are given out as a whole;
    `kind` is their name. Raises UserError if fewer than three records, files or groups hold a window.
    """
    _check_fractions(validation, test)
    _check_longest(names, lengths, window)
    units = units or range(len(lengths))
    bases: dict[int, int] = {}  # of each unit that holds a window
    for unit, length in sorted(zip(units, lengths, strict=True)):
        if length >= window:
            bases[unit] = bases.get(unit, 0) + length
    if len(bases) < 3:
        raise UserError(
            f"data.split={kind} needs at least three {kind}s of a window or more ({window} bases: data.length and the"
            f" flanks of the task), found {len(bases)}; use data.split=block"
        )
    total = sum(bases.values())
    room = {"test": test * total, "validation": validation * total}
    given: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for unit in np.random.default_rng(seed).permutation(list(bases)).tolist():
        split = next((name for name in room if bases[unit] <= room[name]), "train")
        given[split].append(unit)
        if split != "train":
            room[split] -= bases[unit]
    for chosen in given.values():
        if not chosen:
            fullest = max(given.values(), key=len)
            chosen.append(min(fullest, key=bases.__getitem__))
            fullest.remove(chosen[0])
    shortest = min(min_length or window, window)
    held_out = {*given["validation"], *given["test"]}
    given["train"] = [unit for unit in set(units) if unit not in held_out]

    def records(split: str) -> Iterator[Interval]:
        own, least = set(given[split]), shortest if split == "train" else window
        for record, length in enumerate(lengths):
            if units[record] in own and length >= least:
                yield Interval(record, 0, length)

    train, validation_records, test_records = (tuple(records(name)) for name in Splits._fields[:3])
    return Splits(train, validation_records, test_records, _too_short(names, lengths, shortest))


def test_only(names: Sequence[str], lengths: Sequence[int], window: int) -> Splits:
    """Every record of at least a window, as a whole, for the test (and for validation), none for training."""
    _check_longest(names, lengths, window)
    whole = tuple(Interval(record, 0, length) for record, length in enumerate(lengths) if length >= window)
    return Splits((), whole, whole, _too_short(names, lengths, window))


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
