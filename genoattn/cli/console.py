"""The output of a program: its copy in a file of its run folder, and silence on request."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOBase
from pathlib import Path
from typing import TextIO, final

from genoattn.errors import UserError

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and movements of the cursor."""


@contextmanager
def tee(file: Path) -> Iterator[None]:
    """Within it everything printed goes to a log file too, line by line, without colours and progress bars."""
    with file.open("a", encoding="utf-8") as log:
        streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Tee(streams[0], log), _Tee(streams[1], log)
        try:
            yield
        except UserError as mistake:  # printed after this program has ended
            log.write(f"{mistake}\n")
            raise
        finally:
            sys.stdout, sys.stderr = streams


@final
class _Tee:
    """A text stream that also writes whole lines to a log, as a terminal would show them at last."""

    def __init__(self, stream: TextIO | TextIOBase, log: TextIO | TextIOBase):
        self.stream, self.log, self.line = stream, log, ""

    def write(self, text: str) -> int:
        self.line += _CONTROL.sub("", text)
        *lines, rest = self.line.split("\n")
        self.line = rest.rpartition("\r")[2]
        for line in lines:
            self.log.write(f"{line.rpartition(chr(13))[2]}\n")
        self.log.flush()
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)  # isatty, encoding, fileno, …


@contextmanager
def quiet() -> Iterator[None]:
    """Within it stdout shows only what `announce` prints; logs and stderr have everything as before."""
    stream = sys.stdout
    sys.stdout = _Quiet(stream)
    try:
        yield
    finally:
        sys.stdout = stream


def announce(text: str) -> None:
    """Print what was written where, also within `quiet`."""
    _Quiet.announcing = True
    try:
        print(text, flush=True)
    finally:
        _Quiet.announcing = False


@final
class _Quiet:
    """A text stream that drops all but announcements, and is no terminal, so that nothing draws a progress bar."""

    announcing = False

    def __init__(self, stream: TextIO | TextIOBase):
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(text) if self.announcing else len(text)

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)  # flush, encoding, fileno, …
