"""Try random inputs: `python -m tests.fuzz --inputs 100000 --seed 0`. Exit status 1 if one of them is a fault."""

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from tests.fuzz.trials import KINDS, Fault, memory_folder, try_inputs

CHUNK = 100
"""Inputs that a process tries before it says so."""


def save(fault: Fault, folder: Path) -> Path:
    """Write the files of a fault and its error."""
    place = folder / f"{fault.kind}-{fault.number}"
    place.mkdir(parents=True, exist_ok=True)
    for name, content in fault.files.items():
        (place / name).write_bytes(content)
    (place / "error.txt").write_text(fault.error, "utf-8")
    return place


def main() -> int:
    """Try the inputs, print counts by kind and outcome, and save those that are faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--number", type=int, help="try a single input of one kind")
    parser.add_argument("--faults", type=Path, default=Path("fuzz-faults"), help="folder of inputs that are faults")
    words = parser.parse_args()
    shares = sum(KINDS[kind].share for kind in words.kinds)
    counts = {kind: round(words.inputs * KINDS[kind].share / shares) for kind in words.kinds}
    ranges = [
        (kind, range(start, min(start + CHUNK, count)))
        for kind, count in counts.items()
        for start in range(0, count, CHUNK)
    ]
    if words.number is not None:
        ranges = [(kind, range(words.number, words.number + 1)) for kind in words.kinds]
    ranges.sort(key=lambda chunk: chunk[1].start / counts[chunk[0]])  # the kinds take turns
    return _try_all(ranges, words.seed, words.processes, words.faults)


def _try_all(ranges: list[tuple[str, range]], seed: int, processes: int, folder: Path) -> int:
    started, tried, total = time.monotonic(), 0, sum(len(numbers) for _, numbers in ranges)
    outcomes: dict[str, Counter[str]] = {}
    count = 0
    with memory_folder() as root, ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        try:
            chunks = [pool.submit(try_inputs, kind, numbers, seed, root) for kind, numbers in ranges]
            for chunk in as_completed(chunks):
                kind, counts, faults = chunk.result()
                outcomes[kind] = outcomes.get(kind, Counter()) + counts
                tried, count = tried + counts.total(), count + len(faults)
                for fault in faults:
                    print(f"\n{save(fault, folder)}: {fault.error.strip().splitlines()[-1][:200]}")
                print(f"\r{tried:,} of {total:,} inputs, {count} faults, {time.monotonic() - started:.0f} s", end="")
                sys.stdout.flush()
        except BrokenProcessPool:
            crashed = folder / f"crash-of-seed-{seed}"
            shutil.copytree(root, crashed, dirs_exist_ok=True)
            print(f"\na process crashed; the input is one of those called {crashed}/*/input")
            return 1
    print()
    for kind, counts in outcomes.items():
        print(f"{kind:10}", ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items())))
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
