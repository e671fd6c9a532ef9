"""The windows of records as genoattn reads them, for the conformance set."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from genoattn.genome.alphabet import SOFT, decode_bases
from genoattn.genome.fasta import read_fasta
from genoattn.genome.input_files import open_text
from genoattn.genome.mutations import mutated_sequence
from genoattn.genome.vcf import read_variants, to_mutation, to_mutations

SIDE = 20
"""Bases of a window before the first base of ALT; as many follow, that base included."""


def windows(reference: Path, vcf: Path) -> Mapping[str, str]:
    """The window of each record that is read, by its ID."""
    genome = {record.name: record.codes & ~SOFT for record in read_fasta(reference)}
    variants = read_variants(vcf, {name: len(codes) for name, codes in genome.items()})
    with open_text(vcf, "utf-8") as text:
        names = [line.split("\t")[2] for line in text if not line.startswith("#")]
    found: dict[str, str] = {}
    for contig, codes in genome.items():
        mutations, _ = to_mutations(variants.by_contig[contig], codes, contig, vcf)
        sample = decode_bases(mutated_sequence(codes, mutations))
        left = Counter(mutations)
        for variant in sorted(variants.by_contig[contig], key=lambda variant: variant.start):
            letters = codes[variant.start : variant.start + len(variant.reference)].tobytes()
            own = to_mutation(variant, letters, vcf)
            if left[own]:  # not one that overlaps an earlier record
                left[own] -= 1
                before = [one for one in mutations if one.stop <= variant.start and one != own]
                at = variant.start + sum(len(one.inserted) - (one.stop - one.start) for one in before)
                found[names[variant.record - 1]] = sample[max(0, at - SIDE) : at + SIDE]
    return found
