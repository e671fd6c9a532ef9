"""What a file holds, told by its digest, without reading gigabytes again at each start."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from genoattn.errors import UserError
from genoattn.genome.fasta import check_file

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
