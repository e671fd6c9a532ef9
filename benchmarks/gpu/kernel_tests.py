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
"""Tests that need no device, that need the interpreter, and that the part `correct` does itself."""


def run(part: Part) -> None:
    """One call of pytest; tests that failed are rows of their own."""
    part.case(lambda: passed(part), suite="kernels")


def passed(part: Part) -> dict[str, Any]:
    """The numbers of tests that passed, failed and were skipped, and the names of those that failed."""
    report = part.out.with_name("tests.xml")
    files = ["test_flash.py"] if DRY else [file.name for file in sorted(FOLDER.glob("test_*.py"))]
    words = [str(FOLDER / name) for name in files if name not in LEFT_OUT]
    words += ["--override-ini=filterwarnings=default"]  # other versions warn of other things
    words += ["-q", "-p", "no:cacheprovider", f"--confcutdir={FOLDER}", f"--junitxml={report}"]
    words += ["-k", "test_bfloat16", "-p", "no:xdist"] if DRY else ["-n", "16"]
    with report.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *words],
            cwd=FOLDER.parents[2],
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            stdout=log,
            stderr=log,
        )
        try:
            process.wait(part.left())
        except subprocess.TimeoutExpired:
            process.kill()
            return {"cut": f"after {part.seconds:.0f} s; see {report.with_suffix('.log').name}"}
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
