"""Two assemblies laid beside each other: contigs of a sample in blocks on the records of a reference, and the rest."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, UInt8

from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.anchors import Anchor, chains
from genoattn.genome.displaced_copies import split_copies
from genoattn.genome.local_alignment import align, extension, gap, substitutions
from genoattn.genome.mutations import Mutation
from genoattn.genome.progress import tracked
from genoattn.genome.record_bases import Bases
from genoattn.genome.reference_index import ReferenceIndex

LEAST_KMERS = 10
"""K-mers' worth of anchored bases that a block has at least, or half of the longest contig if that is less."""

CHANCE_KMERS = 3
"""K-mers' worth of anchored bases that occur by chance, even in short sequences."""

LEAST_ANCHORED = 0.3
"""Share of a block in anchors at least: two sequences that differ in every seventh base have less."""

LONGEST_GAP = 10_000
"""Bases between two anchors, in either sequence, beyond which a block ends: the longest insertion or deletion."""

LONGEST_EXTENSION = 10_000
"""Bases by which a block is extended beyond its outermost anchors at most."""

END_DIFFERENCE = 19
"""Equal bases that make up for a difference at the ends of a block, as minimap2 has it for assemblies (asm5)."""

END_DROP = 3 * END_DIFFERENCE
"""An end is cut off if its equal bases fall short by this; fewer differences may be there by chance."""

LEAST_PLACED = 0.1
"""Share of a sample's known bases below which the two assemblies are unrelated."""


class Block(NamedTuple):
    """A stretch of a contig beside a stretch of a record, aligned from end to end; 0-based and half-open."""

    record: int
    """Number of the record of the reference."""
    start: int
    """The first base in the record."""
    stop: int
    contig: int
    """Number of the contig of the sample."""
    contig_start: int
    """The first base on the contig's own strand, also if `reverse`."""
    contig_stop: int
    reverse: bool
    """True: the reverse complement of the contig is aligned."""
    mutations: tuple[Mutation, ...]
    """Everything that differs, in order, counted from `start`; letters of the contig as aligned."""
    anchored: int
    """Bases in anchors."""

    def oriented(self, contig: Bases) -> UInt8[np.ndarray, "block"]:
        """The bases of the block, in the direction of the reference, from those of its contig."""
        piece = contig[self.contig_start : self.contig_stop]
        return reverse_complement(piece) if self.reverse else piece


class Placement(NamedTuple):
    """The blocks of a sample in the order of the reference, and the share of its known bases that they hold."""

    blocks: tuple[Block, ...]
    share: float
    copies: tuple[Block, ...] = ()
    """Blocks that are left out: the sample holds something similar, but elsewhere."""


class _Chain(NamedTuple):
    score: float
    contig: int
    reverse: bool
    anchors: list[Anchor]


class _Draft(NamedTuple):
    """A block before its extension; `start` counts in the row of the index, `at` in the contig as aligned."""

    contig: int
    reverse: bool
    start: int
    stop: int
    at: int
    to: int
    mutations: list[Mutation]
    anchored: int


