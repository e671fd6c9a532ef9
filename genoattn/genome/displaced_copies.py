"""Blocks of two assemblies that are copies of one another rather than the same place, such as two related prophages."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from scipy.stats import poisson

MORE = 5
"""A copy has so many times the differences per base of the blocks that lie in order."""

SMALL = 0.1
"""Share of the placed bases of a contig that lie in order by themselves."""

CHANCE = 1e-4
"""Probability below which a number of differences is not by chance."""


class Placed(Protocol):
    """The fields of a block that tell copies apart."""

    @property
    def record(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def contig(self) -> int: ...
    @property
    def contig_start(self) -> int: ...
    @property
    def reverse(self) -> bool: ...
    @property
    def mutations(self) -> Sequence[object]: ...


P = TypeVar("P", bound=Placed)


def split_copies(blocks: Sequence[P]) -> tuple[list[P], list[P]]:
    """Divide blocks, in the order of the reference, into those that are the same place and copies from elsewhere.

    A gene or a prophage that one assembly lacks is often alike to another one elsewhere. Such a copy has two marks:
    its neighbours on the contig are not those on the reference, and it differs far more than the blocks that do lie in
    order. An inversion has the first mark nowhere, and a part that was moved not the second.

    Returns:
        The blocks that stay, and the copies.
    """
    runs = _runs(blocks)
    total: Counter[int] = Counter()
    for block in blocks:
        total[block.contig] += _bases([block])
    moved = [run for run in runs if _bases(blocks[at] for at in run) < SMALL * total[blocks[run[0]].contig]]
    small = {number for run in moved for number in run}
    ordered = [block for number, block in enumerate(blocks) if number not in small]
    rate = MORE * (sum(len(block.mutations) for block in ordered) + 1) / max(1, _bases(ordered))

    def are_copies(run: Sequence[int]) -> bool:
        differences = sum(len(blocks[number].mutations) for number in run)
        expected = rate * _bases(blocks[number] for number in run)
        return differences > expected and float(poisson.sf(differences - 1, expected)) < CHANCE

    copies = {number for run in moved if are_copies(run) for number in run}
    kept = [block for number, block in enumerate(blocks) if number not in copies]
    return kept, [blocks[number] for number in sorted(copies)]


def _runs(blocks: Sequence[Placed]) -> list[list[int]]:
    """Numbers of the blocks in runs: the next one in a run follows on the contig and on the reference."""
    forward: Counter[int] = Counter()
    for block in blocks:
        forward[block.contig] += (-1 if block.reverse else 1) * (block.stop - block.start)
    runs: list[list[int]] = []
    along = sorted(range(len(blocks)), key=lambda number: (blocks[number].contig, blocks[number].contig_start))
    for number in along:
        block, last = blocks[number], blocks[runs[-1][-1]] if runs else None
        follows = number - runs[-1][-1] == (1 if forward[block.contig] > 0 else -1) if runs else False
        if last is not None and follows and (last.contig, last.record) == (block.contig, block.record):
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _bases(blocks: Iterable[Placed]) -> int:
    return sum(block.stop - block.start for block in blocks)
