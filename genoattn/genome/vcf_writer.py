"""Calls and tracks as files that other programs read: VCF 4.3, bgzip and its index, BED and bedGraph."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import log10
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pysam
from jaxtyping import Float

from genoattn.errors import UserError, shorten
from genoattn.files import replace_when_done, write_text
from genoattn.genome.assembly_placement import Block
from genoattn.genome.calls import MutationCall, Part
from genoattn.genome.record_bases import Bases

MOST_QUAL = 60
"""QUAL at most: a probability of 0.999999."""

LOW = "LowScore"
"""FILTER of a difference that the model does not call."""

CONTIG_NAME = re.compile(r"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")
"""Names that a contig may have in a VCF."""

_LONGEST_TBI = 1 << 29
_ESCAPED = str.maketrans({sign: f"%{ord(sign):02X}" for sign in "%:;=,"})

_FIELDS = (
    ("FILTER", "PASS", "", "The model calls it"),
    ("FILTER", LOW, "", "The sequences differ; the probability is below the threshold of the model"),
    ("INFO", "TYPE", "Number=1,Type=String,", "Kind of mutation: SNV, MNV, INS or DEL"),
    ("INFO", "PROB", "Number=1,Type=Float,", f"Probability by the model; QUAL is its phred score, {MOST_QUAL} at most"),
    ("INFO", "CONTIG", "Number=1,Type=String,", "Contig of the sample"),
    ("INFO", "CONTIG_POS", "Number=1,Type=Integer,", "First base on the contig's own strand, after a deletion"),
    ("INFO", "STRAND", "Number=1,Type=String,", "Strand of the reference on which the contig lies: + or -"),
    ("FORMAT", "GT", "Number=1,Type=String,", "Genotype"),
)
"""Column, name, type and meaning of what a row may hold."""

_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
_TYPES = {"snv": "SNV", "mnv": "MNV", "insertion": "INS", "deletion": "DEL"}


class Names(NamedTuple):
    """The records of both assemblies as files name them."""

    records: Sequence[str]
    lengths: Sequence[int]
    contigs: Sequence[str]


class Assemblies(NamedTuple):
    """Both assemblies, which may be read from the store part by part, with the names of their records."""

    names: Names
    records: Sequence[Bases]
    contigs: Sequence[Bases]


class Origin(NamedTuple):
    """The program, command and files that made a VCF, for its header."""

    source: str
    command: str
    reference: str
    sample: str


def check_names(names: Sequence[str]) -> None:
    """Raises UserError at a record of the reference whose name a VCF cannot hold."""
    for name in names:
        if not CONTIG_NAME.fullmatch(name):
            raise UserError(f"the reference's record {shorten(name)!r} has a sign that no VCF may hold; rename it")


def phred(probability: float) -> float:
    """The phred score of a probability, `MOST_QUAL` at most."""
    wrong = 1 - probability
    return MOST_QUAL if wrong <= 10 ** (-MOST_QUAL / 10) else -10 * log10(wrong) + 0.0


def write_vcf(file: Path, calls: Iterable[tuple[MutationCall, bool]], names: Names, origin: Origin) -> None:
    """Write calls in the order of the reference; a name that ends in .gz is bgzipped and gets an index beside it.

    Args:
        file: The file, in a folder that exists.
        calls: Each call, and True if it passes.
        names: The records of both assemblies.
        origin: What the header says about the run.
    """
    ordered = sorted(calls, key=lambda pair: (pair[0].record, pair[0].position, pair[0].reference, pair[0].alternate))
    with open_vcf(file, max(names.lengths)) as write:
        write(_header(names, origin).encode())
        write("".join(_row(call, passed, names) for call, passed in ordered).encode())


@contextmanager
def open_vcf(file: Path, longest: int | None) -> Iterator[Callable[[bytes], object]]:
    """Write a VCF, whole or not at all; a name that ends in .gz is bgzipped.

    Args:
        file: The file, in a folder that exists.
        longest: The last position of a contig, for an index beside a bgzipped file; None: its rows are not sorted, and
            an index that lies there is removed.

    Yields:
        A function that writes bytes.
    """
    with replace_when_done(file) as part:
        if not file.name.endswith(".gz"):
            with part.open("wb") as plain:
                yield plain.write
            return
        with pysam.BGZFile(str(part), "wb", None) as packed:
            yield packed.write
        csi = longest is not None and longest >= _LONGEST_TBI
        indexes = {kind: file.with_name(f"{file.name}.{kind}") for kind in ("tbi", "csi")}
        if longest is not None:
            with replace_when_done(indexes.pop("csi" if csi else "tbi")) as index:
                pysam.tabix_index(str(part), preset="vcf", force=True, index=str(index), csi=csi, keep_original=True)
        for outdated in indexes.values():
            outdated.unlink(missing_ok=True)


def _header(names: Names, origin: Origin) -> str:
    contigs = zip(names.records, names.lengths, strict=True)
    source, command, reference, sample = map(one_line, origin)
    lines = ["##fileformat=VCFv4.3", f"##source={source}", f"##genoattnCommand={command}", f"##reference={reference}"]
    lines += [f"##contig=<ID={name},length={length}>" for name, length in contigs]
    lines += [f'##{column}=<ID={name},{kind}Description="{meaning}">' for column, name, kind, meaning in _FIELDS]
    return "\n".join([*lines, "\t".join([*_COLUMNS, sample]), ""])


def _row(call: MutationCall, passed: bool, names: Names) -> str:
    info = {"TYPE": _TYPES[call.kind]}
    if call.score is not None:
        info["PROB"] = f"{call.score:g}"
    info |= {
        "CONTIG": names.contigs[call.contig].translate(_ESCAPED),
        "CONTIG_POS": str(call.start + 1),
        "STRAND": "-" if call.reverse else "+",
    }
    fields = [
        names.records[call.record],
        str(call.position + 1),
        ".",
        call.reference,
        call.alternate,
        "." if call.score is None else f"{phred(call.score):.1f}",
        "." if call.score is None else "PASS" if passed else LOW,
        ";".join(f"{key}={value}" for key, value in info.items()),
        "GT",
        "1",
    ]
    return "\t".join(fields) + "\n"


def write_parts(file: Path, parts: Iterable[Part], names: Sequence[str]) -> None:
    """Write parts of sequences as BED with the reason as name."""
    write_text(file, "".join(f"{names[part.sequence]}\t{part.start}\t{part.stop}\t{part.reason}\n" for part in parts))


def write_blocks(file: Path, blocks: Iterable[Block], names: Names) -> None:
    """Write the blocks on the reference as BED: the name is contig:start-stop from 1, the score is 0."""
    rows = []
    for block in blocks:
        place = f"{names.contigs[block.contig]}:{block.contig_start + 1}-{block.contig_stop}"
        strand = "-" if block.reverse else "+"
        rows.append(f"{names.records[block.record]}\t{block.start}\t{block.stop}\t{place}\t0\t{strand}\n")
    write_text(file, "".join(rows))


def bedgraph_rows(name: str, start: int, values: Float[np.ndarray, "bases"]) -> Iterator[str]:
    """Rows of a bedGraph, equal neighbours joined, values with two decimals; bases with NaN are left out."""
    hundredths = np.where(np.isnan(values), -1, np.rint(100 * np.nan_to_num(values))).astype(np.int64)
    bounds = np.flatnonzero(np.diff(hundredths, prepend=-2, append=-2)).tolist()
    for low, high in pairwise(bounds):
        if hundredths[low] >= 0:
            yield f"{name}\t{start + low}\t{start + high}\t{hundredths[low] / 100:g}\n"


def one_line(text: str) -> str:
    """A text without line breaks and control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
