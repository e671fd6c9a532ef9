"""Called mutations with their alleles, in the coordinates of both assemblies, and what was not tested, in words."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.genome.alphabet import decode_bases
from genoattn.genome.assembly_placement import Block, Placement
from genoattn.genome.local_alignment import SHORT
from genoattn.genome.mutations import Event
from genoattn.genome.record_bases import Bases


class MutationCall(NamedTuple):
    """A mutation with its alleles as in a VCF: left-aligned, and no shorter pair of alleles says the same.

    All positions are 0-based and half-open.
    """

    record: int
    """Number of the record of the reference."""
    position: int
    """The first base of `reference` in the record."""
    reference: str
    """Reference letters; an indel includes the base before it, at the first base of a record the one after it."""
    alternate: str
    kind: Literal["snv", "mnv", "insertion", "deletion"]
    score: float | None
    """Probability, from 0 to 1; None if the alignment tells the mutation and no model was asked."""
    contig: int
    """Number of the contig of the sample."""
    start: int
    """The first substituted or inserted base on the contig's own strand; `start == stop` for a deletion before it."""
    stop: int
    reverse: bool
    """True: the contig lies on the reverse strand of the reference."""


class Part(NamedTuple):
    """Bases [start, stop) of a sequence, and a word on why nothing is said about them."""

    sequence: int
    start: int
    stop: int
    reason: Literal["absent", "unlike", "unknown", "copy"]


def call_of(
    block: Block,
    event: Event,
    reference: Bases,
    inserted: UInt8[np.ndarray, "inserted"],
    score: float | None,
) -> MutationCall:
    """The call of an event of a block.

    Args:
        block: The block, for the place of the event.
        event: The event, counted from the first base of the block in the direction of the reference.
        reference: Bases of the record.
        inserted: Sample bases of the event, in the direction of the reference.
        score: Probability of the event.
    """
    start = block.start + event.reference
    removed = 0 if event.kind == "insertion" else event.size
    before, after = start, start + removed
    if event.kind in ("insertion", "deletion"):
        before, after = (start - 1, after) if start else (start, after + 1)
    letters = decode_bases(inserted)
    alternate = f"{decode_bases(reference[before:start])}{letters}{decode_bases(reference[start + removed : after])}"
    low, high = event.start, event.start if event.kind == "deletion" else event.stop
    if block.reverse:
        low, high = block.contig_stop - high, block.contig_stop - low
    else:
        low, high = block.contig_start + low, block.contig_start + high
    kind: Literal["snv", "mnv", "insertion", "deletion"] = event.kind  # type: ignore[assignment]
    alleles = decode_bases(reference[before:after]), alternate
    return MutationCall(block.record, before, *alleles, kind, score, block.contig, low, high, block.reverse)


def untested_parts(
    records: Sequence[Bases],
    contigs: Sequence[Bases],
    placement: Placement,
) -> tuple[list[Part], list[Part]]:
    """The parts of the reference, and those of the sample, that are in no block.

    "unknown": at least half of the letters are ambiguous. "unlike": neighbouring blocks go on after it in both
    assemblies, but the two parts have too little in common to be aligned. "absent": the other assembly does not have
    it, or not in a place of its own. "copy": something similar lies elsewhere in the other assembly.
    """
    beside: dict[tuple[bool, int, int], bool] = {}
    ordered = sorted(placement.blocks)
    for left, right in pairwise(ordered):
        if (left.record, left.contig, left.reverse) == (right.record, right.contig, right.reverse):
            first, second = (right, left) if left.reverse else (left, right)
            size = second.contig_start - first.contig_stop
            unlike = size >= SHORT and right.start - left.stop >= SHORT
            beside[False, left.record, left.stop] = unlike
            beside[True, left.contig, first.contig_stop] = unlike
    everything = (*placement.blocks, *placement.copies)
    spans = [sorted((block.record, block.start, block.stop) for block in everything)]
    spans.append(sorted((block.contig, block.contig_start, block.contig_stop) for block in everything))
    reference, sample = (
        [
            Part(number, start, stop, _reason(sequences[number][start:stop], beside.get((side, number, start), False)))
            for number, start, stop in _between(held, [len(sequence) for sequence in sequences])
        ]
        for side, sequences, held in zip((False, True), (records, contigs), spans, strict=True)
    )
    reference += [Part(block.record, block.start, block.stop, "copy") for block in placement.copies]
    sample += [Part(block.contig, block.contig_start, block.contig_stop, "copy") for block in placement.copies]
    return sorted(reference), sorted(sample)


def _reason(bases: UInt8[np.ndarray, "part"], unlike: bool) -> Literal["absent", "unlike", "unknown"]:
    if 2 * np.count_nonzero(bases > 3) >= len(bases):
        return "unknown"
    return "unlike" if unlike else "absent"


def _between(held: Sequence[tuple[int, int, int]], lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """The parts of sequences of given lengths that sorted spans leave."""
    parts, at = [], 0
    for number, length in enumerate(lengths):
        end = 0
        while at < len(held) and held[at][0] == number:
            _, start, stop = held[at]
            if start > end:
                parts.append((number, end, start))
            end, at = max(end, stop), at + 1
        if end < length:
            parts.append((number, end, length))
    return parts
