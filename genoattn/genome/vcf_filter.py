"""The records of a VCF that a filter keeps: by FILTER, or by an expression of bcftools."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pysam

from genoattn.errors import UserError, shorten

_MARK = "left_out_by_genoattn"

_PROGRAM = """
import sys
sys.path = [folder for folder in sys.path if folder]  # not the folder of the user, whose modules would come first
import pysam
from pysam import bcftools
pysam.set_verbosity(0)
try:
    bcftools.filter(*sys.argv[1:], catch_stdout=False)
except pysam.SamtoolsError as error:
    sys.exit(str(error.value))
"""


def is_pass(record: pysam.VariantRecord) -> bool:
    """True if FILTER of a record is PASS or missing."""
    return all(name == "PASS" for name in record.filter)


def keeps(lines: Iterable[tuple[pysam.VariantHeader, str]], expression: str, path: Path) -> Iterator[bool]:
    """True for each record of a VCF that an expression keeps, in order.

    bcftools marks the records of a copy, whose header declares every tag and contig as far as htslib knows them: many
    files lack such lines, which bcftools would refuse to write. It runs in a process of its own, because a damaged
    header can crash it.

    Args:
        lines: Each record as the line of a VCF, with the header of all of them.
        expression: An expression of `bcftools filter --include`.
        path: The VCF, for messages.

    Raises:
        UserError: bcftools does not understand the expression, or the header lacks a tag that it names.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, whole, marked = (Path(folder, name) for name in ("body", "whole.vcf", "marked.vcf"))
        header = None
        with open(body, "w", encoding="utf-8") as file:
            for grown, line in lines:
                header = grown
                file.write(line)
        if header is None:
            return
        with open(whole, "wb") as file, open(body, "rb") as records:
            file.write(str(header).encode())
            shutil.copyfileobj(records, file)
        words = ("--soft-filter", _MARK, "--mode", "+", "--include", expression, "--output-type", "v")
        call = [sys.executable, "-c", _PROGRAM, *words, "--output", str(marked), str(whole)]
        done = subprocess.run(call, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        if done.returncode:
            raise UserError(
                f"data.vcf_filter={shorten(expression)} is neither PASS nor an expression that bcftools can apply to"
                f" {path}: {shorten(_message(done))}"
            )
        with pysam.VariantFile(str(marked)) as records:
            yield from (_MARK not in record.filter for record in records)


def _message(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that bcftools wrote, without its own marks."""
    if done.returncode < 0:
        return f"it was ended by {signal.Signals(-done.returncode).name}"
    *_, last = ["no message", *done.stderr.rpartition("stderr=")[2].strip().splitlines()]
    return re.sub(r"^(\[.*?\])? *(Error:)? *", "", last)
