"""Files that are written whole or not at all, so that no reader, kill or power cut leaves half a file; input files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape, glob
from pathlib import Path
from typing import TYPE_CHECKING

from genoattn.errors import UserError, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABANDONED_SECONDS = 24 * 3600
"""Age from which an unfinished file of another machine counts as left behind."""

HOST = socket.gethostname().replace(".", "_")
"""Name of this machine, as a part of the names of unfinished files."""

INDEXES = (".fai", ".gzi", ".tbi", ".csi")
"""Endings of index files, which lie beside the files of the user; a pattern does not mean them."""


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk."""


def input_paths(value: str | Sequence[str], setting: str) -> list[Path]:
    """The files that a setting names: paths or patterns such as `genomes/*.fa.gz`, or a list of them.

    The files of a pattern are sorted by name. A path that exists is no pattern. Raises UserError if a pattern matches
    no file.
    """
    paths: list[Path] = []
    for text in [value] if isinstance(value, str) else value:
        path = Path(text).expanduser()
        if not any(sign in text for sign in "*?[") or path.exists():
            paths.append(path)
            continue
        found = sorted(Path(name) for name in glob(str(path), recursive=True) if not name.endswith(INDEXES))
        if not (files := [file for file in found if file.is_file()]):
            raise UserError(f"{setting}={shorten(text)} matches no file in {shorten(Path.cwd())}")
        paths += files
    return paths


def path_and_type(text: str) -> tuple[Path, str]:
    """A file, and the type of features that `genes.gff3:CDS` names of it; "" without one."""
    path, colon, kind = text.rpartition(":")
    if not colon or Path(text).expanduser().exists() or not Path(path).expanduser().is_file():
        return Path(text).expanduser(), ""
    return Path(path).expanduser(), kind


def unfinished_name() -> str:
    """Machine and process of this program, as a part of the names of its unfinished files."""
    return f"{HOST}-{os.getpid()}"


@contextmanager
def replace_when_done(path: Path) -> Iterator[Path]:
    """Write the temporary path that this gives; at the end of the block it replaces `path`.

    The temporary file lies in the same folder; it exists and is empty. It is on the disk before it is renamed, and the
    renaming is on the disk at the end of the block. It is removed if the block raises, and `path` stays as it was. The
    permissions are those of any new file, by the umask.

    Raises:
        UserError: The file cannot be written, for instance because its disk is full.
    """
    temporary = path.with_name(f".{path.name}.{unfinished_name()}.part")
    try:
        _remove(path.parent.glob(f".{escape(path.name)}.*.part"))  # of killed programs
        os.close(os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors replaces the file by a private one
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    except OSError as error:
        if error.filename in (None, str(path), str(temporary)):
            raise cannot_write(path, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> UserError:
    """One sentence on a file or folder that cannot be written; it names the disk if that is full."""
    full = f"; free space on the disk of {path.parent.absolute()}" if error.errno in FULL else ""
    return UserError(f"{path} cannot be written: {error.strerror or error}{full}")


def flush_to_disk(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk: a power cut does not undo them."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_unfinished(folder: Path) -> None:
    """Remove the files that killed programs left unfinished in a folder and in the folders inside it."""
    _remove(folder.rglob(".*.part"))


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        if is_abandoned(file, file.name.removesuffix(".part").rpartition(".")[2]):
            with suppress(OSError):
                file.unlink()


def is_abandoned(path: Path, writer: str) -> bool:
    """True for a file or folder whose writer ended: a process of this machine, or after a day of any other."""
    host, _, process = writer.rpartition("-")
    if host == HOST and process.isdigit():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
        return False
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    return False


def write_json(file: Path, value: object, indent: int | None = None) -> None:
    """Write plain values as JSON; NaN and the infinities, which JSON does not know, are an error."""
    write_text(file, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text in UTF-8."""
    with replace_when_done(file) as temporary:
        temporary.write_text(text, "utf-8")


def file_sha256(file: Path) -> str:
    """The sha256 of the content of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def save_figure(figure: Figure, file: Path) -> None:
    """Write a matplotlib figure as PNG or SVG. It was made without pyplot, whose backend is the caller's choice."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_done(file) as temporary:
        figure.savefig(temporary, dpi=120, format=file.suffix.removeprefix("."))
