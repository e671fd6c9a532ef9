"""The places of stores in the cache, and of those being written: no killed program leaves one for long."""

import hashlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from genoattn.errors import UserError
from genoattn.files import is_abandoned, remove_unfinished, unfinished_name
from genoattn.genome.digests import DigestedFile, fasta_digest, read_digests

FORMAT = 2  # part of the key: a store with another layout is never opened, a new one is built beside it

BUILDING = ".building-"
"""The beginning of the name of an unfinished store."""


class StorePlace(NamedTuple):
    """The place of the store of some FASTA files, whether it is there or not."""

    root: Path
    """The cache."""
    folder: Path
    files: list[DigestedFile]
    digests: dict[str, dict]
    """The record of the cache: the files that it was made from."""


def find_store(paths: Sequence[Path], cache: Path | None = None) -> StorePlace:
    """Find where the store of some FASTA files is or will be, by their content; raises UserError as `open_genome`."""
    if not paths:
        raise UserError("data.fasta names no file; expected at least one")
    for path, times in Counter(paths).items():
        if times > 1:
            raise UserError(f"the FASTA {path} is named twice; expected each file once")
    root = Path(os.path.expanduser(cache or os.environ.get("GENOATTN_CACHE") or "~/.cache/genoattn"))
    remove_abandoned(root)
    digests = read_digests(root)
    files = [fasta_digest(Path(os.path.expanduser(path)), digests) for path in paths]
    key = hashlib.sha256(json.dumps([FORMAT, *(file.sha256 for file in files)]).encode()).hexdigest()
    return StorePlace(root, root / f"genome-{key[:32]}", files, digests)


def work_folder(root: Path) -> Path:
    """A new name that holds this machine and process, so that a later start sees whether they still run."""
    return root / f"{BUILDING}{unfinished_name()}-{secrets.token_hex(4)}"


def flush_to_disk(file: BinaryIO) -> None:
    """Without this a power cut after the rename could leave a store of the right size full of zeros."""
    file.flush()
    os.fsync(file.fileno())


def remove_abandoned(root: Path) -> None:
    """Remove what killed programs left in the cache: unfinished stores and files."""
    remove_unfinished(root)
    for folder in root.glob(f"{BUILDING}*"):
        if is_abandoned(folder, folder.name.removeprefix(BUILDING).rpartition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)
