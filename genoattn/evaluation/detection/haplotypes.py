"""Called mutations held to true ones by the sequences that they spell: an alignment can be written in many ways."""

from collections.abc import Sequence
from itertools import combinations, groupby, pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.genome.alphabet import encode_bases
from genoattn.genome.calls import MutationCall
from genoattn.genome.mutations import Mutation, mutated_sequence

NEAR = (200, 50, 10)
"""Mutations with at most so many bases between them are compared together; if they differ, at the next number."""

MOST_LEFT_OUT, LARGE = 2, 24
"""Mutations that may be left out of a group so that the others agree, if it has at most so many."""

CALLED, TRUE = 0, 1


class Confirmed(NamedTuple):
    """For each called mutation, true if the truth confirms it; for each true one, true if it was called."""

    called: list[bool]
    true: list[bool]


class _Item(NamedTuple):
    record: int
    mutation: Mutation
    side: int
    number: int


def confirm(
    called: Sequence[MutationCall], true: Sequence[MutationCall], records: Sequence[UInt8[np.ndarray, "record"]]
) -> Confirmed:
    """Compare two sets of mutations.

    Neighbouring mutations of both sets are put into the reference together. If the two results are the same sequence,
    all of them are confirmed, however they are written; one or two may be left out for it. Otherwise smaller groups are
    compared, and at last single mutations.

    Args:
        called: Mutations of one set; they do not overlap.
        true: Mutations of the other.
        records: Bases of the records of the reference.
    """
    result = Confirmed([False] * len(called), [False] * len(true))
    items = [
        _Item(call.record, _minimal(call), side, number)
        for side, calls in ((CALLED, called), (TRUE, true))
        for number, call in enumerate(calls)
    ]
    for record, here in groupby(sorted(items, key=lambda item: item[:2]), key=lambda item: item.record):
        _compare(list(here), records[record], NEAR, result)
    return result


def _compare(items: list[_Item], record: np.ndarray, near: Sequence[int], result: Confirmed) -> None:
    if not near:
        sides = [{item.mutation for item in items if item.side == side} for side in (CALLED, TRUE)]
        for item in items:
            if item.mutation in sides[1 - item.side]:
                result[item.side][item.number] = True
        return
    for group in _groups(items, near[0]):
        if not {item.side for item in group} >= {CALLED, TRUE}:
            continue
        agreeing = _agreeing(group, record)
        for item in agreeing or ():
            result[item.side][item.number] = True
        if agreeing is None:
            _compare(group, record, near[1:], result)


def _agreeing(group: list[_Item], record: np.ndarray) -> list[_Item] | None:
    """The group without as few mutations as possible, so that both sides spell the same; None without an answer."""
    start, stop = min(item.mutation.start for item in group), max(item.mutation.stop for item in group)
    for left_out in range(MOST_LEFT_OUT + 1 if len(group) <= LARGE else 1):
        for dropped in combinations(range(len(group)), left_out):
            rest = [item for number, item in enumerate(group) if number not in dropped]
            sides = [sorted(item.mutation for item in rest if item.side == side) for side in (CALLED, TRUE)]
            if all(sides) and len({_spelled(record[start:stop], side, start) for side in sides} - {None}) == 1:
                return rest
    return None


def _groups(items: list[_Item], near: int) -> list[list[_Item]]:
    """Items sorted by start, divided where more than `near` bases lie between neighbours."""
    groups: list[list[_Item]] = []
    end = -1
    for item in items:
        if not groups or item.mutation.start > end + near:
            groups.append([])
            end = item.mutation.stop
        groups[-1].append(item)
        end = max(end, item.mutation.stop)
    return groups


def _spelled(reference: np.ndarray, mutations: list[Mutation], first: int) -> bytes | None:
    """The sequence that mutations make of a piece of the reference; None if they overlap."""
    if any(right.start < left.stop for left, right in pairwise(mutations)):
        return None
    moved = [Mutation(start - first, stop - first, inserted) for start, stop, inserted in mutations]
    return mutated_sequence(reference, moved).tobytes()


def _minimal(call: MutationCall) -> Mutation:
    """The mutation of a call, without the base that an indel in a VCF shares with the reference."""
    start, removed, inserted = call.position, call.reference, call.alternate
    shared = call.kind in ("insertion", "deletion")
    if shared and removed[0] == inserted[0]:
        start, removed, inserted = start + 1, removed[1:], inserted[1:]
    elif shared:  # at the first base of a record it is the base after it
        removed, inserted = removed[:-1], inserted[:-1]
    return Mutation(start, start + len(removed), encode_bases(inserted).tobytes())
