"""FASTA in, plain, gzip or bgzip: each record's name and the codes of its bases, lower case kept as a bit."""

import difflib
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

import numpy as np
from Bio.SeqIO.FastaIO import SimpleFastaParser
from jaxtyping import UInt8

from genoattn.errors import UserError
from genoattn.genome.alphabet import ENCODE, ILLEGAL, LETTERS, SOFT

_GZIP = b"\x1f\x8b"


# bgzip ends every whole file with this empty block.
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


_HEAD = 4096


_SIGNS = {
    "@HD\t": "SAM",
    "@SQ\t": "SAM",
    "@": "FASTQ",
    "##fileformat=VCF": "VCF",
    "##gff": "GFF",
    "LOCUS ": "GenBank",
    "ID   ": "EMBL",
    "BAM\1": "BAM",
    "CRAM": "CRAM",
    "\x43\x27\x41\x1a": "2bit",
    "PK\3\4": "a zip archive",
    "BZh": "bzip2",
    "\xfd7zXZ": "xz",
    "\x28\xb5\x2f\xfd": "zstd",
    "\x1f\x8b": "gzip packed twice",
    "%PDF": "PDF",
    "<": "HTML or XML",
    "\xef\xbb\xbf": "text with a byte-order mark, which has to go",
    "\xff\xfe": "UTF-16 text",
    "\xfe\xff": "UTF-16 text",
}


class Record(NamedTuple):
    """One FASTA record: the first word of its header, and a code per base with SOFT set on lower-case letters."""

    name: str
    codes: UInt8[np.ndarray, "length"]


def read_fasta(path: Path) -> Iterator[Record]:
    """The records of a file in order, one in memory at a time; whatever is wrong with the file is a UserError.

    Lines may end in LF, CRLF or blanks, and may be empty; a blank inside a line is an illegal letter. U is read as T.
    What is wrong at the beginning of the file is raised by the call, the rest where the records are drawn.
    """
    check_file(path)
    _check_end(path)
    _check_beginning(path)
    return _records(path)


def check_file(path: Path) -> None:
    """Raises UserError unless there is a regular file, readable more than once, at the path."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; expected a FASTA file")
    if not os.path.exists(path):
        folder = path.parent
        if not os.path.isdir(folder):
            raise UserError(f"{path} does not exist: there is no folder {folder}")
        near = difflib.get_close_matches(path.name, [entry.name for entry in _files(folder)], n=1)
        raise UserError(f"{path} does not exist" + (f"; did you mean {folder / near[0]}?" if near else ""))
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UserError(f"{path} is not a regular file; a FASTA is read more than once, which a pipe does not allow")
    if os.path.getsize(path) == 0:
        raise UserError(f"{path} is empty; expected FASTA")


def _files(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_file()]
    except OSError:
        return []


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """The text of a file, unpacked if it is gzip by its first bytes; damage is a UserError wherever it shows."""
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            # latin-1, so that binary rubbish is an illegal letter with a place and not a decoding error.
            with io.TextIOWrapper(stream, encoding="latin-1") as text:
                yield text
    except EOFError:
        raise UserError(f"{path} is a truncated gzip file: it ends in the middle; fetch or copy it again") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); fetch or copy it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _check_end(path: Path) -> None:
    """A bgzip file cut between two blocks unpacks without complaint; its missing last block gives it away."""
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
            f"{path} is not FASTA: expected '>' as the first character, found {_likeness(head.lstrip(chr(10)))}"
        )


def _likeness(head: str) -> str:
    """What a file that is not FASTA looks like, in a few words."""
    for sign, kind in _SIGNS.items():
        if head.startswith(sign):
            return f"what looks like {kind}"
    if head[257:262] == "ustar":
        return "what looks like a tar archive"
    if "\0" in head:
        return "binary data"
    return f"text that begins with {head[:20]!r}"


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
                _complain(path, number)
            bases += len(codes)
            yield Record(words[0], np.frombuffer(codes, np.uint8))
    if bases == 0:
        raise UserError(f"{path} holds headers but no bases")


def _mark_blanks(lines: Iterable[str]) -> Iterator[str]:
    """The parser drops blanks within a line without a word; a NUL in their place is kept, and so found."""
    for line in lines:
        if " " in line and line[0] != ">":
            line = line.rstrip().replace(" ", "\0") + "\n"
        yield line


def _complain(path: Path, wanted: int) -> NoReturn:
    """Reads the file again, slowly, to say where the record of that number (from 0) goes wrong."""
    number, name = -1, ""
    with _text(path) as text:
        for line_number, line in enumerate(text, 1):
            if line[0] == ">":
                number += 1
                name = "".join(line[1:].split()[:1])
                if number == wanted and not name:
                    raise UserError(f"{path}, line {line_number}: a header without a name; expected '>' and a name")
            elif number == wanted:
                letters = line.rstrip()
                column = letters.encode("latin-1").translate(_CODES).find(_ILLEGAL)
                if column >= 0:
                    raise UserError(
                        f"{path}, record {name}, line {line_number}, column {column + 1}: {letters[column]!r} is no"
                        f" base; expected one of {LETTERS} in either case"
                    )
    raise UserError(f"{path} changed while it was being read")
