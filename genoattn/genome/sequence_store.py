"""Genomes at hand: FASTA encoded once into a memory-mapped file of bases in a cache, keyed by content."""

import difflib
import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

import numpy as np
from jaxtyping import Bool, UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import DECODE, SOFT, UNKNOWN
from genoattn.genome.fasta import Record, check_file, read_fasta

BUILDING = ".building-"
"""How the name of anything unfinished in a cache begins."""


_MEMO = "genome-digests.json"


_MEMO_ENTRIES = 1000


_FRESH_NS = 2_000_000_000


class Source(NamedTuple):
    """A FASTA file as it was met: whatever may change in it changes its stamp."""

    path: Path
    stamp: list[int]
    sha256: str


def stamp(path: Path) -> list[int]:
    """What changes when a file does: its size, the times of its content and of its entry, its inode."""
    about = os.stat(path)
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def meet(path: Path, memo: dict[str, dict]) -> Source:
    """A file and the sha256 of its bytes, which is not computed again while the memo knows its stamp."""
    check_file(path)
    now = stamp(path)
    known = memo.get(os.path.abspath(path))
    if known is not None and known["stamp"] == now:
        return Source(path, now, known["sha256"])
    try:
        with open(path, "rb") as file:
            return Source(path, now, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def read_memo(root: Path) -> dict[str, dict]:
    """What is remembered of files hashed before; a damaged memo is an empty one."""
    try:
        memo = json.loads((root / _MEMO).read_text("utf-8"))
        return {path: {"stamp": list(about["stamp"]), "sha256": str(about["sha256"])} for path, about in memo.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def remember(root: Path, memo: dict[str, dict], sources: Sequence[Source]) -> None:
    """Add what was hashed to the memo of a cache, for the next start."""
    # A file written a moment ago could be written again within the clock's tick, and its stamp would not tell.
    settled = [source for source in sources if time.time_ns() - max(source.stamp[1:3]) > _FRESH_NS]
    news = {os.path.abspath(source.path): {"stamp": source.stamp, "sha256": source.sha256} for source in settled}
    if all(memo.get(path) == about for path, about in news.items()):
        return
    entries = list((read_memo(root) | news).items())[-_MEMO_ENTRIES:]
    scratch = root / f"{BUILDING}memo-{os.getpid()}-{secrets.token_hex(4)}"
    # A cache that can only be read still serves; the next start then hashes again.
    with suppress(OSError):
        try:
            scratch.write_text(json.dumps(dict(entries)), "utf-8")
            os.replace(scratch, root / _MEMO)
        finally:
            scratch.unlink(missing_ok=True)


FORMAT = 1  # part of the key: a store of another layout is never opened, only built anew beside it


_BASES, _INDEX = "bases.u8", "index.json"


_CHUNK = 1 << 24


_ABANDONED_SECONDS = 24 * 3600


_LETTERS = DECODE.tobytes().ljust(256, b"N")


class GenomeRecord(NamedTuple):
    """A record of a store: where its bases stand (0-based), the sha256 of their upper-case letters, and two counts."""

    name: str
    length: int
    offset: int
    sha256: str
    masked: int  # bases in lower case
    unknown: int  # bases that are N


@final
@dataclass(frozen=True, eq=False)
class Genome:
    """The records of a genome, read from a memory-mapped file; a pickled genome is only the address of its store."""

    folder: Path
    soft_mask: str  # "keep": lower case is like any base; "mask": lower case is unknown
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
        """All bases of all records."""
        return len(self.stored)

    def index(self, name: str) -> int:
        """The number of the record of that name, from 0."""
        if name not in self._numbers:
            near = difflib.get_close_matches(name, self.names, n=1, cutoff=0)
            raise UserError(f"the genome holds no record {name!r}; the nearest name is {near[0]!r}")
        return self._numbers[name]

    def fetch(self, record: int, start: int, stop: int) -> UInt8[np.ndarray, "length"]:
        """Codes 0..14 of the bases start..stop of a record (0-based, half-open), in memory of their own."""
        window = self._window(record, start, stop)
        if self.records[record].masked == 0:
            return window.copy()
        if self.soft_mask == "keep":
            return window & ~SOFT
        # Soft codes stand above N, the highest plain one. A full array, because numpy is ten times slower on a scalar.
        return np.minimum(window, np.full_like(window, UNKNOWN))

    def soft(self, record: int, start: int, stop: int) -> Bool[np.ndarray, "length"]:
        """Which of the bases start..stop of a record (0-based, half-open) stand in lower case."""
        return self._window(record, start, stop) >= SOFT

    def _window(self, record: int, start: int, stop: int) -> UInt8[np.ndarray, "length"]:
        if not 0 <= record < len(self.records):
            raise IndexError(f"record {record} of a genome of {len(self.records)}")
        name, length, offset = self.records[record][:3]
        if not 0 <= start <= stop <= length:
            raise IndexError(f"bases {start}..{stop} of {name}, which has {length}")
        return self.stored[offset + start : offset + stop]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def __reduce__(self) -> tuple:
        return _reopen, (self.folder, self.soft_mask)


def _reopen(folder: Path, soft_mask: str) -> Genome:
    genome = _load(folder, soft_mask)
    if genome is None:
        raise UserError(f"the store {folder} is gone or damaged; start the run again to build it anew")
    return genome


def open_genome(paths: Sequence[Path], cache: Path | None = None, soft_mask: str = "keep") -> Genome:
    """The genome in these files, in this order: encoded into the cache the first time, only mapped after that.

    The cache is $GENOATTN_CACHE, or ~/.cache/genoattn. `soft_mask` says what lower case means: "keep" or "mask" it.
    """
    if soft_mask not in ("keep", "mask"):
        raise UserError(f"data.soft_mask must be 'use' or 'hide', got {soft_mask!r}")
    if not paths:
        raise UserError("data.fasta names no file; expected at least one")
    root = Path(os.path.expanduser(cache or os.environ.get("GENOATTN_CACHE") or "~/.cache/genoattn"))
    memo = read_memo(root)
    sources = [meet(Path(os.path.expanduser(path)), memo) for path in paths]
    key = hashlib.sha256(json.dumps([FORMAT, *(source.sha256 for source in sources)]).encode()).hexdigest()
    folder = root / f"genome-{key[:32]}"
    # Another process may be replacing a damaged store at this moment, hence more than one try.
    for _ in range(3):
        genome = _load(folder, soft_mask)
        if genome is not None:
            remember(root, memo, sources)
            return genome
        _build(sources, root, folder)
    raise UserError(f"the store {folder} cannot be read after it was built; remove it, or set $GENOATTN_CACHE")


def _load(folder: Path, soft_mask: str) -> Genome | None:
    """The store in a folder, or None where there is none or it is not whole."""
    try:
        index = json.loads((folder / _INDEX).read_text("utf-8"))
        records = tuple(GenomeRecord(*row) for row in index["records"])
        stored = np.memmap(folder / _BASES, np.uint8, "r").view(np.ndarray)
        whole = index["format"] == FORMAT and len(stored) == sum(record.length for record in records)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Genome(folder, soft_mask, records, stored) if whole else None


def _build(sources: Sequence[Source], root: Path, folder: Path) -> None:
    """Writes a store beside its place and renames it there; whatever happens on the way leaves nothing behind."""
    work = root / f"{BUILDING}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        work.mkdir()
        _write(sources, work)
        _install(work, folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"the cache folder {root} cannot be written ({reason}); set $GENOATTN_CACHE to one that can"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(sources: Sequence[Source], work: Path) -> None:
    owners: dict[str, Path] = {}
    records: list[GenomeRecord] = []
    with open(work / _BASES, "wb") as file:
        for source in sources:
            for record in read_fasta(source.path):
                if record.name in owners:
                    first = owners[record.name]
                    where = f"in {first} and in {source.path}" if first != source.path else f"within {first}"
                    raise UserError(f"the record name {record.name} stands twice, {where}; names must differ")
                owners[record.name] = source.path
                records.append(_append(record, file))
        _settle(file)
    for source in sources:
        if stamp(source.path) != source.stamp:
            raise UserError(f"{source.path} changed while it was being read")
    index = {
        "format": FORMAT,
        "sources": [{"path": os.path.abspath(source.path), "sha256": source.sha256} for source in sources],
        "fields": GenomeRecord._fields,
        "records": records,
    }
    with open(work / _INDEX, "wb") as file:
        file.write(json.dumps(index).encode())
        _settle(file)


def _append(record: Record, file: BinaryIO) -> GenomeRecord:
    offset, digest, masked, unknown = file.tell(), hashlib.sha256(), 0, 0
    for start in range(0, len(record.codes), _CHUNK):
        chunk = record.codes[start : start + _CHUNK]
        plain = chunk & ~SOFT
        masked += int(np.count_nonzero(chunk >= SOFT))
        unknown += int(np.count_nonzero(plain == UNKNOWN))
        digest.update(plain.tobytes().translate(_LETTERS))
        file.write(chunk.data)
    return GenomeRecord(record.name, len(record.codes), offset, digest.hexdigest(), masked, unknown)


def _settle(file: BinaryIO) -> None:
    """Down to the disk before the rename, or a power cut could leave a store of the right size full of zeros."""
    file.flush()
    os.fsync(file.fileno())


def _install(work: Path, folder: Path) -> None:
    """Renames the finished store into place, unless another process put a whole one there meanwhile."""
    for attempt in range(10):
        try:
            os.rename(work, folder)
            return
        except OSError as error:
            if _load(folder, "keep") is not None:
                return
            if attempt == 9 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        damaged = work.with_name(f"{work.name}-damaged-{attempt}")
        with suppress(FileNotFoundError):
            os.rename(folder, damaged)
        shutil.rmtree(damaged, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Removes what builds that were killed long ago could not."""
    for folder in root.glob(f"{BUILDING}*"):
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
