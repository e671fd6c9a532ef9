"""VCF files: variants with 0-based positions, checked against the reference and turned into mutations."""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast

import numpy as np
import pysam
from jaxtyping import UInt8

from genoattn.errors import UserError, did_you_mean, shorten
from genoattn.genome.alphabet import ENCODE, ILLEGAL, LETTERS, encode_bases
from genoattn.genome.input_files import check_header, open_bytes, packing
from genoattn.genome.mutations import Mutation
from genoattn.genome.record_names import unknown_contig
from genoattn.genome.vcf_filter import is_pass, keeps

T = TypeVar("T")

_CODES = ENCODE.tobytes()

# VCF 4.3 allows no ambiguous letter in REF but N: files have the alphabetically first base that it stands for.
_CONCRETE = bytes.maketrans(bytes(range(len(LETTERS))), bytes(LETTERS.index(base) for base in "ACGTACCAGACAAAN"))


class Variant(NamedTuple):
    """The allele that is read from a record of a VCF: `alternate` replaces the letters `reference`."""

    contig: str
    start: int  # the first base of REF, 0-based (POS - 1)
    reference: str
    alternate: str
    record: int  # the number of the record in the file, from 1


class Variants(NamedTuple):
    """The variants of a VCF by contig, in the order of the file (every contig is a key), and skips by reason."""

    by_contig: dict[str, list[Variant]]
    skipped: dict[str, int]

    @property
    def total(self) -> int:
        """Records of the file, the skipped ones included."""
        return sum(map(len, self.by_contig.values())) + sum(self.skipped.values())


class _Record(NamedTuple):
    contig: str
    position: int  # POS, 1-based
    reference: str
    alternates: tuple[str, ...]
    allele: int | None  # as `_genotype_allele` gives it


class Mutations(NamedTuple):
    """The mutations of a contig, sorted and not overlapping, and the number left out because they overlap others."""

    mutations: list[Mutation]
    overlapping: int


def vcf_stem(path: Path) -> str:
    """The name of a VCF or BCF file without its endings."""
    return path.name.removesuffix(".gz").removesuffix(".vcf").removesuffix(".bcf")


def read_variants(path: str | PathLike[str], contigs: Mapping[str, int], vcf_filter: str | None = None) -> Variants:
    """Read the variants of a VCF; this is where the 1-based POS becomes a 0-based start.

    Of several ALTs the first that the genotype of the first sample names is read, or the first if there is no genotype.
    Records whose ALT is not a sequence of bases are skipped and counted, as are those that the filter leaves out; they
    may lie on contigs that the reference lacks.

    Args:
        path: A VCF or BCF, plain, gzip or bgzip.
        contigs: The length of every contig of the reference, in bases.
        vcf_filter: "PASS" keeps records whose FILTER is PASS or missing, any other text is an expression of
            `bcftools filter --include`; None keeps all.

    Returns:
        The variants of every contig, and the number of skipped records by reason.

    Raises:
        UserError: The file is damaged, bcftools does not understand the filter, or a record does not fit the contigs;
            the message names the record.
    """
    by_contig: dict[str, list[Variant]] = {name: [] for name in contigs}
    skipped: Counter[str] = Counter()
    kept = _kept_records(Path(path), vcf_filter)
    for number, record in enumerate(_read_records(Path(path), _fields), 1):
        if kept is not None and not kept[number - 1]:
            skipped["by data.vcf_filter"] += 1
            continue
        contig, position, reference, alternates, allele = record
        place, start = f"{path}, record {number} ({shorten(contig)}:{position})", position - 1
        _check_place(place, contig, start, start + len(reference), contigs)
        if not alternates:
            skipped["no ALT"] += 1
        elif allele is None:
            skipped["missing genotype"] += 1
        elif allele == 0:
            skipped["reference genotype"] += 1
        elif allele > len(alternates):
            raise UserError(f"{place}: the genotype names ALT number {allele}, the record has {len(alternates)}")
        elif reason := _not_bases(reference, alternate := alternates[allele - 1]):
            skipped[reason] += 1
        else:
            _check_letters(place, reference, alternate)
            by_contig[contig].append(Variant(contig, start, reference, alternate, number))
    return Variants(by_contig, dict(skipped))


