"""Strains beside their relative: a strain from a FASTA or a VCF, placed on the genome of the relative block by block."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN
from genoattn.genome.assembly_placement import LEAST_PLACED, Block, place_assembly
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import LONG, Mutation, Sample, apply_mutations
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.vcf import read_variants, to_mutations, vcf_stem
from genoattn.genome.windows import slice_padded

VCF_ENDINGS = (".vcf", ".vcf.gz", ".bcf")


class StrainBlock(NamedTuple):
    """A stretch of a strain that lies beside a stretch of the relative, in the direction of the relative."""

    record: int
    """Number of the record of the relative."""
    relative: UInt8[np.ndarray, "relative"]
    """The bases of the relative within the block."""
    bases: UInt8[np.ndarray, "strain"]
    start: int
    """The first base of the block in its record, 0-based."""
    position: Int[np.ndarray, "strain"]
    """The base of `relative` that each base of the strain is aligned to; for an inserted base the next one."""
    beside: Int[np.ndarray, "strain"]
    """The base of `relative` that is shown beside each base: it follows long indels only, and is -1 in an insertion of
    more than `LONG` bases. The others move the strain against the relative, as far as they add up."""
    substituted: Bool[np.ndarray, "strain"]
    """True at bases that the truth says are substituted."""
    indel: Bool[np.ndarray, "strain"]
    """True at the first base after an indel: after the last inserted base, or where bases are missing before it."""
    ambiguous: Bool[np.ndarray, "strain"]
    """True at inserted bases and at other equivalent placements of an indel, which count neither as mutated nor as
    not."""

    def index_at(self, position: int) -> int:
        """The first base of the strain that is aligned to base `position` of the record or beyond."""
        return int(np.searchsorted(self.position, position - self.start))

    def beside_window(self, first: int, length: int) -> UInt8[np.ndarray, "length"]:
        """The relative beside the bases from `first` on, N in long insertions and beyond the ends of the block."""
        stop = min(first + length, len(self.beside))
        places = self.beside[first:stop]
        inside = (places >= 0) & (places < len(self.relative))
        letters = np.where(inside, self.relative[np.where(inside, places, 0)], np.uint8(UNKNOWN))
        return slice_padded(letters, 0, length)


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


def open_strain(path: Path, relative: Genome, cache: Path | None = None, vcf_filter: str | None = None) -> Strain:
    """Open a strain and place it on its relative.

    A VCF is applied to the relative, and the sequence that it gives is placed by the k-mers that it shares with it,
    as that of a FASTA is: the VCF then says which bases are mutated. Of a FASTA the alignment of the blocks does.

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
        strain = open_genome([path], cache)
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


def simulated_block(relative: UInt8[np.ndarray, "relative"], mutations: Sequence[Mutation]) -> StrainBlock:
    """The strain that mutations make of a relative, as one block that begins at its first base."""
    return _of_sample(0, 0, relative, apply_mutations(relative, mutations), None)


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
    sample, truth = apply_mutations(relative, block.mutations), None
    if truths is not None and not block.reverse:
        truth, own = truths[block.contig], slice(block.contig_start, block.contig_stop)
        truth = Sample(*(column[own] for column in truth[:-1]), events=())
    return _of_sample(block.record, block.start, relative, sample, truth)


def _of_sample(
    record: int, start: int, relative: np.ndarray, sample: Sample, truth: Sample | None
) -> StrainBlock:
    """A block from its alignment and, if it is known from elsewhere, its truth."""
    truth = truth or sample
    inserted_before = np.append(False, truth.inserted[:-1]) & ~truth.inserted
    indel = inserted_before | truth.deleted_before
    ambiguous = (truth.ambiguous_inserted | truth.ambiguous_deleted_before) & ~indel
    beside = _beside(sample)
    return StrainBlock(
        record, relative, sample.bases, start, sample.reference_position, beside, truth.substituted, indel, ambiguous
    )


def _beside(sample: Sample) -> Int[np.ndarray, "strain"]:
    """The base of the relative beside each base: the window of an aligner, which follows long indels alone."""
    beside = np.arange(len(sample.bases))
    for event in sample.events:
        if event.kind == "insertion" and event.size > LONG:
            beside[event.start : event.stop] = -1
            after = event.stop
        elif event.kind == "deletion" and event.size > LONG:
            after = event.start
        else:
            continue
        if after < len(beside):
            beside[after:] = sample.reference_position[after] + np.arange(len(beside) - after)
    return beside
