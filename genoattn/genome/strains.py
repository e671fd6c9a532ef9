"""Strains beside their relative: read from a FASTA or a VCF, and placed on the genome of the relative in blocks."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN, reverse_complement
from genoattn.genome.assembly_placement import LEAST_PLACED, Block, place_assembly
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import LONG, Mutation, Sample, apply_mutations, slice_sample
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.vcf import read_variants, to_mutations, vcf_stem
from genoattn.genome.windows import slice_padded

VCF_ENDINGS = (".vcf", ".vcf.gz", ".bcf")


class StrainBlock(NamedTuple):
    """A stretch of a strain that lies beside a stretch of its relative, in the direction of the relative."""

    record: int
    """Number of the record of the relative."""
    start: int
    """The first base of the block in its record, 0-based."""
    relative: UInt8[np.ndarray, "relative"]
    """The bases of the relative within the block."""
    sample: Sample
    """The bases of the strain as they are aligned, and what the truth says is mutated."""
    pieces: Int[np.ndarray, "strain"]
    """The first base of the piece that each base of the strain belongs to: a new one begins after every indel of more
    than `LONG` bases. -1 within such an insertion."""

    def index_at(self, position: int) -> int:
        """The first base of the strain that is aligned to base `position` of the record or beyond."""
        return int(np.searchsorted(self.sample.reference_position, position - self.start))

    def beside(self, first: int, skipped: int, length: int) -> UInt8[np.ndarray, "length"]:
        """The relative beside `length` bases of the strain, as the anchors of an aligner would show it.

        It begins at the counterpart of base `first`, follows indels of more than `LONG` bases, and lets shorter ones
        add up to a drift. It is N in long insertions and beyond the ends of the block.

        Args:
            first: The first base of the window of the strain.
            skipped: Bases of the window before those that are asked for.
            length: Bases that are asked for.
        """
        index = np.arange(first + skipped, min(first + skipped + length, len(self.pieces)))
        anchors = np.maximum(self.pieces[index], first)
        places = self.sample.reference_position[anchors] + index - anchors
        inside = (self.pieces[index] >= 0) & (places < len(self.relative))
        letters = np.where(inside, self.relative[np.where(inside, places, 0)], np.uint8(UNKNOWN))
        return slice_padded(letters, 0, length)

    def part(self, first: int, stop: int, margin: int) -> "StrainBlock":
        """Bases [first, stop) of the strain as a block, with `margin` more bases of the relative on each side."""
        position = self.sample.reference_position[first:stop]
        low, high = max(0, int(position[0]) - margin), min(len(self.relative), int(position[-1]) + margin + 1)
        sample = slice_sample(self.sample, first, stop)._replace(reference_position=position - low)
        pieces = _pieces(position - low)
        return StrainBlock(self.record, self.start + low, self.relative[low:high], sample, pieces)


class Strain(NamedTuple):
    """A strain in blocks on its relative."""

    name: str
    blocks: tuple[StrainBlock, ...]
    share: float
    """Share of its known bases that lie in blocks."""

    def within(self, intervals: Sequence[Interval], length: int) -> list[tuple[StrainBlock, int, int]]:
        """The stretches [first, stop) of blocks within intervals of the relative that hold `length` bases."""
        found = []
        for record, start, stop in intervals:
            for block in self.blocks:
                if block.record == record:
                    first, last = block.index_at(start), block.index_at(stop)
                    if last - first >= length:
                        found.append((block, first, last))
        return found


def open_strain(path: Path, relative: Genome, cache: str | None = None, vcf_filter: str | None = None) -> Strain:
    """Open a strain and place it on its relative.

    A VCF is applied to the relative, and the sequence that it gives is placed by the k-mers that the two share, as that
    of a FASTA is. What is mutated the VCF says, or the alignment of the blocks of a FASTA.

    Args:
        path: A FASTA of the strain, or a VCF or BCF of its variants against the relative.
        relative: The genome that it is placed on.
        cache: The folder of encoded genomes, as in `open_genome`.
        vcf_filter: Records of the VCF that are read, as in `read_variants`.

    Raises:
        UserError: The file is missing or malformed, does not fit the relative, or is not related to it.
    """
    records = [relative.fetch(number, 0, length) for number, length in enumerate(relative.lengths)]
    truths: list[Sample] | None = None
    if path.name.endswith(VCF_ENDINGS):
        name, truths = vcf_stem(path), _spelled(path, relative, records, vcf_filter)
        contigs = [truth.bases for truth in truths]
    else:
        strain = open_genome([path], Path(cache) if cache else None)
        name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        contigs = [strain.fetch(number, 0, length) for number, length in enumerate(strain.lengths)]
    blocks, share, _ = place_assembly(records, contigs)
    if share < LEAST_PLACED:
        raise UserError(
            f"{path}: {share:.1%} of the strain lies beside the genome in data.fasta; expected a related strain, with"
            f" at least {LEAST_PLACED:.0%}"
        )
    placed = (_block(block, records[block.record], contigs[block.contig], truths) for block in blocks)
    return Strain(name, tuple(placed), share)


def simulated_block(
    relative: UInt8[np.ndarray, "relative"], mutations: Sequence[Mutation], record: int = 0, start: int = 0
) -> StrainBlock:
    """The strain that mutations make of the bases of a relative from `start` on, as one block."""
    sample = apply_mutations(relative, mutations)
    return StrainBlock(record, start, relative, sample, _pieces(sample.reference_position))


def reverse_complement_block(block: StrainBlock) -> StrainBlock:
    """The same block on the other strand, as a model reads it: without its events and indels."""
    sample, none = block.sample, np.zeros(len(block.sample.bases), np.bool_)
    # The base after an insertion on one strand is the one before it on the other.
    position = (len(block.relative) - 1 - sample.reference_position + sample.inserted)[::-1]
    bases = reverse_complement(sample.bases)
    turned = Sample(bases, position, sample.substituted[::-1], none, none, none, none, ())
    relative = reverse_complement(block.relative)
    return StrainBlock(block.record, block.start, relative, turned, _pieces(position))


def _spelled(path: Path, relative: Genome, records: Sequence[np.ndarray], vcf_filter: str | None) -> list[Sample]:
    """The records with the variants of a VCF."""
    variants = read_variants(path, dict(zip(relative.names, relative.lengths, strict=True)), vcf_filter).by_contig
    named = zip(relative.names, records, strict=True)
    return [
        apply_mutations(bases, to_mutations(variants.get(name, ()), bases, name, path).mutations)
        for name, bases in named
    ]


def _block(
    block: Block, record: UInt8[np.ndarray, "record"], contig: UInt8[np.ndarray, "contig"], truths: list[Sample] | None
) -> StrainBlock:
    """A placed block; its truth is that of its contig or, without one, the alignment."""
    relative = record[block.start : block.stop]
    aligned = simulated_block(relative, block.mutations, block.record, block.start)
    if truths is None or block.reverse:
        return aligned
    truth = slice_sample(truths[block.contig], block.contig_start, block.contig_stop)
    return aligned._replace(sample=truth._replace(reference_position=aligned.sample.reference_position))


def _pieces(position: Int[np.ndarray, "strain"]) -> Int[np.ndarray, "strain"]:
    """The first base of the piece of each base, as `StrainBlock.pieces` has it, from the positions of the bases."""
    begins = np.flatnonzero(np.diff(position, prepend=-1) > LONG + 1)
    pieces = np.zeros(len(position), np.int64)
    pieces[begins] = begins
    # The bases of an insertion, and the one after it, have one position.
    firsts = np.flatnonzero(np.diff(position, prepend=-1) != 0)
    sizes = np.diff(firsts, append=len(position)) - 1
    stays = firsts[sizes > LONG] + sizes[sizes > LONG]
    pieces[stays] = stays
    pieces = np.maximum.accumulate(pieces)
    for first, stop in zip(firsts[sizes > LONG].tolist(), stays.tolist(), strict=True):
        pieces[first:stop] = -1
    return pieces