def to_mutations(
    variants: Sequence[Variant], reference: UInt8[np.ndarray, "reference"], contig: str, path: str | PathLike[str]
) -> Mutations:
    """The variants of a contig, in any order, as minimal mutations sorted by start.

    Overlaps are resolved as `bcftools consensus` does: of records whose REFs share a base the first is taken, except
    that the anchor of an indel may be the last base of an earlier record whose ALT is not longer than its REF. Raises
    UserError if a REF is not what the contig holds; the message gives the 1-based position.
    """
    letters = reference.tobytes()
    mutations: list[Mutation] = []
    overlapping = 0
    last, longer = -1, False  # the last base of the REFs so far; True if the ALT there is longer than the REF
    for variant in sorted(variants, key=lambda variant: variant.start):
        stated = _codes(variant.reference)
        _check_reference(variant, stated, letters[variant.start : variant.start + len(stated)], contig, path)
        mutation = _minimal(variant.start, stated, _codes(variant.alternate))
        follows = mutation.kind in ("insertion", "deletion") and mutation.start > last and not longer
        if variant.start < last or (variant.start == last and not follows):
            overlapping += 1
            continue
        mutations.append(mutation)
        last, longer = variant.start + len(stated) - 1, len(variant.alternate) > len(stated)
    return Mutations(mutations, overlapping)


def to_mutation(variant: Variant, bases: bytes, path: str | PathLike[str]) -> Mutation:
    """A variant as a minimal mutation; raises UserError unless REF is the codes `bases` that the genome has there."""
    stated = _codes(variant.reference)
    _check_reference(variant, stated, bases, variant.contig, path)
    return _minimal(variant.start, stated, _codes(variant.alternate))


def read_info(path: str | PathLike[str], field: str) -> list[str | None]:
    """An INFO field of every record of a VCF in file order, several values joined by commas; None if absent."""

    def value(record: pysam.VariantRecord) -> str | None:
        names = list(record.header.info)
        if field not in names:
            raise UserError(f"{path}: its header has no INFO field {field!r}{did_you_mean(field, names)}")
        values = record.info.get(field)
        joined = ",".join(map(str, values)) if isinstance(values, tuple) else values
        return None if joined is None else str(joined)

    return list(_read_records(Path(path), value))


def _fields(record: pysam.VariantRecord) -> _Record:
    return _Record(record.chrom, record.pos, record.ref or "", record.alts or (), _genotype_allele(record))


def _kept_records(path: Path, vcf_filter: str | None) -> list[bool] | None:
    """True for each record of a VCF that a filter keeps; None without a filter."""
    if vcf_filter is None:
        return None
    if vcf_filter == "PASS":
        return list(_read_records(path, is_pass))
    return list(keeps(_read_records(path, lambda record: (record.header, str(record))), vcf_filter, path))


def _read_records(path: Path, read: Callable[[pysam.VariantRecord], T]) -> Iterator[T]:
    """The fields that `read` takes from each record of a VCF."""
    if not path.is_file():
        raise UserError(f"{path} is a folder; expected a VCF" if path.is_dir() else f"{path} does not exist")
    check_header(path)
    number = 0
    verbosity = pysam.set_verbosity(0)  # htslib would print its own messages besides those below
    try:
        with _openable(path) as file, _open(file) as records:
            number = 1
            for record in records:
                yield read(record)
                number += 1
    except UserError:
        raise
    except UnicodeDecodeError as error:
        byte = f"{error.object[error.start]:#04x}"
        raise UserError(f"{path}, record {number} holds the byte {byte}, which is no text in UTF-8") from error
    except ValueError as error:
        raise UserError(f"{path} is not a VCF; expected a header from ##fileformat=VCF to #CHROM") from error
    except OSError as error:
        wrong = f"record {number} is malformed or cut short" if number else f"it cannot be opened: {error}"
        raise UserError(f"{path}: {wrong}") from error
    finally:
        pysam.set_verbosity(verbosity)


