"""The check of a GPU: `python -m benchmarks.gpu check --out FOLDER`, or a part; see benchmarks/device_check.sh.

GENOATTN_DRY=1 TRITON_INTERPRET=1 runs the same code on tiny shapes on a CPU; its times mean nothing.
"""

import argparse
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.record import Cut, Part, described, write_row


class Plan(NamedTuple):
    """A part: its function, its most seconds on a GPU, and the processes that share its cases."""

    function: str
    seconds: float
    workers: int = 1


PARTS = {
    "tests": Plan("kernel_tests.run", 75),
    "correct": Plan("correct.run", 110, 14),
    "tune": Plan("sweep.run", 80),
    "bench": Plan("against.run", 90),
    "train": Plan("programs.train", 75, 6),
    "speed": Plan("programs.speed", 60),
    "whole": Plan("programs.whole", 70),
}
"""The parts in their order; 560 seconds at most."""
BESIDE = {"flex": Plan("against.warm", 150)}
"""Parts that run beside the first ones."""


def run(name: str, out: Path, seconds: float, share: tuple[int, int] = (0, 1)) -> None:
    """Run a part, or a share of its cases, in this process; write if it was cut."""
    module, _, function = (PARTS | BESIDE)[name].function.partition(".")
    part = Part(name, out, seconds, share)
    try:
        getattr(import_module(f"benchmarks.gpu.{module}"), function)(part)
    except Cut:
        write_row(out, {"part": name, "worker": share[0], "cut": f"after {seconds:.0f} s"})
    except Exception as error:  # outside of a case: the part cannot go on, the others can
        write_row(out, {"part": name, "worker": share[0], "error": described(error)})


def main() -> None:
    """The whole check, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["check", *PARTS, *BESIDE])
    parser.add_argument("--out", type=Path, required=True, help="folder of rows.jsonl, logs and run folders")
    parser.add_argument("--seconds", type=float, help="most seconds; of the check 570")
    parser.add_argument("--share", type=lambda text: tuple(map(int, text.split("/"))), default=(0, 1), help="0/12")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = options.out / "rows.jsonl"
    if options.part != "check":
        run(options.part, rows, options.seconds or (PARTS | BESIDE)[options.part].seconds, options.share)
        return
    from benchmarks.gpu.check import check

    raise SystemExit(check(rows, options.seconds or 570))


if __name__ == "__main__":
    main()
