"""Genomes on disk: FASTA files encoded once into a memory-mapped file of bases, in a cache with the content as key."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

import numpy as np
from jaxtyping import UInt8

from genoattn.errors import UserError, did_you_mean
from genoattn.files import is_abandoned, remove_unfinished, unfinished_name
from genoattn.genome.alphabet import DECODE, SOFT, UNKNOWN
from genoattn.genome.digests import DigestedFile, digest_of, fasta_digest, read_digests, save_digests, signature_of
from genoattn.genome.fasta import Record, read_fasta
from genoattn.genome.input_files import packing
from genoattn.genome.progress import progress

FORMAT = 1  # part of the key: a store with another layout is never opened, a new one is built beside it

BUILDING = ".building-"
"""The beginning of the name of an unfinished store."""

PACKED = 3.5
"""Bases for each byte of a packed FASTA, about, for the time that is left."""

_BASES, _INDEX = "bases.u8", "index.json"
_CHUNK = 1 << 24
_LETTERS = DECODE.tobytes().ljust(256, b"N")


class GenomeRecord(NamedTuple):
    """A record of a store."""

    name: str
    length: int
    offset: int  # of its first base in the file of bases, 0-based
    sha256: str  # of its upper-case letters
    masked: int  # bases in lower case
    unknown: int  # bases that are N


@final
@dataclass(frozen=True, eq=False)
class Genome:
    """The records of a genome, read from a memory-mapped file; its pickle holds only the path of that file."""

    folder: Path
    soft_mask: str
    """"keep": a lower-case base is like any other; "mask": it is read as N."""
    records: tuple[GenomeRecord, ...] = field(repr=False)
    stored: UInt8[np.ndarray, "total"] = field(repr=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the records, in the order of the files."""
        return tuple(record.name for record in self.records)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The bases of each record."""
        return tuple(record.length for record in self.records)

    @property
    def total(self) -> int:
        """The bases of all records."""
        return len(self.stored)

    def index(self, name: str) -> int:
        """The number of a record, from 0, by its name; raises UserError if there is none of that name."""
        if name not in self._numbers:
            raise UserError(f"the genome holds no record {name!r}{did_you_mean(name, self.names)}")
        return self._numbers[name]

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
        name, length, offset, _, masked, _ = self.records[record]
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
        return _reopen, (self.folder, self.soft_mask)


def _reopen(folder: Path, soft_mask: str) -> Genome:
    opened = _load(folder, soft_mask)
    if opened is None:
        raise UserError(f"the store {folder} is missing or damaged; start the run again to build it")
    return opened.genome


def open_genome(paths: Sequence[Path], cache: Path | None = None, soft_mask: str = "keep") -> Genome:
    """Open FASTA files as one genome; the first call encodes them into the cache, later calls only map it.

    Args:
        paths: FASTA files, plain, gzip or bgzip; their records are numbered in this order.
        cache: The folder of the cache; None: $GENOATTN_CACHE, or ~/.cache/genoattn.
        soft_mask: "keep" reads lower-case bases like any other, "mask" reads them as N.

    Returns:
        The genome.

    Raises:
        UserError: A file is missing, damaged or not FASTA, or the cache cannot be written.
    """
    if soft_mask not in ("keep", "mask"):
        raise UserError(f"data.soft_mask must be 'keep' or 'mask', got {soft_mask!r}")
    if not paths:
        raise UserError("data.fasta names no file; expected at least one")
    root = Path(os.path.expanduser(cache or os.environ.get("GENOATTN_CACHE") or "~/.cache/genoattn"))
    _remove_abandoned(root)
    digests = read_digests(root)
    files = [fasta_digest(Path(os.path.expanduser(path)), digests) for path in paths]
    key = hashlib.sha256(json.dumps([FORMAT, *(file.sha256 for file in files)]).encode()).hexdigest()
    folder = root / f"genome-{key[:32]}"
    # Another process may be replacing a damaged store at this moment, hence more than one attempt.
    for _ in range(3):
        was_there = folder.exists()
        opened = _load(folder, soft_mask)
        if opened is not None and (bases := _verified(opened, digests)):
            save_digests(root, digests, [*files, bases])
            return opened.genome
        if was_there:
            print(f"the store {folder} is damaged or of an earlier version, and is built again")
        _build(files, root, folder)
    raise UserError(f"the store {folder} cannot be read after it was built; remove it, or set $GENOATTN_CACHE")


class _Opened(NamedTuple):
    genome: Genome
    sha256: str
    """Of the file of bases, as it was written."""


def _load(folder: Path, soft_mask: str) -> _Opened | None:
    """The store in a folder, None if there is none or it is not complete; its bases are not read."""
    try:
        index = json.loads((folder / _INDEX).read_text("utf-8"))
        content = index["records"], index["bases"]
        records = tuple(GenomeRecord(*row) for row in index["records"])
        stored = np.memmap(folder / _BASES, np.uint8, "r").view(np.ndarray)
        is_whole = index["format"] == FORMAT and index["checksum"] == _checksum(*content)
        complete = is_whole and len(stored) == sum(record.length for record in records)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _Opened(Genome(folder, soft_mask, records, stored), index["bases"]) if complete else None


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
    work = _work_folder(root)
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


def _work_folder(root: Path) -> Path:
    """A new name that holds this machine and process, so that a later start sees whether they still run."""
    return root / f"{BUILDING}{unfinished_name()}-{secrets.token_hex(4)}"


def _write(files: Sequence[DigestedFile], work: Path) -> None:
    paths: dict[str, Path] = {}
    records: list[GenomeRecord] = []
    digest = hashlib.sha256()
    expected = sum(file.path.stat().st_size * (PACKED if packing(file.path) else 1) for file in files)
    with open(work / _BASES, "wb") as bases, progress("the genome is read", expected) as advance:
        for file in files:
            for record in read_fasta(file.path):
                if record.name in paths:
                    first = paths[record.name]
                    where = f"in {first} and in {file.path}" if first != file.path else f"within {first}"
                    raise UserError(f"the record name {record.name} stands twice, {where}; names must differ")
                paths[record.name] = file.path
                records.append(_append(record, bases, digest))
                advance(len(record.codes))
        _flush_to_disk(bases)
    for file in files:
        if signature_of(file.path) != file.signature:
            raise UserError(f"{file.path} changed while it was being read")
    sources = [{"path": os.path.abspath(file.path), "sha256": file.sha256} for file in files]
    index = {"format": FORMAT, "sources": sources, "fields": GenomeRecord._fields, "records": records}
    sha256 = digest.hexdigest()
    index |= {"bases": sha256, "checksum": _checksum(records, sha256)}
    with open(work / _INDEX, "wb") as file:
        file.write(json.dumps(index).encode())
        _flush_to_disk(file)


def _append(record: Record, bases: BinaryIO, whole: "hashlib._Hash") -> GenomeRecord:
    offset, digest, masked, unknown = bases.tell(), hashlib.sha256(), 0, 0
    for start in range(0, len(record.codes), _CHUNK):
        chunk = record.codes[start : start + _CHUNK]
        plain = chunk & ~SOFT
        masked += int(np.count_nonzero(chunk >= SOFT))
        unknown += int(np.count_nonzero(plain == UNKNOWN))
        digest.update(plain.tobytes().translate(_LETTERS))
        whole.update(chunk.data)
        bases.write(chunk.data)
    return GenomeRecord(record.name, len(record.codes), offset, digest.hexdigest(), masked, unknown)


def _flush_to_disk(file: BinaryIO) -> None:
    """Without this a power cut after the rename could leave a store of the right size full of zeros."""
    file.flush()
    os.fsync(file.fileno())


def _install(work: Path, folder: Path) -> None:
    """Rename the finished store into place, unless another process has put a complete one there."""
    for attempt in range(10):
        try:
            os.rename(work, folder)
            return
        except OSError as error:
            opened = _load(folder, "keep")
            if opened is not None and _verified(opened, {}):
                return
            if attempt == 9 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        damaged = _work_folder(work.parent)
        with suppress(FileNotFoundError):
            os.rename(folder, damaged)
        shutil.rmtree(damaged, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    """Remove what killed programs left in the cache: unfinished stores and files."""
    remove_unfinished(root)
    for folder in root.glob(f"{BUILDING}*"):
        if is_abandoned(folder, folder.name.removeprefix(BUILDING).rpartition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)