def place_assembly(records: Sequence[Bases], contigs: Sequence[Bases]) -> Placement:
    """Place the contigs of a sample on the records of a reference, in any order and on both strands.

    The k-mers that occur once in the reference are the anchors. They are chained for each contig, record and strand;
    chains take their bases in the order of their scores, so that no base of either assembly is in two blocks. A block
    ends where reference and sample are not alike, where one of them lacks more than `LONGEST_GAP` bases, or at N.
    Similar copies from elsewhere are told apart from the same place (see `displaced_copies`).

    Args:
        records: Codes of the records of the reference.
        contigs: Codes of the contigs of the sample.
    """
    index = ReferenceIndex(records)
    longest = max((len(contig) for contig in contigs), default=0)
    least = max(CHANCE_KMERS * index.k, min(LEAST_KMERS * index.k, longest // 2))
    found = [
        _Chain(score, number, group.reverse, anchors)
        for number, contig in enumerate(tracked(contigs, "contigs are searched", len(contigs)))
        for group in index.anchors(np.asarray(contig))
        if group.bases >= least
        for score, anchors in chains(group.anchors, least)
    ]
    claims = _Claims(index, contigs)
    drafts: list[_Draft] = []
    ordered = sorted(found, key=lambda chain: -chain.score)
    for chain in tracked(ordered, "blocks are aligned", len(ordered)):
        for draft in _drafts(index, claims, chain):
            if draft.anchored >= max(least, LEAST_ANCHORED * (draft.stop - draft.start)):
                claims.take(draft)
                drafts.append(draft)
    finished = [
        _finish(index, claims.extended(draft), len(contigs[draft.contig]))
        for draft in tracked(drafts, "blocks are extended", len(drafts))
    ]
    blocks, copies = split_copies(sorted(finished))
    blocks = [trimmed(block) for block in blocks]
    known = sum(int(np.count_nonzero(np.asarray(contig) < 4)) for contig in contigs)
    held = sum(
        int(np.count_nonzero(contigs[block.contig][block.contig_start : block.contig_stop] < 4)) for block in blocks
    )
    return Placement(tuple(blocks), held / max(1, known), tuple(copies))


@final
class _Claims:
    """The bases of both assemblies that blocks hold already, and the contigs in both directions."""

    def __init__(self, index: ReferenceIndex, contigs: Sequence[Bases]):
        self.index, self.contigs = index, contigs
        self.reference = np.zeros(len(index.bases), np.bool_)
        self.sample = [np.zeros(len(contig), np.bool_) for contig in contigs]
        self._last: tuple[int, bool, np.ndarray] | None = None

    def bases(self, contig: int, reverse: bool) -> UInt8[np.ndarray, "contig"]:
        """A contig in one of its directions; the last one is kept."""
        if self._last is None or self._last[:2] != (contig, reverse):
            bases = np.asarray(self.contigs[contig])
            self._last = contig, reverse, reverse_complement(bases) if reverse else bases
        return self._last[2]

    def of(self, contig: int, reverse: bool) -> Bool[np.ndarray, "contig"]:
        """The claimed bases of a contig in one of its directions: a view."""
        return self.sample[contig][::-1] if reverse else self.sample[contig]

    def take(self, draft: _Draft) -> None:
        """Claim the bases of a block."""
        self.reference[draft.start : draft.stop] = True
        self.of(draft.contig, draft.reverse)[draft.at : draft.to] = True

    def extended(self, draft: _Draft) -> _Draft:
        """A block with what follows its outermost anchors without a gap, up to the next block; claims it."""
        index, bases = self.index, self.bases(draft.contig, draft.reverse)
        claimed = self.of(draft.contig, draft.reverse)
        record = index.record_of(draft.start)
        first, last = int(index.offsets[record]), int(index.offsets[record] + index.lengths[record])
        size = min(draft.at, draft.start - first, LONGEST_EXTENSION)
        taken = self.reference[draft.start - size : draft.start] | claimed[draft.at - size : draft.at]
        size = _before_claim(taken[::-1])
        before = extension(
            index.bases[draft.start - size : draft.start][::-1],
            bases[draft.at - size : draft.at][::-1],
            size == draft.at,
        )
        size = min(len(bases) - draft.to, last - draft.stop, LONGEST_EXTENSION)
        size = _before_claim(self.reference[draft.stop : draft.stop + size] | claimed[draft.to : draft.to + size])
        beside = index.bases[draft.stop : draft.stop + size]
        after = extension(beside, bases[draft.to : draft.to + size], draft.to + size == len(bases))
        start, stop, at, to = draft.start - before, draft.stop + after, draft.at - before, draft.to + after
        mutations = [
            *_moved(substitutions(index.bases[start : draft.start], bases[at : draft.at]), start),
            *draft.mutations,
            *_moved(substitutions(index.bases[draft.stop : stop], bases[draft.to : to]), draft.stop),
        ]
        wide = draft._replace(start=start, stop=stop, at=at, to=to, mutations=mutations)
        self.take(wide)
        return wide


def _drafts(index: ReferenceIndex, claims: _Claims, chain: _Chain) -> Iterator[_Draft]:
    """The blocks of a chain: its anchors outside of other blocks, cut where two neighbours cannot be joined."""
    bases, claimed = claims.bases(chain.contig, chain.reverse), claims.of(chain.contig, chain.reverse)
    free = [part for anchor in chain.anchors if (part := _free_part(anchor, claimed, claims.reference)) is not None]
    if not free:
        return
    first, mutations, anchored = free[0], [], free[0].stop - free[0].start
    for left, right in pairwise(free):
        start, stop, at, to = gap(left, right)
        within = None
        if (
            max(stop - start, to - at) <= LONGEST_GAP
            and not claimed[at:to].any()
            and not claims.reference[start:stop].any()
        ):
            within = align(index.bases[start:stop], bases[at:to])
        if within is None:
            yield _draft(chain, first, left, mutations, anchored)
            first, mutations, anchored = right._replace(start=to), [], 0
        else:
            mutations += _moved(within, start)
        anchored += right.stop - to
    yield _draft(chain, first, free[-1], mutations, anchored)


def _free_part(anchor: Anchor, sample: Bool[np.ndarray, "contig"], reference: Bool[np.ndarray, "row"]) -> Anchor | None:
    """The longest part of an anchor that is claimed in neither sequence."""
    start, stop, diagonal = anchor
    taken = sample[start:stop] | reference[start + diagonal : stop + diagonal]
    if not taken.any():
        return anchor
    bounds = np.flatnonzero(np.diff(taken, prepend=True, append=True))
    if not len(bounds):
        return None
    longest = 2 * int(np.diff(bounds)[::2].argmax())
    return Anchor(start + int(bounds[longest]), start + int(bounds[longest + 1]), diagonal)


def _draft(chain: _Chain, first: Anchor, last: Anchor, mutations: list[Mutation], anchored: int) -> _Draft:
    start, stop = first.start + first.diagonal, last.stop + last.diagonal
    return _Draft(chain.contig, chain.reverse, start, stop, first.start, last.stop, mutations, anchored)


def _finish(index: ReferenceIndex, draft: _Draft, length: int) -> Block:
    """A draft in coordinates of its record and of its contig, which has `length` bases."""
    record = index.record_of(draft.start)
    offset = int(index.offsets[record])
    at, to = (length - draft.to, length - draft.at) if draft.reverse else (draft.at, draft.to)
    mutations = tuple(_moved(draft.mutations, -draft.start))
    place = record, draft.start - offset, draft.stop - offset, draft.contig, at, to, draft.reverse
    return Block(*place, mutations, draft.anchored)


def _moved(mutations: Sequence[Mutation], by: int) -> list[Mutation]:
    return [Mutation(start + by, stop + by, inserted) for start, stop, inserted in mutations]


def _before_claim(claimed: Bool[np.ndarray, "bases"]) -> int:
    """Bases before the first claimed one."""
    return int(claimed.argmax()) if claimed.any() else len(claimed)


def trimmed(block: Block) -> Block:
    """A block without ends in which differences are so dense that they outweigh the equal bases."""
    size, mutations = block.stop - block.start, block.mutations
    first, grown = _cut([(start, len(inserted) - (stop - start)) for start, stop, inserted in mutations])
    last, shrunk = _cut(
        [(size - stop, len(inserted) - (stop - start)) for start, stop, inserted in reversed(mutations)]
    )
    if first + last > len(mutations):
        return block
    start = mutations[first - 1].stop if first else 0
    stop = mutations[-last].start if last else size
    ends = start + grown, size - stop + shrunk
    before, after = reversed(ends) if block.reverse else ends
    return block._replace(
        start=block.start + start,
        stop=block.start + stop,
        contig_start=block.contig_start + before,
        contig_stop=block.contig_stop - after,
        mutations=tuple(_moved(mutations[first : len(mutations) - last], -start)),
    )


def _cut(differences: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The number of differences to cut off, and the bases that they add to the sample.

    A difference is the number of reference bases before it, and the bases that it adds to the sample.
    """
    lowest, cut, grown, total = -END_DROP, 0, 0, 0
    for number, (before, added) in enumerate(differences, 1):
        total += added
        score = before - END_DIFFERENCE * number
        if score < lowest:
            lowest, cut, grown = score, number, total
    return cut, grown
