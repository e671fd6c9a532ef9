"""Rows of a VCF against a genome: every ALT is a mutation, or there is a reason why it is none."""

from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, final

from genoattn.errors import UserError, shorten
from genoattn.genome.alphabet import ENCODE, ILLEGAL, decode_bases
from genoattn.genome.indexed_fasta import Sequences
from genoattn.genome.mutations import Mutation
from genoattn.genome.record_names import shared_names, unknown_contig
from genoattn.genome.vcf import Variant, to_mutation
from genoattn.genome.vcf_rows import Row

RefPolicy: TypeAlias = Literal["error", "skip", "flip"]
"""Treatments of a row whose REF the genome does not hold: an error, no score, or REF and ALT swapped."""

FLIPPED = "flipped"
"""The reason of an ALT that is scored although REF is wrong: the genome holds the ALT in its place."""

REASONS = {
    "no_alt": "the row has no ALT",
    "symbolic": "the ALT is a symbol such as <DEL>",
    "breakend": "the ALT is a breakend",
    "star": "the ALT is *, deleted by another row",
    "not_bases": "REF or ALT is no sequence of letters of DNA",
    "unknown_contig": "the FASTA has no such contig",
    "outside": "REF reaches beyond an end of the contig",
    "ambiguous": "REF or ALT has a letter other than A, C, G and T",
    "same": "ALT equals REF",
    "wrong_ref": "the FASTA holds other bases than REF",
    "too_long": "the allele does not fit into the window",
    "masked_model_indel": "a masked language model has no likelihood of an indel",
    "other_tokens": "the tokenizer cuts both alleles into other tokens",
    FLIPPED: "scored, but the FASTA holds ALT in the place of REF",
}
"""Reasons for which an ALT has no score, or an unusual score."""


class Allele(NamedTuple):
    """An ALT as a mutation of a record of the genome; if `flipped` the genome holds ALT, and the mutation makes REF."""

    record: int
    mutation: Mutation
    flipped: bool = False


@final
class AlleleReader:
    """Reads the ALTs of rows of a VCF as mutations of a genome.

    REF may have the alphabetically first base for which an ambiguous letter of the genome stands. A row whose REF and
    ALT are swapped is recognised if both have the same length: of an indel no sequence can tell it.
    """

    def __init__(self, genome: Sequences, policy: RefPolicy, path: Path):
        """Read rows of the file `path`, which is named in messages; `policy` says what becomes of a wrong REF."""
        self.genome, self.policy, self.path = genome, policy, path
        self.numbers = {name: number for number, name in enumerate(genome.names)}
        self.ambiguous = shared_names(genome.names)

    def read(self, row: Row) -> list[Allele | str]:
        """Every ALT as an allele, or the reason (a key of `REASONS`) why it is none.

        Raises:
            UserError: REF is wrong and the policy is "error", or the name of the contig stands in several FASTA files;
                the message has the line.
        """
        return [self._allele(row, alternate) for alternate in row.alternates]

    def _allele(self, row: Row, alternate: str) -> Allele | str:
        if reason := _not_a_sequence(row.reference, alternate):
            return reason
        if row.contig not in self.numbers:
            if row.contig in self.ambiguous:
                raise unknown_contig(f"{self.path}, line {row.line}", row.contig, self.numbers)
            return "unknown_contig"
        record, start = self.numbers[row.contig], row.position - 1
        stop = start + len(row.reference)
        if start < 0 or stop > self.genome.lengths[record]:
            return "outside"
        variant = Variant(row.contig, start, row.reference, alternate, row.line)
        bases = self.genome.fetch(record, start, stop)
        try:
            mutation = to_mutation(variant, bases.tobytes(), self.path)
        except UserError:
            return self._wrong_reference(variant, record, decode_bases(bases))
        if row.reference.upper() == alternate.upper():
            return "same"
        if max(_codes(row.reference) + _codes(alternate)) > 3 or bases.max() > 3:
            return "ambiguous"
        return Allele(record, mutation)

    def _wrong_reference(self, variant: Variant, record: int, found: str) -> Allele | str:
        if self.policy == "error":
            raise UserError(
                f"{self.path}, line {variant.record} ({shorten(variant.contig)}:{variant.start + 1}): REF is"
                f" {shorten(variant.reference)}, and the FASTA holds {shorten(found)}; is it the right FASTA?"
                " ref_policy=skip keeps such rows without a score, ref_policy=flip also scores those whose ALT it holds"
            )
        if self.policy == "skip" or found != variant.alternate.upper():
            return "wrong_ref"
        if max(_codes(variant.reference) + _codes(found)) > 3:
            return "ambiguous"
        turned = variant._replace(reference=found, alternate=variant.reference)
        return Allele(record, to_mutation(turned, _codes(found), self.path), flipped=True)


def _not_a_sequence(reference: str, alternate: str) -> str:
    """The reason why two columns of a VCF are not two sequences; "" if they are."""
    if alternate == ".":
        return "no_alt"
    if any(mark in alternate for mark in "[]") or alternate.startswith(".") or alternate.endswith("."):
        return "breakend"
    if "<" in alternate:
        return "symbolic"
    if alternate == "*":
        return "star"
    return "not_bases" if not (reference and alternate) or ILLEGAL in _codes(reference) + _codes(alternate) else ""


def _codes(letters: str) -> bytes:
    return letters.encode("latin-1", "replace").translate(ENCODE.tobytes())
