"""Hold a function that reads variants to the conformance set: `python -m tests.conformance.check MODULE:FUNCTION`.

The function takes the path of a FASTA and that of a VCF. It returns a mapping from the ID of each record that it reads
to the window of that record, and raises an exception for a file with a record that it refuses. README.md has the rules.
"""

import csv
import gzip
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

FOLDER = Path(__file__).parent
REFERENCE = FOLDER / "reference.fa"

Windows: TypeAlias = Callable[[Path, Path], Mapping[str, str | None]]


class Row(NamedTuple):
    """A record of `variants.vcf` with what is expected of it."""

    name: str
    outcome: str
    reason: str
    window: str
    line: str


def read_set() -> tuple[list[str], list[Row]]:
    """The header lines of `variants.vcf`, and its records in their order."""
    lines = (FOLDER / "variants.vcf").read_text("utf-8").splitlines()
    records = [line for line in lines if not line.startswith("#")]
    with open(FOLDER / "expected.tsv", encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    rows = [Row(*fields, line) for fields, line in zip(expected, records, strict=True)]
    assert [row.name for row in rows] == [line.split("\t")[2] for line in records]
    return [line for line in lines if line.startswith("#")], rows


def copies(header: list[str], rows: list[Row]) -> dict[str, bytes]:
    """The records that no reader refuses, in files that mean the same."""
    text = "\n".join([*header, *(row.line for row in rows if row.outcome != "refused"), ""]).encode()
    return {"plain.vcf": text, "crlf.vcf": text.replace(b"\n", b"\r\n"), "packed.vcf.gz": gzip.compress(text)}


def refused(header: list[str], rows: list[Row]) -> dict[str, tuple[bytes, str]]:
    """Files that are to be refused, each with the sentence of genoattn about it."""
    head = "\n".join(header)
    files = {
        f"{row.name}.vcf": (f"{head}\n{row.line}\n".encode(), row.reason) for row in rows if row.outcome == "refused"
    }
    sentence = "{vcf} is not a VCF; expected a header from ##fileformat=VCF to #CHROM"
    return files | {"no_header.vcf": (f"{rows[0].line}\n".encode(), sentence)}


def check(function: Windows, sentences: bool = False) -> Iterator[str]:
    """A sentence for each record or file that a function reads in another way; with `sentences`, as genoattn does."""
    header, rows = read_set()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in copies(header, rows).items():
            path = Path(folder, name)
            path.write_bytes(content)
            try:
                windows = function(REFERENCE, path)
            except Exception as error:
                yield f"{name}: expected no error, got {type(error).__name__}: {error}"
                continue
            for row in rows:
                got, window = (windows.get(row.name) or "").upper(), row.window
                if row.outcome != "refused" and got != window:
                    what = f"window {window}" if window else f"no window ({row.reason})"
                    yield f"{name}, {row.name}: expected {what}, got {got or 'none'}"
        for name, (content, sentence) in refused(header, rows).items():
            path = Path(folder, name)
            path.write_bytes(content)
            try:
                function(REFERENCE, path)
            except Exception as error:
                if sentences and not str(error).startswith(sentence.format(vcf=path)):
                    yield f"{name}: expected '{sentence.format(vcf=path)}', got '{error}'"
            else:
                yield f"{name}: expected an error such as '{sentence.format(vcf=name)}'"


def main(words: list[str]) -> int:
    """Print what differs; 0 if nothing does."""
    if len(words) != 1 or words[0].count(":") != 1:
        print("usage: python -m tests.conformance.check MODULE:FUNCTION", file=sys.stderr)
        return 2
    module, name = words[0].split(":")
    complaints = list(check(getattr(importlib.import_module(module), name)))
    header, rows = read_set()
    files = len(copies(header, rows)), len(refused(header, rows))
    fine = f"{len(rows)} records as expected: {files[0]} files that are read, {files[1]} that are refused"
    print("\n".join(complaints) or fine)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
