"""FASTA files, plain, gzip or bgzip: the name of each record and the codes of its bases, lower case kept as a bit."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from jaxtyping import UInt8

from genoattn.errors import UserError, nearest, shorten
from genoattn.genome.alphabet import ENCODE, ILLEGAL, LETTERS, SOFT
from genoattn.genome.input_files import LONGEST_LINE, open_text

BLANKS = " \t\r\n"
"""The characters that may end a line; other control characters and the no-break space are illegal letters."""

ENCODING = "latin-1"
"""It reads every byte, so that binary data is an illegal letter with a position and not a decoding error."""

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
    uracil: int
    """Letters U, which are read as T."""


def read_fasta(path: Path) -> Iterator[Record]:
    """The records of a file in order, one in memory at a time; raises UserError if it is damaged or not FASTA.

    Lines may end in LF, CRLF or blanks, and may be empty. A blank inside a line is an error. U is read as T. Mistakes
    at the beginning of the file are raised by this call, others when the iterator reaches them.
    """
    check_file(path)
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


def _check_beginning(path: Path) -> None:
    with open_text(path, ENCODING) as text:
        before = ""
        while head := text.read(_HEAD):
            content = head.lstrip(BLANKS)
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
CODES = _soft_encoding()
"""For bytes.translate: the code of each letter, with SOFT for lower case."""
_ILLEGAL = bytes([ILLEGAL])


def _records(path: Path) -> Iterator[Record]:
    bases = 0
    with open_text(path, ENCODING) as text:
        for number, (header, letters) in enumerate(_entries(text)):
            name, codes = name_of(header), letters.encode(ENCODING).translate(CODES)
            if len(header) > LONGEST_LINE or not _is_legal(name) or _ILLEGAL in codes:
                _raise_mistake(path, number)
            bases += len(codes)
            yield Record(name, np.frombuffer(codes, np.uint8), letters.count("U") + letters.count("u"))
    if bases == 0:
        raise UserError(f"{path} holds headers but no bases")


def _entries(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The header and the letters of each record; blanks inside a line stay, as illegal letters."""
    header, letters = "", []
    for line in lines:
        if line[0] != ">":
            letters.append(line.rstrip(BLANKS))
            continue
        if header:
            yield header, "".join(letters)
        header, letters = line, []
    yield header, "".join(letters)


def name_of(header: str) -> str:
    """The first word of a header, without its '>'."""
    return re.split(r"[ \t]", header[1:].strip(BLANKS), maxsplit=1)[0]


def _is_legal(name: str) -> bool:
    """True for a name of printable ASCII characters, as SAM has them."""
    return bool(name) and name.isascii() and name.isprintable()


def _raise_mistake(path: Path, record: int) -> NoReturn:
    """Reads the file again, line by line, to say where the record with that number (from 0) is wrong."""
    number, name = -1, ""
    with open_text(path, ENCODING) as text:
        for line_number, line in enumerate(text, 1):
            if line[0] == ">":
                number += 1
                name = name_of(line)
                if number == record and len(line) > LONGEST_LINE:
                    raise UserError(f"{path}, line {line_number}: a header of more than {LONGEST_LINE:,} characters")
                if number == record and not name:
                    raise UserError(f"{path}, line {line_number}: a header without a name; expected '>' and a name")
                if number == record and not _is_legal(name):
                    words = shorten(name.encode(ENCODING).decode("utf-8", "replace"))
                    raise UserError(
                        f"{path}, line {line_number}: a record's name is printable ASCII, found '{words}'; rename the"
                        " record"
                    )
            elif number == record:
                letters = line.rstrip(BLANKS)
                column = letters.encode(ENCODING).translate(CODES).find(_ILLEGAL)
                if column >= 0:
                    raise UserError(
                        f"{path}, record {shorten(name)}, line {line_number}, column {column + 1}:"
                        f" {letters[column]!r} is no base; expected one of {LETTERS} in either case"
                    )
    raise UserError(f"{path} changed while it was being read")
