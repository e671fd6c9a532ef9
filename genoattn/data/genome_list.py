"""Lists of FASTA files: a table that names many genomes, each with its share of the windows and its group."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from genoattn.errors import UserError, did_you_mean, shorten
from genoattn.files import input_paths
from genoattn.genome.input_files import bounded_lines, open_text

COLUMNS = ("path", "weight", "group")
"""The columns of a list; the first must be there."""


class GenomeFile(NamedTuple):
    """A FASTA file, and what a list says of it.

    Attributes:
        path: The file.
        weight: The share of windows of this file, beside those of the others; None: every base is equally likely.
        group: The group that a split keeps whole; "" for none.
    """

    path: Path
    weight: float | None = None
    group: str = ""


def genome_files(value: str | Sequence[str], setting: str) -> list[GenomeFile]:
    """The FASTA files that a setting names: paths and patterns as in `input_paths`, and lists as `@files.tsv`.

    A list is a tab-separated table with a header: the column `path`, and if wanted `weight` (above 0) and `group`. A
    relative path begins at the folder of the list. Lines that are empty or begin with `#` are left out.

    Raises:
        UserError: A pattern matches no file, or a list is missing or malformed; the sentence names its line. So does
            a weight that only some of the files have.
    """
    files: list[GenomeFile] = []
    for text in [value] if isinstance(value, str) else value:
        if text.startswith("@"):
            files += _read_list(_list_path(text), f"{setting}={shorten(text)}")
        else:
            files += map(GenomeFile, input_paths(text, setting))
    without = next((file.path for file in files if file.weight is None), None)
    if without is not None and any(file.weight is not None for file in files):
        raise UserError(f"{setting}: {without} has no weight and other files have one; expected all or none")
    return files


def fasta_paths(value: str | Sequence[str], setting: str) -> list[Path]:
    """All files that `genome_files` reads: the lists, whose weights and groups count as well, and the FASTA files."""
    texts = [value] if isinstance(value, str) else value
    lists = [_list_path(text) for text in texts if text.startswith("@")]
    return [*lists, *(file.path for file in genome_files(value, setting))]


def _list_path(text: str) -> Path:
    return Path(text[1:]).expanduser()


def _read_list(path: Path, named: str) -> list[GenomeFile]:
    if not path.is_file():
        raise UserError(
            f"{named}: there is no file {shorten(path)}; expected a table with the columns path, weight, group"
        )
    files: list[GenomeFile] = []
    with open_text(path, "utf-8", "replace") as text:
        lines = (line if line.strip() and not line.startswith("#") else "\n" for line in bounded_lines(text, path))
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns: list[str] | None = None
        for row in filter(None, rows):
            place = f"{path}, line {rows.line_num}"
            if columns is None:
                columns = _checked_columns(row, place)
                continue
            if len(row) != len(columns):
                raise UserError(f"{place}: expected {len(columns)} columns ({', '.join(columns)}), got {len(row)}")
            files.append(_file(dict(zip(columns, map(str.strip, row), strict=True)), path.parent, place))
    if not files:
        raise UserError(f"{path} names no file; expected a header with the column path, and a line for each FASTA")
    return files


def _checked_columns(row: Sequence[str], place: str) -> list[str]:
    columns = [column.strip() for column in row]
    for number, column in enumerate(columns):
        if column not in COLUMNS:
            raise UserError(
                f"{place}: {shorten(column)!r} is no column of a list of FASTA files{did_you_mean(column, COLUMNS)}"
            )
        if column in columns[:number]:
            raise UserError(f"{place}: the column {column} stands twice; expected it once")
    if "path" not in columns:
        raise UserError(
            f"{place}: there is no column path; expected a header with path, and if wanted weight and group"
        )
    return columns


def _file(row: dict[str, str], folder: Path, place: str) -> GenomeFile:
    if not row["path"]:
        raise UserError(f"{place}: the path is empty; expected a FASTA file")
    path = folder / Path(row["path"]).expanduser()
    if not path.is_file():
        raise UserError(f"{place}: there is no file {shorten(path)}")
    if "weight" not in row:
        return GenomeFile(path, None, row.get("group", ""))
    try:
        weight = float(row["weight"].replace("_", "x"))  # Python would read 1_0 as ten
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(f"{place}: weight must be a number above 0, got '{shorten(row['weight'])}'")
    return GenomeFile(path, weight, row.get("group", ""))
