"""FASTA files, plain, gzip or bgzip: the name of each record and the codes of its bases, lower case kept as a bit."""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

import numpy as np
from Bio.SeqIO.FastaIO import SimpleFastaParser
from jaxtyping import UInt8

from genoattn.errors import UserError, nearest
from genoattn.genome.alphabet import ENCODE, ILLEGAL, LETTERS, SOFT

_GZIP = b"\x1f\x8b"
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block with which every complete bgzip file ends."""

_HEAD = 4096
_OTHER_FORMATS = {
    "@HD\t": "SAM",
    "@SQ\t": "SAM",
    "@": "FASTQ",
    "##fileformat=VCF": "VCF",
    "LOCUS ": "GenBank",
    "PK\3\4": "a zip archive",
    "<": "HTML or XML",
    "\xef\xbb\xbf": "a text with a byte-order mark",
    "\x1f\x8b": "a gzip file that was packed twice",
}
"""Formats that are given in place of FASTA by mistake, by their first characters."""


class Record(NamedTuple):
    """A FASTA record: the first word of its header, and a code per base, with SOFT set for lower-case letters."""

    name: str
    codes: UInt8[np.ndarray, "length"]


def read_fasta(path: Path) -> Iterator[Record]:
    """The records of a file in order, one in memory at a time; raises UserError if it is damaged or not FASTA.

    Lines may end in LF, CRLF or blanks, and may be empty. A blank inside a line is an error. U is read as T. Mistakes
    at the beginning of the file are raised by this call, others when the iterator reaches them.
    """
    check_file(path)
    _check_end(path)
    _check_beginning(path)
    return _records(path)


def check_file(path: Path) -> None:
    """Raises UserError unless the path is a regular file that is not empty."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; expected a FASTA file")
    if not os.path.exists(path):
        folder = path.parent
        if not os.path.isdir(folder):
            raise UserError(f"{path} does not exist: there is no folder {folder}")
        names: list[str] = []
        with suppress(OSError):  # a folder that may not be listed
            names = [file.name for file in folder.iterdir() if file.is_file()]
        near = nearest(path.name, names)
        raise UserError(f"{path} does not exist" + (f"; did you mean {folder / near}?" if near else ""))
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UserError(f"{path} is not a regular file; a FASTA is read more than once, which a pipe does not allow")
    if os.path.getsize(path) == 0:
        raise UserError(f"{path} is empty; expected FASTA")


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """The text of a file, unpacked if it begins as gzip does; damage becomes a UserError, wherever it is met."""
    try:
        with open(path, "rb") as raw:
            is_gzip = raw.read(2) == _GZIP
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            # latin-1, so that binary data is an illegal letter with a position and not a decoding error.
            with io.TextIOWrapper(stream, encoding="latin-1") as text:
                yield text
    except EOFError:
        raise UserError(f"{path} is a truncated gzip file: it ends in the middle; fetch or copy it again") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); fetch or copy it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _check_end(path: Path) -> None:
    """Raises UserError for a bgzip file that was cut between two blocks: it unpacks, but lacks the last block."""
    try:
        with open(path, "rb") as raw:
            head = raw.read(16)
            raw.seek(max(0, os.fstat(raw.fileno()).st_size - len(_BGZIP_END)))
            tail = raw.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    is_bgzip = head[:2] == _GZIP and head[12:16] == b"BC\2\0"
    if is_bgzip and tail != _BGZIP_END:
        raise UserError(f"{path} is a truncated gzip file: bgzip's last block is missing; fetch or copy it again")


def _check_beginning(path: Path) -> None:
    with _text(path) as text:
        before = ""
        while head := text.read(_HEAD):
            content = head.lstrip()
            if content:
                before += head[: len(head) - len(content)]
                break
            before = head
        else:
            raise UserError(f"{path} is empty: it holds nothing but blank lines; expected FASTA")
    if content[0] != ">" or before[-1:] not in ("", "\n"):
        raise UserError(
            f"{path} is not FASTA: expected '>' as the first character, found {_describe(head.lstrip(chr(10)))}"
        )


def _describe(head: str) -> str:
    """The format of a file that is not FASTA or, if it is not known, its first characters."""
    name = next((name for sign, name in _OTHER_FORMATS.items() if head.startswith(sign)), None)
    return repr(head[:20].rstrip()) + (f", as in {name}" if name else "")


def _soft_encoding() -> bytes:
    table = ENCODE.copy()
    for letter in range(ord("a"), ord("z") + 1):
        if table[letter] != ILLEGAL:
            table[letter] |= SOFT
    return table.tobytes()


# bytes.translate makes one pass; indexing an array by bytes would first widen every base to eight bytes.
_CODES = _soft_encoding()
_ILLEGAL = bytes([ILLEGAL])


def _records(path: Path) -> Iterator[Record]:
    bases = 0
    with _text(path) as text:
        for number, (title, letters) in enumerate(SimpleFastaParser(_mark_blanks(text))):
            codes = letters.encode("latin-1").translate(_CODES)
            words = title.split()
            if not words or _ILLEGAL in codes:
                _raise_mistake(path, number)
            bases += len(codes)
            yield Record(words[0], np.frombuffer(codes, np.uint8))
    if bases == 0:
        raise UserError(f"{path} holds headers but no bases")


def _mark_blanks(lines: Iterable[str]) -> Iterator[str]:
    """Puts a NUL in place of blanks within a line: the parser drops blanks silently but keeps an illegal letter."""
    for line in lines:
        if " " in line and line[0] != ">":
            line = line.rstrip().replace(" ", "\0") + "\n"
        yield line


def _raise_mistake(path: Path, record: int) -> NoReturn:
    """Reads the file again, line by line, to say where the record with that number (from 0) is wrong."""
    number, name = -1, ""
    with _text(path) as text:
        for line_number, line in enumerate(text, 1):
            if line[0] == ">":
                number += 1
                name = "".join(line[1:].split()[:1])
                if number == record and not name:
                    raise UserError(f"{path}, line {line_number}: a header without a name; expected '>' and a name")
            elif number == record:
                letters = line.rstrip()
                column = letters.encode("latin-1").translate(_CODES).find(_ILLEGAL)
                if column >= 0:
                    raise UserError(
                        f"{path}, record {name}, line {line_number}, column {column + 1}: {letters[column]!r} is no"
                        f" base; expected one of {LETTERS} in either case"
                    )
    raise UserError(f"{path} changed while it was being read")
