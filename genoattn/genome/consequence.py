"""The consequence of a mutation for the proteins of a genome, from the coding regions of a GFF3 file."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from Bio.Data import CodonTable

from genoattn.errors import UserError, shorten
from genoattn.genome.alphabet import decode_bases, reverse_complement
from genoattn.genome.input_files import bounded_lines, open_text, unknown_contig
from genoattn.genome.intervals import is_number
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import Genome

CONSEQUENCES = ("non_coding", "synonymous", "inframe", "missense", "start", "splice", "frameshift", "stop")
"""The consequences, the most severe last."""

SEVERITY = {"non_coding": 0, "synonymous": 0, "inframe": 1, "missense": 1, "start": 1}
"""An ordinal score: 0 leaves the protein, 1 alters it; every other consequence, which breaks it, has 2."""

SPLICE = 2
"""Bases of an intron, at each end, that splicing needs."""

_BIN = 4096


class CodingSequence(NamedTuple):
    """The coding regions of one transcript.

    Attributes:
        record: The number of the record.
        parts: Intervals [start, stop) in the order of the genome.
        reverse: True on the minus strand.
        phase: Bases before the first whole codon.
        table: NCBI's number of the genetic code.
    """

    record: int
    parts: tuple[tuple[int, int], ...]
    reverse: bool
    phase: int
    table: int


@final
class Consequences:
    """Looks up consequences; where several coding sequences lie, the most severe one counts."""

    def __init__(self, genome: Genome, path: Path, setting: str = "task.gff"):
        """Read the lines of type CDS of a GFF3 file (1-based, both ends included), plain or gzip.

        Lines with the same Parent (without it: the same ID) are one coding sequence. `transl_table` names its code.

        Raises:
            UserError: A line is malformed or names an unknown record or code, or there is no CDS.
        """
        self.genome = genome
        self.near: dict[tuple[int, int], list[CodingSequence]] = defaultdict(list)
        self._letters: dict[CodingSequence, str] = {}
        found = list(_read(path, genome, setting))
        if not found:
            raise UserError(f"{setting}={path} has no line of type CDS")
        for coding in found:
            for number in range((coding.parts[0][0] - SPLICE) // _BIN, (coding.parts[-1][1] + SPLICE) // _BIN + 1):
                self.near[coding.record, number].append(coding)

    def of(self, record: int, mutation: Mutation) -> str:
        """The consequence of a mutation, one of `CONSEQUENCES`."""
        bins = range((mutation.start - 1) // _BIN, mutation.stop // _BIN + 1)
        nearby = dict.fromkeys(coding for number in bins for coding in self.near.get((record, number), ()))
        return max((self._of(coding, mutation) for coding in nearby), default="non_coding", key=CONSEQUENCES.index)

    def _of(self, coding: CodingSequence, mutation: Mutation) -> str:
        start, stop, inserted = mutation
        first, last = (start, stop) if stop > start else (start - 1, start + 1)  # an insertion lies between two bases
        done = 0
        for low, high in coding.parts:
            if low <= first and last <= high:
                place = done + start - low
                if coding.reverse:
                    place = sum(b - a for a, b in coding.parts) - place - (stop - start)
                return self._change(coding, place - coding.phase, stop - start, inserted)
            done += high - low
        if any(start < high and stop > low for low, high in coding.parts if stop > start):  # an end of a part goes
            return "splice" if len(coding.parts) > 1 else "frameshift"
        introns = zip(coding.parts, coding.parts[1:], strict=False)
        sites = [site for (_, a), (b, _) in introns for site in ((a, a + SPLICE), (b - SPLICE, b))]
        return "splice" if any(first < high and last > low for low, high in sites) else "non_coding"

    def _change(self, coding: CodingSequence, place: int, deleted: int, inserted: bytes) -> str:
        """The consequence of replacing `deleted` bases from `place` on, counted from the first whole codon."""
        if (len(inserted) - deleted) % 3:
            return "frameshift"
        bases = np.frombuffer(inserted, np.uint8)
        letters, new = self._sequence(coding), decode_bases(reverse_complement(bases) if coding.reverse else bases)
        changed = letters[: max(place, 0)] + new + letters[max(place + deleted, 0) :]
        first, last = max(place, 0) // 3 * 3, -(-(place + max(deleted, 1)) // 3) * 3
        before = _protein(letters[first:last], coding.table)
        after = _protein(changed[first : last + len(new) - deleted], coding.table)
        if before == after:
            return "synonymous"
        if ("*" in before) != ("*" in after):
            return "stop"
        if first == 0 and not coding.phase and before[:1] != after[:1]:
            return "start"
        return "missense" if len(new) == deleted else "inframe"

    def _sequence(self, coding: CodingSequence) -> str:
        """The letters of a coding sequence on its own strand, from its first whole codon."""
        if coding not in self._letters:
            bases = np.concatenate([self.genome.fetch(coding.record, *part) for part in coding.parts])
            own = reverse_complement(bases) if coding.reverse else bases
            self._letters[coding] = decode_bases(own)[coding.phase :]
        return self._letters[coding]


def _protein(letters: str, table: int) -> str:
    """Amino acids of whole codons, * for a stop and X for a codon with another letter than A, C, G and T."""
    code = CodonTable.unambiguous_dna_by_id[table]
    codons = (letters[at : at + 3] for at in range(0, len(letters) - 2, 3))
    return "".join("*" if codon in code.stop_codons else code.forward_table.get(codon, "X") for codon in codons)


def _read(path: Path, genome: Genome, setting: str) -> Iterator[CodingSequence]:
    if not path.is_file():
        raise UserError(f"{setting}={path} does not exist")
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    lines: dict[str, list[CodingSequence]] = defaultdict(list)
    with open_text(path, "utf-8", "replace") as text:
        for number, line in enumerate(bounded_lines(text, path), 1):
            if line.startswith("##FASTA"):
                break
            fields = line.rstrip("\r\n").split("\t")
            if line.startswith("#") or not line.strip():
                continue
            place = f"{path}, line {number}"
            if len(fields) != 9:
                raise UserError(f"{place}: expected the nine columns of GFF3, got '{shorten(line.rstrip())}'")
            if fields[2] == "CDS":
                if fields[0] not in lengths:
                    raise unknown_contig(place, fields[0], lengths)
                attributes = dict(pair.strip().split("=", 1) for pair in fields[8].split(";") if "=" in pair)
                coding = _coding(fields, attributes, genome.index(fields[0]), lengths[fields[0]], place)
                for name in (attributes.get("Parent") or attributes.get("ID") or f"line {number}").split(","):
                    lines[name].append(coding)
    for parts in lines.values():
        ordered = sorted(parts, key=lambda part: part.parts)
        first = ordered[-1] if ordered[0].reverse else ordered[0]
        yield first._replace(parts=tuple(part.parts[0] for part in ordered))


def _coding(fields: list[str], attributes: dict[str, str], record: int, length: int, place: str) -> CodingSequence:
    _, _, _, start, stop, _, strand, phase, _ = fields
    if not (is_number(start) and is_number(stop) and 1 <= int(start) <= int(stop) <= length):
        raise UserError(f"{place}: expected 1 ≤ start ≤ end ≤ {length}, got {shorten(start)} and {shorten(stop)}")
    if strand not in ("+", "-") or phase not in ("0", "1", "2"):
        raise UserError(f"{place}: expected strand + or - and phase 0, 1 or 2, got {shorten(strand)}, {shorten(phase)}")
    table = attributes.get("transl_table", "1")
    if not is_number(table) or int(table) not in CodonTable.unambiguous_dna_by_id:
        raise UserError(f"{place}: expected a transl_table of NCBI, got {shorten(table)}")
    return CodingSequence(record, ((int(start) - 1, int(stop)),), strand == "-", int(phase), int(table))
