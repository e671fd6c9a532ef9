"""The blocks of a placed assembly as alignments (BAM), which genome browsers draw base by base."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pysam

from genoattn.genome.alphabet import decode_bases
from genoattn.genome.assembly_placement import Block
from genoattn.genome.mutations import Mutation
from genoattn.genome.vcf_writer import Assemblies

PIECE = 20_000
"""Bases of the reference from which an alignment is cut: genome browsers read alignments whole."""

MATCH, INSERTION, DELETION = range(3)
"""Operations of a CIGAR, as BAM numbers them."""


class Aligned(NamedTuple):
    """A piece of a block: where it begins on the reference, where in the block's sample, and its operations."""

    start: int
    at: int
    to: int
    operations: list[tuple[int, int]]


def write_alignments(file: Path, blocks: Sequence[Block], assemblies: Assemblies) -> None:
    """Write the blocks as a BAM in the order of the reference; a long block is cut between its mutations.

    Args:
        file: The BAM, in a folder of this process alone: it is not written whole or not at all.
        blocks: The blocks, in the order of the reference.
        assemblies: Both assemblies; an alignment has the name of its contig and its bases there, from 1.
    """
    names = assemblies.names
    references = [{"SN": name, "LN": length} for name, length in zip(names.records, names.lengths, strict=True)]
    header = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": references})
    with pysam.AlignmentFile(str(file), "wb", header=header) as alignments:
        for block in blocks:
            letters = decode_bases(block.oriented(assemblies.contigs[block.contig]))
            for piece in pieces(block):
                row = pysam.AlignedSegment(header)
                ends = (len(letters) - piece.to, len(letters) - piece.at) if block.reverse else (piece.at, piece.to)
                first, last = (block.contig_start + end for end in ends)
                row.query_name = f"{names.contigs[block.contig]}:{first + 1}-{last}"[:254]
                row.reference_id, row.reference_start = block.record, block.start + piece.start
                row.is_reverse, row.mapping_quality = block.reverse, 60
                row.cigartuples, row.query_sequence = piece.operations, letters[piece.at : piece.to]
                alignments.write(row)


def pieces(block: Block) -> Iterator[Aligned]:
    """The alignment of a block, cut at the first equal bases after `PIECE` bases."""
    start = at = base = place = 0
    operations: list[tuple[int, int]] = []
    length = block.stop - block.start
    for first, last, inserted in (*block.mutations, Mutation(length, length, b"")):
        while base < first:
            size = min(first - base, max(1, start + PIECE - base))
            operations.append((MATCH, size))
            base, place = base + size, place + size
            if start + PIECE <= base < first:
                yield Aligned(start, at, place, _joined(operations))
                start, at, operations = base, place, []
        removed, added = last - first, len(inserted)
        both = min(removed, added)
        operations += [(MATCH, both), (INSERTION, added - both), (DELETION, removed - both)]
        base, place = last, place + added
    yield Aligned(start, at, place, _joined(operations))


def _joined(operations: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Operations without empty ones, neighbours of one kind joined."""
    kinds = groupby((operation for operation in operations if operation[1]), key=lambda operation: operation[0])
    return [(kind, sum(size for _, size in same)) for kind, same in kinds]
