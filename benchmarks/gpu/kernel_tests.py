"""Part `tests`: the tests of the kernels on the device, a row for each."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.record import DRY, Part

FOLDER = Path(__file__).parents[2] / "tests" / "attention" / "kernels"
LEFT_OUT = ("test_compiled.py", "test_faults.py", "test_device.py")
"""What needs no device, what needs the interpreter, and what the part `correct` does."""


def run(part: Part) -> None:
    """One call of pytest; tests that failed are rows of their own."""
    part.case(lambda: passed(part), suite="kernels")


def passed(part: Part) -> dict[str, Any]:
    """How many tests passed, failed and were skipped, and the names of those that failed."""
    report = part.out.with_name("tests.xml")
    files = ["test_flash.py"] if DRY else [file.name for file in sorted(FOLDER.glob("test_*.py"))]
    words = [str(FOLDER / name) for name in files if name not in LEFT_OUT]
    words += ["-q", "-p", "no:cacheprovider", f"--confcutdir={FOLDER}", f"--junitxml={report}"]
    words += ["-k", "test_bfloat16", "-p", "no:xdist"] if DRY else ["-n", "12"]
    with report.with_suffix(".log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=FOLDER.parents[2],
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            stdout=log,
            stderr=log,
            timeout=part.left(),
            check=False,
        )
    cases = list(ElementTree.parse(report).iter("testcase"))
    wrong = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    names = [f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}" for case in wrong]
    done = len(cases) - len(wrong) - skipped
    return {
        "passed": done,
        "failed": len(wrong),
        "skipped": skipped,
        "names": names[:40],
        "good": done > 0 and not wrong,
    }
