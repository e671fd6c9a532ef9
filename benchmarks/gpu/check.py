"""The whole check: every part in processes of its own, each stopped when its seconds are over; a summary at the end."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu.__main__ import BESIDE, PARTS, Plan, run
from benchmarks.gpu.record import DEAD, DRY, bad, read_rows, write_row

COMMAND = (sys.executable, "-m", "benchmarks.gpu")
GRACE = 5.0
"""Seconds beyond its own that a process gets, to write that it was cut."""


class Worker:
    """A process that does a share of a part's cases, and the one that follows it if it dies."""

    def __init__(self, name: str, rows: Path, until: float, share: tuple[int, int]):
        self.name, self.rows, self.until, self.share = name, rows, until, share
        self.process: subprocess.Popen | None = None
        self._start()

    def _start(self) -> None:
        left = self.until - time.perf_counter()
        words = [
            "--out",
            str(self.rows.parent),
            "--seconds",
            f"{left:.1f}",
            "--share",
            f"{self.share[0]}/{self.share[1]}",
        ]
        with self.rows.with_name(f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen([*COMMAND, self.name, *words], stdout=log, stderr=log)

    def finished(self) -> bool:
        """True once the share is done; a process that died is named, and another does the cases after it."""
        assert self.process is not None
        code, late = self.process.poll(), time.perf_counter() > self.until + GRACE
        if code is None and not late:
            return False
        if code is None:
            self.process.kill()
            self.process.wait()
            self._write(cut=f"killed: its case was not over {GRACE:.0f} s after its part")
            return True
        if code == 0:
            return True
        if code != DEAD and not self._write(error=f"its process ended with status {code}"):
            write_row(self.rows, {"part": self.name, "worker": self.share[0], "error": f"status {code} before a case"})
            return True
        if self.until - time.perf_counter() < GRACE:
            return True
        self._start()
        return False

    def _write(self, **why: str) -> bool:
        """A row for the case that was running; False if none was."""
        begun = self.rows.with_name(f".{self.name}.{self.share[0]}.json")
        if not begun.exists():
            return False
        write_row(self.rows, json.loads(begun.read_text("utf-8")) | why)
        begun.unlink()
        return True


def started(name: str, plan: Plan, rows: Path, until: float) -> list[Worker]:
    """The workers of a part."""
    return [Worker(name, rows, until, (number, plan.workers)) for number in range(plan.workers)]


def wait(workers: list[Worker]) -> None:
    """Return when every worker has finished."""
    while workers:
        workers = [worker for worker in workers if not worker.finished()]
        time.sleep(0.1)


def check(rows: Path, seconds: float) -> int:
    """Run every part, in this process in a dry run, and print a summary.

    Returns:
        The exit status: 1 if an answer was wrong or something of ours did not run.
    """
    begin = time.perf_counter()
    until = begin + seconds
    if DRY:
        for name in [*BESIDE, *PARTS]:
            run(name, rows, seconds)
    else:
        beside = [worker for name, plan in BESIDE.items() for worker in started(name, plan, rows, begin + plan.seconds)]
        for name, plan in PARTS.items():
            here = time.perf_counter()
            if until - here < GRACE:
                write_row(rows, {"part": name, "cut": "no time was left for it"})
                continue
            wait(started(name, plan, rows, min(here + plan.seconds, until)))
            print(f"{name}: {time.perf_counter() - here:.0f} s", flush=True)
        wait(beside)
    read = read_rows(rows)
    print("\n".join(summary(read)), flush=True)
    return int(bool(bad(read)))


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Lines: how many cases of each part were right, what was cut or wrong, and every time."""
    lines = []
    for name in dict.fromkeys(row["part"] for row in rows):
        mine = [row for row in rows if row["part"] == name]
        counts = Counter(_outcome(row) for row in mine)
        lines.append(f"{name}: " + ", ".join(f"{number} {word}" for word, number in counts.most_common()))
    lines += [f"WRONG {_words(row)}" for row in bad(rows)]
    lines += [f"cut {_words(row)}" for row in rows if "cut" in row]
    return lines + [_words(row) for row in rows if any(key.endswith("ms") for key in row)]


def _outcome(row: dict[str, Any]) -> str:
    if "cut" in row:
        return "cut"
    if "refused" in row:
        return "refused"
    return "wrong" if bad([row]) else "right" if row.get("good") else "done"


def _words(row: dict[str, Any]) -> str:
    flat = {"part": row["part"], **row.get("case", {}), **{k: v for k, v in row.items() if k not in ("part", "case")}}
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in flat.items()
    )
