"""Trials of inputs by number: the same number is the same input, on every machine and in any order."""

import os
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np

from genoattn.errors import UserError
from tests.fuzz import fasta, indexes, models, overrides, tables, vcf, vcf_rows
from tests.fuzz.cases import Files, Maker, Trial, is_sentence

KINDS = {
    kind.name: kind
    for kind in (
        *(fasta.KIND, vcf.KIND, tables.BED, tables.TSV, models.KIND, overrides.KIND, vcf_rows.KIND),
        *(tables.GFF, indexes.KIND),
    )
}
SECONDS = 60
"""Time after which an input counts as one that never ends."""


class Fault(NamedTuple):
    """An input that was neither read right nor refused in a sentence."""

    kind: str
    number: int
    error: str
    files: Files


class Slow(BaseException):
    """An input that takes too long; no reader takes it for an error of a file."""


def try_inputs(kind: str, numbers: range, seed: int, root: Path) -> tuple[str, Counter[str], list[Fault]]:
    """Try the inputs of a kind with these numbers.

    Args:
        kind: A name of `KINDS`.
        numbers: The numbers of the inputs.
        seed: Another seed makes other inputs of the same numbers.
        root: A folder in which every process makes one of its own; the input that is tried lies in its folder "input".

    Returns:
        The kind, counts by outcome, and the faults.
    """
    place = root / str(os.getpid())
    make, run = _prepared(kind, place)
    outcomes: Counter[str] = Counter()
    faults: list[Fault] = []
    folder = place / "input"
    for number in numbers:
        files = make(np.random.default_rng([seed, list(KINDS).index(kind), number]))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            with _at_most(SECONDS):
                outcome = run(folder)
        except UserError as error:
            outcome = "refused" if is_sentence(error) else "fault"
            if outcome == "fault":
                faults.append(Fault(kind, number, f"no short sentence: {str(error)[:300]!r}", files))
        except (Exception, Slow):  # an error of any class is what this looks for
            outcome = "fault"
            faults.append(Fault(kind, number, traceback.format_exc(), files))
        outcomes[outcome] += 1
        shutil.rmtree(folder)
    return kind, outcomes, faults


@cache
def _prepared(kind: str, place: Path) -> tuple[Maker, Trial]:
    folder = place / kind
    folder.mkdir(parents=True)
    return KINDS[kind].prepare(folder)


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A temporary folder, in memory if the machine has a place for that."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise Slow after some seconds."""

    def stop(_: int, __: FrameType | None) -> None:
        raise Slow(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
