"""Genomes on disk: FASTA files encoded once into a memory-mapped file of bases, in a cache with the content as key."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

import numpy as np
from jaxtyping import UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import DECODE, LETTERS, SOFT, UNKNOWN
from genoattn.genome.digests import DigestedFile, digest_of, save_digests, signature_of
from genoattn.genome.fasta import Record, read_fasta
from genoattn.genome.input_files import packing
from genoattn.genome.progress import progress
from genoattn.genome.record_names import describe_renamed, distinct_names, record_number
from genoattn.genome.store_folders import FORMAT, StorePlace, find_store, flush_to_disk, work_folder

PACKED = 3.5
"""Bases for each byte of a packed FASTA, about, for the time that is left."""

_BASES, _INDEX = "bases.u8", "index.json"
_CHUNK = 1 << 24
_LETTERS = DECODE.tobytes().ljust(256, b"N")
_T = LETTERS.index("T")


class GenomeRecord(NamedTuple):
    """A record of a store."""

    name: str  # in the file
    length: int
    offset: int  # of its first base in the file of bases, 0-based
    sha256: str  # of its upper-case letters
    masked: int  # bases in lower case
    unknown: int  # bases that are N
    file: int  # number of its file, from 0


@final
@dataclass(frozen=True, eq=False)
class Genome:
    """The records of a genome, read from a memory-mapped file; its pickle holds only paths."""

    folder: Path
    files: tuple[Path, ...]
    soft_mask: str
    """"keep": a lower-case base is like any other; "mask": it is read as N."""
    records: tuple[GenomeRecord, ...] = field(repr=False)
    stored: UInt8[np.ndarray, "total"] = field(repr=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the records, in the order of the files; `file:name` where two files have the same name."""
        own = [record.name for record in self.records]
        return distinct_names(own, [record.file for record in self.records], self.files)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The bases of each record."""
        return tuple(record.length for record in self.records)

    @property
    def total(self) -> int:
        """The bases of all records."""
        return len(self.stored)

    @property
    def identity(self) -> str:
        """The name of its folder, which is made of the content of the files."""
        return self.folder.name

    def index(self, name: str) -> int:
        """The number of a record, from 0, by its name; raises UserError if there is none of that name."""
        return record_number(name, self._numbers)

    def fetch(self, record: int, start: int, stop: int) -> UInt8[np.ndarray, "length"]:
        """Copy bases [start, stop), 0-based and half-open, of a record.

        Args:
            record: The number of the record, from 0.
            start: The first base.
            stop: The base after the last.

        Returns:
            Codes 0..14, `[stop - start]`.

        Raises:
            IndexError: The record does not exist or does not hold these bases.
        """
        if not 0 <= record < len(self.records):
            raise IndexError(f"record {record} of a genome of {len(self.records)}")
        name, length, offset, _, masked, *_ = self.records[record]
        if not 0 <= start <= stop <= length:
            raise IndexError(f"bases {start}..{stop} of {name}, which has {length}")
        window = self.stored[offset + start : offset + stop]
        if masked == 0:
            return window.copy()
        if self.soft_mask == "keep":
            return window & ~SOFT
        # Codes with the bit SOFT are above N, the highest code without. A full array: a scalar is ten times slower.
        return np.minimum(window, np.full_like(window, UNKNOWN))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def __reduce__(self) -> tuple:
        return _reopen, (self.folder, self.files, self.soft_mask)


def _reopen(folder: Path, files: tuple[Path, ...], soft_mask: str) -> Genome:
    opened = _load(folder, files, soft_mask)
    if opened is None:
        raise UserError(f"the store {folder} is missing or damaged; start the run again to build it")
    return opened.genome


def open_genome(paths: Sequence[Path], cache: Path | None = None, soft_mask: str = "keep") -> Genome:
    """Open FASTA files as one genome; the first call encodes them into the cache, later calls only map it.

    Args:
        paths: FASTA files, plain, gzip or bgzip; their records are numbered in this order. A name that stands in two
            files becomes `file:name`, which a line says; so do letters U, which are read as T.
        cache: The folder of the cache; None: $GENOATTN_CACHE, or ~/.cache/genoattn.
        soft_mask: "keep" reads lower-case bases like any other, "mask" reads them as N.

    Returns:
        The genome.

    Raises:
        UserError: A file is missing, damaged or not FASTA, or the cache cannot be written.
    """
    if soft_mask not in ("keep", "mask"):
        raise UserError(f"data.soft_mask must be 'keep' or 'mask', got {soft_mask!r}")
    return open_store(find_store(paths, cache), soft_mask)


def open_store(place: StorePlace, soft_mask: str = "keep") -> Genome:
    """Open the store of some FASTA files, as `open_genome` does; it is built if it is missing or damaged."""
    root, folder, files, digests = place
    # Another process may be replacing a damaged store at this moment, hence more than one attempt.
    for _ in range(3):
        was_there = folder.exists()
        opened = _load(folder, tuple(file.path for file in files), soft_mask)
        if opened is not None and (bases := _verified(opened, digests)):
            save_digests(root, digests, [*files, bases])
            _describe(opened)
            return opened.genome
        if was_there:
            print(f"the store {folder} is damaged or of an earlier version, and is built again")
        _build(files, root, folder)
    raise UserError(f"the store {folder} cannot be read after it was built; remove it, or set $GENOATTN_CACHE")


class _Opened(NamedTuple):
    genome: Genome
    sha256: str
    """Of the file of bases, as it was written."""
    letters: list[tuple[int, int]]
    """Letters U and T of each file."""


def _load(folder: Path, files: tuple[Path, ...], soft_mask: str) -> _Opened | None:
    """The store in a folder, None if there is none or it is not complete; its bases are not read."""
    try:
        index = json.loads((folder / _INDEX).read_text("utf-8"))
        content = index["records"], index["bases"]
        records = tuple(GenomeRecord(*row) for row in index["records"])
        letters = [(int(source["uracil"]), int(source["thymine"])) for source in index["sources"]]
        stored = np.memmap(folder / _BASES, np.uint8, "r").view(np.ndarray)
        is_whole = index["format"] == FORMAT and index["checksum"] == _checksum(*content)
        complete = is_whole and len(stored) == sum(record.length for record in records)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _Opened(Genome(folder, files, soft_mask, records, stored), index["bases"], letters) if complete else None


def _describe(opened: _Opened) -> None:
    """Print which records have another name than in their file, and how many U are read as T."""
    genome = opened.genome
    if renamed := describe_renamed([record.name for record in genome.records], genome.names):
        print(renamed)
    for path, (uracil, thymine) in zip(genome.files, opened.letters, strict=True):
        if uracil:
            mixed = f"; it mixes RNA and DNA: there are {thymine:,} T besides" if thymine else ""
            print(f"{path}: {uracil:,} U are read as T{mixed}")


def _verified(opened: _Opened, digests: dict[str, dict]) -> DigestedFile | None:
    """The file of bases of a store with its sha256, read once for each signature; None if it is not as written."""
    try:
        bases = digest_of(opened.genome.folder / _BASES, digests)
    except OSError:  # another process replaces the store at this moment
        return None
    return bases if bases.sha256 == opened.sha256 else None


def _checksum(records: Sequence[Sequence[object]], bases: str) -> str:
    """The sha256 of the content of an index: its records, and the sha256 of the bases."""
    return hashlib.sha256(json.dumps([records, bases]).encode()).hexdigest()


def _build(files: Sequence[DigestedFile], root: Path, folder: Path) -> None:
    """Write a store beside its place and rename it; an interrupted build leaves nothing behind."""
    work = work_folder(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        _write(files, work)
        _install(work, folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"the cache folder {root} cannot be written ({reason}); set $GENOATTN_CACHE to one that can"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(files: Sequence[DigestedFile], work: Path) -> None:
    records: list[GenomeRecord] = []
    letters: list[dict[str, int]] = []
    digest = hashlib.sha256()
    expected = sum(file.path.stat().st_size * (PACKED if packing(file.path) else 1) for file in files)
    with open(work / _BASES, "wb") as bases, progress("the genome is read", expected) as advance:
        for number, file in enumerate(files):
            names: set[str] = set()
            letters.append({"uracil": 0, "thymine": 0})
            for record in read_fasta(file.path):
                if record.name in names:
                    raise UserError(f"the record name {record.name} stands twice in {file.path}; names must differ")
                names.add(record.name)
                records.append(_append(record, number, bases, digest))
                advance(len(record.codes))
                letters[-1]["uracil"] += record.uracil
                letters[-1]["thymine"] += int(np.count_nonzero(record.codes & ~SOFT == _T)) - record.uracil
        flush_to_disk(bases)
    for file in files:
        if signature_of(file.path) != file.signature:
            raise UserError(f"{file.path} changed while it was being read")
    sources = [
        {"path": os.path.abspath(file.path), "sha256": file.sha256, **counts}
        for file, counts in zip(files, letters, strict=True)
    ]
    index = {"format": FORMAT, "sources": sources, "fields": GenomeRecord._fields, "records": records}
    sha256 = digest.hexdigest()
    index |= {"bases": sha256, "checksum": _checksum(records, sha256)}
    with open(work / _INDEX, "wb") as file:
        file.write(json.dumps(index).encode())
        flush_to_disk(file)


def _append(record: Record, file: int, bases: BinaryIO, whole: "hashlib._Hash") -> GenomeRecord:
    offset, digest, masked, unknown = bases.tell(), hashlib.sha256(), 0, 0
    for start in range(0, len(record.codes), _CHUNK):
        chunk = record.codes[start : start + _CHUNK]
        plain = chunk & ~SOFT
        masked += int(np.count_nonzero(chunk >= SOFT))
        unknown += int(np.count_nonzero(plain == UNKNOWN))
        digest.update(plain.tobytes().translate(_LETTERS))
        whole.update(chunk.data)
        bases.write(chunk.data)
    return GenomeRecord(record.name, len(record.codes), offset, digest.hexdigest(), masked, unknown, file)


def _install(work: Path, folder: Path) -> None:
    """Rename the finished store into place, unless another process has put a complete one there."""
    for attempt in range(10):
        try:
            os.rename(work, folder)
            return
        except OSError as error:
            opened = _load(folder, (), "keep")
            if opened is not None and _verified(opened, {}):
                return
            if attempt == 9 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        damaged = work_folder(work.parent)
        with suppress(FileNotFoundError):
            os.rename(folder, damaged)
        shutil.rmtree(damaged, ignore_errors=True)
