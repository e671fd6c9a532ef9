"""Variants of a VCF file: read once into 0-based places, checked against the reference and turned into mutations."""

import gzip
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import pysam
from jaxtyping import UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import ENCODE, ILLEGAL, LETTERS, encode_bases
from genoattn.genome.mutations import Mutation, mutated_sequence

_CODES = ENCODE.tobytes()


# VCF 4.3 allows no ambiguity code in REF but N: the alphabetically first base that the letter stands for is written.
_CONCRETE = bytes.maketrans(bytes(range(len(LETTERS))), bytes(LETTERS.index(base) for base in "ACGTACCAGACAAAN"))


class Variant(NamedTuple):
    """One record's chosen change: `reference` letters from base `start` (0-based) on give way to `alternate`."""

    contig: str
    start: int
    reference: str
    alternate: str
    record: int  # which record of the file, from 1


@dataclass(frozen=True)
class Variants:
    """A VCF's usable records in file order (every known contig is a key) and how many were passed over, by reason."""

    by_contig: dict[str, list[Variant]]
    skipped: dict[str, int]


class Mutations(NamedTuple):
    """A contig's mutations, sorted and apart, and how many records fell out because an earlier one overlaps them."""

    mutations: list[Mutation]
    overlapping: int


def read_variants(path: str | PathLike[str], contigs: Mapping[str, int], allele: int | None = None) -> Variants:
    """The records of a VCF or BCF (plain, gzip or bgzip) on contigs of known length; POS becomes 0-based here.

    Of several ALTs `allele` (from 1) is taken; without it the first that the first sample's genotype names; without a
    genotype the first. FILTER is not consulted. Records that name no sequence of bases are skipped and counted.
    """
    if allele is not None and allele < 1:
        raise UserError(f"allele counts a record's ALTs from 1, got {allele}")
    by_contig: dict[str, list[Variant]] = {name: [] for name in contigs}
    skipped: Counter[str] = Counter()
    for number, record in enumerate(_records(Path(path)), 1):
        place = f"{path}, record {number} ({record.chrom}:{record.pos})"
        reference = record.ref or ""
        _check_place(place, record.chrom, record.start, record.start + len(reference), contigs)
        alternates = record.alts or ()
        chosen = _chosen(record) if allele is None else allele
        if not alternates:
            skipped["no ALT"] += 1
        elif chosen is None:
            skipped["missing genotype"] += 1
        elif chosen == 0:
            skipped["reference genotype"] += 1
        elif chosen > len(alternates):
            raise UserError(f"{place}: ALT number {chosen} was asked for, the record has {len(alternates)}")
        elif reason := _not_bases(reference, alternates[chosen - 1]):
            skipped[reason] += 1
        else:
            _check_letters(place, reference, alternates[chosen - 1])
            by_contig[record.chrom].append(
                Variant(record.chrom, record.start, reference, alternates[chosen - 1], number)
            )
    return Variants(by_contig, dict(skipped))


def to_mutations(
    variants: Sequence[Variant], reference: UInt8[np.ndarray, "reference"], contig: str, path: str | PathLike[str]
) -> Mutations:
    """One contig's variants as minimal mutations of its codes; raises UserError where REF is not what the contig holds.

    Overlaps are settled as `bcftools consensus` does: of records whose REFs share a base the first wins, except that
    the anchor of an indel may be the last base of a record before it whose ALT is not longer than its REF.
    """
    letters = reference.tobytes()
    mutations: list[Mutation] = []
    overlapping = 0
    taken, grown = -1, False  # the last base of the REFs so far; whether the last of them grew
    for variant in sorted(variants, key=lambda variant: variant.start):
        stated = _codes(variant.reference)
        _check_reference(variant, stated, letters[variant.start : variant.start + len(stated)], contig, path)
        mutation = _minimal(variant.start, stated, _codes(variant.alternate))
        follows = mutation.kind in ("insertion", "deletion") and mutation.start > taken and not grown
        if variant.start < taken or (variant.start == taken and not follows):
            overlapping += 1
            continue
        mutations.append(mutation)
        taken, grown = variant.start + len(stated) - 1, len(variant.alternate) > len(stated)
    return Mutations(mutations, overlapping)


def to_mutation(variant: Variant, held: bytes, path: str | PathLike[str]) -> Mutation:
    """One variant as a minimal mutation; raises UserError where REF is not the codes `held` at its place."""
    stated = _codes(variant.reference)
    _check_reference(variant, stated, held, variant.contig, path)
    return _minimal(variant.start, stated, _codes(variant.alternate))


def info_of(path: str | PathLike[str], field: str) -> list[str | None]:
    """A field of INFO for every record of a VCF in file order, its values joined by commas; None where it is not."""
    values: list[str | None] = []
    for record in _records(Path(path)):
        if not values and field not in record.header.info:
            there = list(record.header.info)
            nearest = get_close_matches(field, there, 1, 0.0)
            raise UserError(
                f"{path}: its header has no INFO field {field!r}"
                + (f"; nearest is {nearest[0]}" if nearest else "; it has none at all")
            )
        value = record.info.get(field)
        joined = ",".join(map(str, value)) if isinstance(value, tuple) else value
        values.append(None if joined is None else str(joined))
    return values


