"""Kills programs at random moments and starts them again until they end: with the same bits as if never killed.

    python -m tests.kill --kills 100 --seed 0 --kinds store model training comparison score

Exit status 1: a program ended with other bits, lost work, or left something behind; its folder is kept and named.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.kill.programs import KINDS, Program


def start(work: Callable[[], int], log: Path) -> int:
    """Fork a process that does the work, its output in a file; the number of the process."""
    process = os.fork()
    if process:
        return process
    output = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = 1
    try:
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(process: int, seconds: float) -> int | None:
    """The exit status of a process; None if it was killed here after some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


class Mismatch(Exception):
    """A killed program did not end as one that was never killed."""


def run(program: Program, folder: Path) -> tuple[dict[str, str], float]:
    """The result of a program that is not killed, and its duration in seconds."""
    folder.mkdir()
    began = time.monotonic()
    if status := wait(start(lambda: program.work(folder), folder / "log.txt"), 3600):
        raise Mismatch(f"{folder} ended with exit status {status} without a kill; see log.txt")
    return program.result(folder), time.monotonic() - began


def killed(program: Program, folder: Path, seconds: float, kills: int, rng: np.random.Generator) -> int:
    """Kill a program until it ends once, or so many times; then let it end, and compare. Returns the kills."""
    folder.mkdir()
    count = 0
    status: int | None = None
    while status is None:
        limit = float(rng.uniform(0, seconds)) if count < kills else 3600
        status = wait(start(lambda: program.work(folder), folder / "log.txt"), limit)
        count += status is None
        program.check(folder)
    if status:
        raise Mismatch(f"{folder} ended with exit status {status} after {count} kills; see log.txt")
    return count


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills of each kind of program")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="genoattn-kill-"))
    os.environ["GENOATTN_CACHE"] = str(home / "cache")
    for kind in arguments.kinds:
        rng, began, count, ends = np.random.default_rng(arguments.seed), time.monotonic(), 0, 0
        program = KINDS[kind](home)
        try:
            expected, seconds = run(program, home / kind)
            while count < arguments.kills:
                folder = home / f"{kind}-{ends}"
                count += killed(program, folder, seconds, arguments.kills - count, rng)
                result = program.result(folder)
                if different := [name for name in expected | result if expected.get(name) != result.get(name)]:
                    raise Mismatch(f"{folder} differs from {home / kind} in {', '.join(different)}")
                ends += 1
                shutil.rmtree(folder)
        except Mismatch as mismatch:
            print(f"{kind}: {mismatch}", file=sys.stderr)
            return 1
        minutes = (time.monotonic() - began) / 60
        print(f"{kind}: {count} kills, {ends} ends, all the same bits as without a kill, {minutes:.1f} min", flush=True)
    shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
