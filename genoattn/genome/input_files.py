"""Files of a user: plain or gzip, with lines of bounded length; damage is said in a sentence and rows are counted."""

import gzip
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path

from genoattn.errors import LISTED, UserError

LONGEST_LINE = 1 << 20
"""Characters of a line at most: of a table, and of a FASTA header. Lines of bases may be longer."""

LONGEST_HEADER_LINE = 1 << 24
"""Characters of a header line of a VCF at most: its last line names every sample."""

_GZIP = b"\x1f\x8b"
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block with which every complete bgzip file ends."""


def packing(path: Path) -> str:
    """The packing of a file by its first bytes: "", "gzip" or "bgzip"."""
    with open(path, "rb") as raw:
        head = raw.read(16)
    if head[:2] != _GZIP:
        return ""
    return "bgzip" if head[12:16] == b"BC\2\0" else "gzip"


@contextmanager
def open_bytes(path: Path, start: int = 0) -> Iterator[gzip.GzipFile | BufferedReader]:
    """The content of a file, unpacked if it is gzip; damage becomes a UserError, wherever in the block it is met.

    The content begins at byte `start` of the file, which is the first one of a block if it is bgzip.
    """
    try:
        packed = packing(path)
        with open(path, "rb") as raw:
            if packed == "bgzip":
                _check_end(path, raw)
            raw.seek(start)
            yield gzip.GzipFile(fileobj=raw) if packed else raw
    except EOFError:
        raise UserError(f"{path} is a truncated gzip file: it ends in the middle; fetch or copy it again") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); fetch or copy it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _check_end(path: Path, raw: BufferedReader) -> None:
    """Raises UserError for a bgzip file that was cut between two blocks: it unpacks, but lacks the last block."""
    raw.seek(max(0, os.fstat(raw.fileno()).st_size - len(_BGZIP_END)))
    if raw.read() != _BGZIP_END:
        raise UserError(f"{path} is a truncated gzip file: bgzip's last block is missing; fetch or copy it again")


@contextmanager
def open_text(path: Path, encoding: str, errors: str = "strict") -> Iterator[TextIOWrapper]:
    """The text of a file as `open_bytes` unpacks it; lines end in LF, CRLF or CR."""
    with open_bytes(path) as content, TextIOWrapper(content, encoding, errors) as text:
        yield text


def bounded_lines(text: TextIOWrapper, path: Path, longest: int = LONGEST_LINE) -> Iterator[str]:
    """The lines of a text; raises UserError at a line of more than `longest` characters."""
    number = 1
    while line := text.readline(longest):
        if len(line) == longest and not line.endswith("\n"):
            raise UserError(f"{path}, line {number} has more than {longest:,} characters; expected a row of a table")
        yield line
        number += 1


def is_number(text: str) -> bool:
    """True for decimal digits only, at most 18 of them: more are no position, and Python refuses to read thousands."""
    return len(text) <= 18 and text.isascii() and text.isdigit()


def check_header(path: Path) -> None:
    """Raises UserError at a header line of a VCF that is too long: htslib would take memory for all of it."""
    with open_text(path, "latin-1") as text:
        number = 1
        while (line := text.readline(LONGEST_HEADER_LINE)).startswith("#"):
            if len(line) == LONGEST_HEADER_LINE and not line.endswith("\n"):
                raise UserError(f"{path}, line {number}: a header line of more than {LONGEST_HEADER_LINE:,} characters")
            number += 1


def describe_counts(counts: Mapping[str, int]) -> str:
    """Numbers of rows with their reasons, such as "3 breakend, 1 no ALT"; rare reasons are put together."""
    items = sorted(((reason, count) for reason, count in counts.items() if count), key=lambda item: -item[1])
    texts = [f"{count:,} {reason}" for reason, count in items[:LISTED]]
    if rest := items[LISTED:]:
        texts.append(f"{sum(count for _, count in rest):,} for {len(rest):,} other reasons")
    return ", ".join(texts)