def consensus(
    reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation]
) -> UInt8[np.ndarray, "consensus"]:
    """The contig with its mutations applied: what `bcftools consensus` writes for it."""
    return mutated_sequence(reference, mutations)


def _records(path: Path) -> Iterator[pysam.VariantRecord]:
    if not path.is_file():
        raise UserError(f"{path} is a folder; expected a VCF" if path.is_dir() else f"{path} does not exist")
    number = 0
    verbosity = pysam.set_verbosity(0)  # htslib would print beside the sentences below
    try:
        with _openable(path) as source, pysam.VariantFile(source) as records:
            number = 1
            for record in records:
                yield record
                number += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a truncated or damaged gzip file: {error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a VCF; expected a header from ##fileformat=VCF to #CHROM") from error
    except OSError as error:
        wrong = f"record {number} is malformed or cut short" if number else f"it cannot be opened: {error}"
        raise UserError(f"{path}: {wrong}") from error
    finally:
        pysam.set_verbosity(verbosity)


@contextmanager
def _openable(path: Path) -> Iterator[str | BinaryIO]:
    """What pysam opens: the path, or for gzip that is not bgzip, which pysam refuses, a temporary unpacked copy."""
    with open(path, "rb") as file:
        head = file.read(14)
    if head[:2] != b"\x1f\x8b" or head[12:14] == b"BC":
        yield str(path)
        return
    with gzip.open(path) as packed, tempfile.TemporaryFile() as unpacked:
        shutil.copyfileobj(packed, unpacked)
        unpacked.seek(0)
        yield cast(BinaryIO, unpacked)


def _check_place(place: str, contig: str, start: int, stop: int, contigs: Mapping[str, int]) -> None:
    if contig not in contigs:
        nearest = get_close_matches(contig, contigs, 1, 0.0)
        hint = f", the nearest name there is {nearest[0]!r}" if nearest else ""
        raise UserError(f"{place}: the FASTA has no contig {contig!r}{hint}")
    if start < 0:
        raise UserError(f"{place}: position {start + 1} is before the contig's first base")
    if stop > contigs[contig]:
        raise UserError(f"{place}: REF ends at base {stop}, but {contig} in the FASTA has {contigs[contig]} bases")


def _chosen(record: pysam.VariantRecord) -> int | None:
    """The first ALT that the first sample carries, 0 if it carries the reference, None if its genotype is missing."""
    if len(record.samples) == 0 or "GT" not in record.format:
        return 1
    alleles = [allele for allele in record.samples[0]["GT"] or () if allele is not None]
    return next((allele for allele in alleles if allele > 0), 0) if alleles else None


def _not_bases(reference: str, alternate: str) -> str | None:
    """Why an ALT cannot be put in place of REF, or None if it can."""
    if alternate.startswith("<"):
        return "symbolic ALT"
    if alternate == "*":
        return "ALT deleted by another record (*)"
    if any(mark in alternate for mark in "[]") or alternate.startswith(".") or alternate.endswith("."):
        return "breakend"
    return "ALT equals REF" if alternate.upper() == reference.upper() else None


def _codes(letters: str) -> bytes:
    return letters.encode("latin-1", "replace").translate(_CODES)


def _check_letters(place: str, reference: str, alternate: str) -> None:
    for column, letters in (("REF", reference), ("ALT", alternate)):
        if ILLEGAL in _codes(letters):
            try:
                encode_bases(letters)
            except UserError as error:
                raise UserError(f"{place}: {column} {error}") from error


def _check_reference(variant: Variant, stated: bytes, held: bytes, contig: str, path: str | PathLike[str]) -> None:
    if stated in (held, held.translate(_CONCRETE)):
        return
    offset = next((i for i, code in enumerate(held) if stated[i] not in (code, _CONCRETE[code])), len(held))
    position = f"{contig}:{variant.start + offset + 1}"
    if offset == len(held):
        raise UserError(f"{position} is beyond the contig's end in the FASTA; {path} says {variant.reference[offset]}")
    raise UserError(
        f"{position} holds {LETTERS[held[offset]]} in the FASTA; {path} says {variant.reference[offset].upper()}"
    )


def _minimal(start: int, reference: bytes, alternate: bytes) -> Mutation:
    """The change without the bases that REF and ALT share; an anchor before an insertion stays before it."""
    shared = 0
    while min(len(reference), len(alternate)) - shared > 1 and reference[-1 - shared] == alternate[-1 - shared]:
        shared += 1
    reference, alternate = reference[: len(reference) - shared], alternate[: len(alternate) - shared]
    shared = 0
    while shared < min(len(reference), len(alternate)) and reference[shared] == alternate[shared]:
        shared += 1
    start, reference, alternate = start + shared, reference[shared:], alternate[shared:]
    if reference and alternate and reference[-1] == alternate[-1]:  # an insertion put before the base it names
        reference, alternate = reference[:-1], alternate[:-1]
    return Mutation(start, start + len(reference), alternate)
