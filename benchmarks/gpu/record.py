"""Rows of the device check: one line of JSON for each case, written as soon as it is known."""

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

DRY = os.environ.get("GENOATTN_DRY") == "1"
"""True to run every part through the same code on tiny shapes on a CPU; its times mean nothing."""
DEVICE = torch.device("cpu" if DRY else "cuda")
DEAD = 75
"""Exit status of a process whose device does not answer any more; the next process does the cases that are left."""


class Cut(Exception):
    """Raised before a case for which no time is left."""


class Part:
    """A part of the check, or a worker of it: runs cases until its seconds are over and writes their rows.

    Args:
        name: Name of the part.
        out: File that gets the rows, and whose cases are not repeated.
        seconds: Time of the part, from its start.
        share: (number, count): this worker does every count-th case, from this number on.
    """

    def __init__(self, name: str, out: Path, seconds: float, share: tuple[int, int] = (0, 1)):
        self.name, self.out, self.share = name, out, share
        self.until = time.perf_counter() + seconds
        self.begun = out.with_name(f".{name}.{share[0]}.json")
        """File with the labels of the case that runs now, for whoever finds this process dead."""
        self._done = {_key(row) for row in read_rows(out) if row.get("part") == name}
        self._seen = 0

    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.perf_counter()

    def case(self, act: Callable[[], dict[str, Any]], **labels: Any) -> dict[str, Any] | None:
        """Run one case and write its labels with what `act` returns, or with its error.

        Returns:
            The row; None if the case is another worker's or was done before.

        Raises:
            Cut: No time is left.
            SystemExit: The device no longer answers after this case.
        """
        mine = self._seen % self.share[1] == self.share[0]
        self._seen += 1
        row: dict[str, Any] = {"part": self.name, "case": json.loads(json.dumps(labels))}
        if not mine or _key(row) in self._done:
            return None
        if self.left() <= 0:
            raise Cut
        self.begun.write_text(json.dumps(row))
        start = time.perf_counter()
        try:
            row |= act()
        except Exception as error:  # also those of Triton, which are no RuntimeErrors: the other cases go on
            row |= {"error": described(error)}
        row["took"] = round(time.perf_counter() - start, 2)
        write_row(self.out, row)
        self.begun.unlink()
        if "error" in row and not answers():
            raise SystemExit(DEAD)
        return row


def described(error: BaseException) -> str:
    """Class and first line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def answers() -> bool:
    """True unless an error, such as an illegal access, has left the device of this process unusable."""
    if DEVICE.type != "cuda":
        return True
    try:
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
    except Exception:
        return False
    return True


def read_rows(out: Path) -> list[dict[str, Any]]:
    """All rows so far; a line that was cut short is left out."""
    rows = []
    for line in out.read_text("utf-8").splitlines() if out.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def write_row(out: Path, row: dict[str, Any]) -> None:
    """Append a row in one piece, so that several processes may write at once."""
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def bad(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of wrong answers: those of cases that are checked and are not right, or did not run."""
    return [row for row in rows if row.get("good") is False or ("error" in row and not row.get("optional"))]


def _key(row: dict[str, Any]) -> str:
    return json.dumps(row.get("case"), sort_keys=True)