def _open(file: str | BinaryIO) -> pysam.VariantFile:
    try:
        return pysam.VariantFile(file)
    except (TypeError, NotImplementedError) as error:  # pysam's way to say that htslib knows no such file
        raise ValueError(str(error)) from error


@contextmanager
def _openable(path: Path) -> Iterator[str | BinaryIO]:
    """The path or, for gzip that is not bgzip, a temporary unpacked copy: pysam cannot open plain gzip."""
    if packing(path) != "gzip":
        yield str(path)
        return
    with open_bytes(path) as packed, tempfile.TemporaryFile() as unpacked:
        shutil.copyfileobj(packed, unpacked)
        unpacked.seek(0)
        yield cast(BinaryIO, unpacked)


def _check_place(place: str, contig: str, start: int, stop: int, contigs: Mapping[str, int]) -> None:
    if contig not in contigs:
        raise unknown_contig(place, contig, contigs)
    if start < 0:
        raise UserError(f"{place}: position {start + 1} is before the contig's first base")
    if stop > contigs[contig]:
        raise UserError(f"{place}: REF ends at base {stop}, but {contig} in the FASTA has {contigs[contig]} bases")


def _genotype_allele(record: pysam.VariantRecord) -> int | None:
    """The number of the first ALT in the first sample's genotype; 0: it is the reference; None: it is missing."""
    if len(record.samples) == 0 or "GT" not in record.format:
        return 1
    alleles = record.samples[0]["GT"] or ()
    if None in alleles:  # missing, or the number of an ALT that the record lacks: pysam does not tell them apart
        text = str(record).rstrip("\n").split("\t", 10)[9].split(":")[list(record.format).index("GT")]
        alleles = [int(number) for number in re.findall(r"\d+", text)]
    return next((allele for allele in alleles if allele), 0) if alleles else None


def _not_bases(reference: str, alternate: str) -> str | None:
    """The reason why an ALT cannot replace REF, None if it can."""
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


def _check_reference(variant: Variant, stated: bytes, bases: bytes, contig: str, path: str | PathLike[str]) -> None:
    if stated in (bases, bases.translate(_CONCRETE)):
        return
    offset = next((i for i, code in enumerate(bases) if stated[i] not in (code, _CONCRETE[code])), len(bases))
    position = f"{contig}:{variant.start + offset + 1}"
    if offset == len(bases):
        raise UserError(f"{position} is beyond the contig's end in the FASTA; {path} says {variant.reference[offset]}")
    raise UserError(
        f"{position} holds {LETTERS[bases[offset]]} in the FASTA; {path} says {variant.reference[offset].upper()}"
    )


def _minimal(start: int, reference: bytes, alternate: bytes) -> Mutation:
    """The mutation without the bases that REF and ALT share; an insertion keeps its place behind its anchor."""
    shared = 0
    while min(len(reference), len(alternate)) - shared > 1 and reference[-1 - shared] == alternate[-1 - shared]:
        shared += 1
    reference, alternate = reference[: len(reference) - shared], alternate[: len(alternate) - shared]
    shared = 0
    while shared < min(len(reference), len(alternate)) and reference[shared] == alternate[shared]:
        shared += 1
    start, reference, alternate = start + shared, reference[shared:], alternate[shared:]
    if reference and alternate and reference[-1] == alternate[-1]:  # the insertion lies before the base of REF
        reference, alternate = reference[:-1], alternate[:-1]
    return Mutation(start, start + len(reference), alternate)
