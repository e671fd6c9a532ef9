"""Parts of FASTA files by the indexes beside them: .fai and, for bgzip, .gzi, as `samtools faidx` makes them."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias, final

import numpy as np
from jaxtyping import Int64, UInt8

from genoattn.errors import UserError, shorten
from genoattn.genome.alphabet import ILLEGAL, LETTERS, SOFT
from genoattn.genome.digests import DigestedFile, save_digests, signature_of
from genoattn.genome.fasta import BLANKS, CODES, ENCODING, name_of
from genoattn.genome.input_files import LONGEST_LINE, is_number, open_bytes, packing
from genoattn.genome.record_names import describe_renamed, distinct_names, record_number
from genoattn.genome.sequence_store import Genome, open_store
from genoattn.genome.store_folders import find_store

_HEADER = 1024
_MOST = 1 << 62


class _Entry(NamedTuple):
    """A line of a .fai: where a record lies in the text of a file."""

    name: str
    length: int
    offset: int
    """Byte of the first base."""
    bases: int
    """Bases of a line."""
    width: int
    """Bytes of a line with its end."""
    file: int


@final
class IndexedFasta:
    """The records of FASTA files, read through their indexes.

    Before a record is first read its header and its end are looked at, so that an index of another file is noticed.
    """

    def __init__(self, files: Sequence[DigestedFile], identity: str):
        """Read files that have indexes; raises UserError if an index is malformed."""
        self.files, self._identity = files, identity
        self._entries = [entry for number, file in enumerate(files) for entry in _read_index(file.path, number)]
        self._blocks = [_block_starts(file.path) for file in files]
        self._checked: set[int] = set()
        self._uracil: set[int] = set()
        if renamed := describe_renamed([entry.name for entry in self._entries], self.names):
            print(renamed)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the records, in the order of the files; `file:name` where two files have the same name."""
        own, files = [entry.name for entry in self._entries], [entry.file for entry in self._entries]
        return distinct_names(own, files, [file.path for file in self.files])

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The bases of each record."""
        return tuple(entry.length for entry in self._entries)

    @property
    def identity(self) -> str:
        """The name that a store of the same files would have."""
        return self._identity

    def index(self, name: str) -> int:
        """The number of a record, from 0, by its name; raises UserError if there is none of that name."""
        return record_number(name, self._numbers)

    def fetch(self, record: int, start: int, stop: int) -> UInt8[np.ndarray, "length"]:
        """Read bases [start, stop), 0-based and half-open, of a record.

        Args:
            record: The number of the record, from 0.
            start: The first base.
            stop: The base after the last.

        Returns:
            Codes 0..14, `[stop - start]`.

        Raises:
            IndexError: The record does not exist or does not hold these bases.
            UserError: The file is damaged, has changed, or does not fit its index.
        """
        if not 0 <= record < len(self._entries):
            raise IndexError(f"record {record} of a genome of {len(self._entries)}")
        entry = self._entries[record]
        if not 0 <= start <= stop <= entry.length:
            raise IndexError(f"bases {start}..{stop} of {entry.name}, which has {entry.length}")
        if start == stop:
            return np.zeros(0, np.uint8)
        path = self.files[entry.file].path
        if signature_of(path) != self.files[entry.file].signature:
            raise UserError(f"{path} changed while it was being read")
        if record not in self._checked:
            self._check(entry)
            self._checked.add(record)
        first = _byte_of(entry, start)
        letters = self._read(entry.file, first, _byte_of(entry, stop - 1) + 1 - first).translate(None, BLANKS.encode())
        if len(letters) != stop - start:
            raise self._misfit(entry)
        codes = letters.translate(CODES)
        if ILLEGAL in codes:
            at = codes.index(ILLEGAL)
            raise UserError(
                f"{path}, record {shorten(entry.name)}, base {start + at + 1:,}: {chr(letters[at])!r} is no base;"
                f" expected one of {LETTERS} in either case"
            )
        if entry.file not in self._uracil and (b"U" in letters or b"u" in letters):
            self._uracil.add(entry.file)
            print(f"{path}: its letters U are read as T")
        return np.frombuffer(codes, np.uint8) & ~SOFT

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def _read(self, file: int, first: int, size: int) -> bytes:
        """Some bytes of the text of a file."""
        starts = self._blocks[file]
        if starts is None:
            with open_bytes(self.files[file].path, first) as content:
                return content.read(size)
        block, before = starts[np.searchsorted(starts[:, 1], first, side="right") - 1].tolist()
        with open_bytes(self.files[file].path, block) as content:
            content.seek(first - before)
            return content.read(size)

    def _check(self, entry: _Entry) -> None:
        """Raises UserError unless a record begins and ends where the index says."""
        size, most = _HEADER, min(entry.offset, LONGEST_LINE)
        header = self._read(entry.file, max(0, entry.offset - size), min(size, entry.offset))
        while b"\n" not in header.rstrip(b"\r\n") and size < most:
            size *= 2
            header = self._read(entry.file, max(0, entry.offset - size), min(size, entry.offset))
        line = header.rstrip(b"\r\n").rpartition(b"\n")[2].decode(ENCODING)
        end = self._read(entry.file, _byte_of(entry, entry.length - 1), _HEADER)
        begins = line[:1] == ">" and name_of(line) == entry.name and header[-1:] in (b"\n", b"\r")
        after = end[1:].lstrip(BLANKS.encode())[:1]
        if not begins or not end[:1].strip() or after not in (b"", b">"):
            raise self._misfit(entry)

    def _misfit(self, entry: _Entry) -> UserError:
        path = self.files[entry.file].path
        return UserError(
            f"{index_of(path)} does not fit {path}: the record {shorten(entry.name)} is not where it says; make it"
            f" again with `samtools faidx {path}`, or remove it"
        )


Sequences: TypeAlias = Genome | IndexedFasta
"""The records of a genome of which any part can be read."""


def open_for_parts(paths: Sequence[Path]) -> Sequences:
    """Open FASTA files of which only parts are read.

    A store in the cache is the quickest. Without one, files that all have an index are read where the parts lie, and
    nothing is encoded or written. Else the store is built. An index that is older than its file is not used, which a
    line says.

    Raises:
        UserError: As of `open_genome`; an index does not fit its file.
    """
    place = find_store(paths)
    if place.folder.exists() or not all(_has_index(file.path) for file in place.files):
        return open_store(place)
    genome = IndexedFasta(place.files, place.folder.name)
    with suppress(OSError):
        place.root.mkdir(parents=True, exist_ok=True)
    save_digests(place.root, place.digests, place.files)
    return genome


def index_of(path: Path) -> Path:
    """The .fai of a FASTA."""
    return path.with_name(f"{path.name}.fai")


def _has_index(path: Path) -> bool:
    """True if a file has every index that it needs; prints a line on one that cannot be used."""
    index = index_of(path)
    if not index.is_file():
        return False
    needed, packed = [index], packing(path)
    if packed == "gzip":
        print(f"{index} is not used: {path} is gzip, and only bgzip can be read in parts")
        return False
    if packed:
        needed.append(path.with_name(f"{path.name}.gzi"))
    for file in needed:
        if not file.is_file():
            print(f"{index} is not used: {file} is missing; `samtools faidx {path}` makes both")
            return False
        if file.stat().st_mtime_ns < path.stat().st_mtime_ns:
            print(f"{file} is older than {path}, and is not used; `samtools faidx {path}` makes it again")
            return False
    return True


def _read_index(path: Path, file: int) -> list[_Entry]:
    """The records of a .fai."""
    index, entries = index_of(path), dict[str, _Entry]()
    try:
        lines = index.read_text("latin-1").split("\n")
    except OSError as error:
        raise UserError(f"{index} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        name, *numbers = line.split("\t")
        if not line:
            continue
        if len(numbers) != 4 or not all(map(is_number, numbers)) or not name or name in entries:
            raise UserError(
                f"{index}, line {number}: expected a name of its own and four numbers, separated by tabs, got"
                f" '{shorten(line)}'; make it again with `samtools faidx {path}`"
            )
        length, offset, bases, width = map(int, numbers)
        entry = _Entry(name, length, offset, bases, width, file)
        if entry.length and not (0 < entry.bases <= entry.width and _byte_of(entry, entry.length) < _MOST):
            raise UserError(f"{index}, line {number}: expected lines with bases, got '{shorten(line)}'")
        entries[name] = entry
    return list(entries.values())


def _block_starts(path: Path) -> Int64[np.ndarray, "blocks 2"] | None:
    """The beginning of each block in a bgzip file and in its text, by its .gzi; None of a plain file."""
    if not packing(path):
        return None
    index = path.with_name(f"{path.name}.gzi")
    content = index.read_bytes()
    numbers = np.frombuffer(content if len(content) % 16 == 8 else b"", "<u8").astype(np.int64)
    blocks = numbers[1:].reshape(-1, 2)
    if (
        len(numbers) != 2 * len(blocks) + 1
        or numbers[0] != len(blocks)
        or (np.diff(blocks, axis=0, prepend=0) < 0).any()
    ):
        raise UserError(f"{index} is no index of bgzip; make it again with `samtools faidx {path}`, or remove it")
    return np.concatenate([np.zeros((1, 2), np.int64), blocks])


def _byte_of(entry: _Entry, base: int) -> int:
    """The byte of a base in the text of its file."""
    line, column = divmod(base, entry.bases)
    return entry.offset + line * entry.width + column
