"""The sha256 of files, computed once for each state of a file and remembered in the cache."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from genoattn.errors import UserError
from genoattn.files import write_json
from genoattn.genome.fasta import check_file

DIGESTS = "genome-digests.json"
"""The file of the cache that holds them."""

FRESH_NS = 2_000_000_000
"""Age in nanoseconds below which a file could change again within a tick of the clock, with the same signature."""


class DigestedFile(NamedTuple):
    """A file, the signature of its state, and the sha256 of its bytes."""

    path: Path
    signature: list[int]
    sha256: str


def signature_of(path: Path) -> list[int]:
    """Numbers that change when a file changes: size, times of its content and of its entry, inode."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def fasta_digest(path: Path, digests: dict[str, dict]) -> DigestedFile:
    """The digest of a FASTA file of the user; raises UserError if it cannot be read."""
    check_file(path)
    try:
        return digest_of(path, digests)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def digest_of(path: Path, digests: dict[str, dict]) -> DigestedFile:
    """The digest of a file, which is taken from `digests` if the signature there is still right."""
    signature = signature_of(path)
    entry = digests.get(os.path.abspath(path))
    if entry is not None and entry["signature"] == signature:
        return DigestedFile(path, signature, entry["sha256"])
    with open(path, "rb") as file:
        return DigestedFile(path, signature, hashlib.file_digest(file, "sha256").hexdigest())


def read_digests(root: Path) -> dict[str, dict]:
    """Signature and sha256 by path, of files opened before; empty if the file of digests is missing or damaged."""
    try:
        digests = json.loads((root / DIGESTS).read_text("utf-8"))
        return {
            path: {"signature": list(entry["signature"]), "sha256": str(entry["sha256"])}
            for path, entry in digests.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def save_digests(root: Path, digests: dict[str, dict], files: Sequence[DigestedFile]) -> None:
    """Remember the digests of files in the cache, besides those that are there."""
    # A file written a moment ago could change again within a tick of the clock, with the same signature.
    settled = [file for file in files if time.time_ns() - max(file.signature[1:3]) > FRESH_NS]
    new = {os.path.abspath(file.path): {"signature": file.signature, "sha256": file.sha256} for file in settled}
    if any(digests.get(path) != entry for path, entry in new.items()):
        with suppress(UserError):  # a cache that cannot be written still serves; the next start computes them again
            write_json(root / DIGESTS, read_digests(root) | new)
