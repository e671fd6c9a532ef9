"""A VCF as rows of text, which keep all that they hold and get fields of INFO; and its header."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from genoattn.errors import UserError, shorten
from genoattn.genome.input_files import LONGEST_HEADER_LINE, bounded_lines, open_bytes, open_text
from genoattn.genome.vcf_writer import CONTIG_NAME, one_line

ENCODING, ERRORS = "utf-8", "surrogateescape"
"""The encoding with which rows are read and written, so that every byte of them is kept."""

LAST = (1 << 31) - 1
"""The last position that an index holds."""

_COLUMNS = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
_FIXED, _INFO = 8, 7
_POSITION = re.compile(r"[0-9]{1,10}")
_DEFINITION = re.compile(r'##(\w+)=<(?:[^"]*,)?ID=([^,>]+)')


class InfoField(NamedTuple):
    """A field of INFO with a value for each ALT."""

    key: str
    type: str
    """Float or String."""
    description: str


class Row(NamedTuple):
    """A row of a VCF with all of its columns."""

    line: int
    """The number of the line in the file, from 1."""
    columns: list[str]

    @property
    def contig(self) -> str:
        """CHROM."""
        return self.columns[0]

    @property
    def position(self) -> int:
        """POS, from 1; 0 is the place before the first base."""
        return int(self.columns[1])

    @property
    def reference(self) -> str:
        """REF."""
        return self.columns[3]

    @property
    def alternates(self) -> list[str]:
        """Every ALT; "." if there is none."""
        return self.columns[4].split(",")

    def text(self, info: Mapping[str, str]) -> str:
        """The row as a line, with fields of INFO added, or replaced if it has them."""
        before = self.columns[_INFO]
        kept = [part for part in before.split(";") if part not in ("", ".") and part.partition("=")[0] not in info]
        after = ";".join([*kept, *(f"{key}={value}" for key, value in info.items() if value)]) or "."
        return "\t".join([*self.columns[:_INFO], after, *self.columns[_INFO + 1 :]]) + "\n"


class Outline(NamedTuple):
    """The header, the size and the order of a VCF, from a first reading.

    Attributes:
        header: The lines of the header, without line ends.
        rows: Number of rows.
        columns: Columns of a row.
        ends: The highest POS of each contig, in the order of the file.
        ordered: True if the file can be indexed: rows of a contig follow each other and are sorted by POS.
    """

    header: list[str]
    rows: int
    columns: int
    ends: dict[str, int]
    ordered: bool


def survey(path: Path, visit: Callable[[Row], object]) -> Outline:
    """Read a VCF once, as `read_rows` does, and show every row to `visit`."""
    header: list[str] = []
    rows, columns, ends, ordered, last = 0, _FIXED, dict[str, int](), True, ""
    for row in read_rows(path, header):
        visit(row)
        contig, position = row.contig, row.position
        ordered &= LAST >= position >= ends.get(contig, 0) and (contig == last or contig not in ends)
        ends[contig] = max(position, ends.get(contig, 0))
        rows, columns, last = rows + 1, len(row.columns), contig
    return Outline(header, rows, columns, ends, ordered)


def read_rows(path: Path, header: list[str] | None = None) -> Iterator[Row]:
    """The rows of a VCF in their order; lines may end in CRLF, and the header may be missing.

    Args:
        path: A VCF, plain, gzip or bgzip.
        header: A list that gets the lines of the header.

    Raises:
        UserError: The file is damaged or no VCF, or a row is malformed; the message has the line.
    """
    if not path.is_file():
        raise UserError(f"{path} is a folder; expected a VCF" if path.is_dir() else f"{path} does not exist")
    with open_bytes(path) as content:
        if content.read(3) == b"BCF":
            raise UserError(f"{path} is a BCF; expected a VCF, as `bcftools view -Oz` writes it")
    expected = 0
    with open_text(path, f"{ENCODING}-sig", ERRORS) as text:
        for number, line in enumerate(bounded_lines(text, path, LONGEST_HEADER_LINE), 1):
            line = line.rstrip("\n")
            if line.startswith("#") and not expected:
                if header is not None:
                    header.append(line)
                if line.startswith("#CHROM"):
                    expected = _check_columns(line, f"{path}, line {number}")
            elif line:
                columns = line.split("\t")
                expected = expected or len(columns)
                _check_row(columns, expected, f"{path}, line {number}")
                yield Row(number, columns)


def _check_columns(line: str, place: str) -> int:
    columns = line.split("\t")
    if columns[: len(_COLUMNS)] != _COLUMNS[: len(columns)] or len(columns) < _FIXED:
        wanted = ", ".join(_COLUMNS[:_FIXED])
        raise UserError(f"{place}: expected the columns {wanted}, separated by tabs, got '{shorten(line)}'")
    return len(columns)


def _check_row(columns: list[str], expected: int, place: str) -> None:
    if len(columns) != max(expected, _FIXED):
        raise UserError(
            f"{place} has {len(columns)} columns, separated by tabs, and expected are {max(expected, _FIXED)}:"
            f" '{shorten(' '.join(columns))}'"
        )
    if not _POSITION.fullmatch(columns[1]):
        raise UserError(f"{place}: POS must be a number, got '{shorten(columns[1])}'")
    if not all(columns[:1] + columns[3:5]):
        raise UserError(f"{place}: CHROM, REF and ALT must not be empty, got '{shorten(' '.join(columns))}'")


def completed_header(
    outline: Outline, lengths: Mapping[str, int], fields: Sequence[InfoField], origin: Mapping[str, str]
) -> str:
    """The header of a VCF with all that its rows need: format, contigs, the fields that are added, and the columns.

    Args:
        outline: The header and contigs of the file.
        lengths: Bases of the contigs that are known.
        fields: Fields that are added to INFO; definitions of the same names are replaced.
        origin: Further lines by key; lines of the same keys are replaced.

    Returns:
        The lines of the header.
    """
    added, contigs, kept = {field.key for field in fields}, set[str](), []
    for line in outline.header:
        kind, name = match.groups() if (match := _DEFINITION.match(line)) else ("", "")
        if kind == "contig":
            contigs.add(name)
        if (
            line.startswith("##")
            and not (kind == "INFO" and name in added)
            and line[2:].partition("=")[0] not in origin
        ):
            kept.append(line)
    if not kept or not kept[0].startswith("##fileformat="):
        kept.insert(0, "##fileformat=VCFv4.3")
    for contig in outline.ends:
        if contig not in contigs and CONTIG_NAME.fullmatch(contig):
            kept.append(f"##contig=<ID={contig}" + (f",length={lengths[contig]}>" if contig in lengths else ">"))
    kept += [f'##INFO=<ID={key},Number=A,Type={kind},Description="{text}">' for key, kind, text in fields]
    kept += [f"##{key}={one_line(text)}" for key, text in origin.items()]
    samples = [f"sample{number}" for number in range(1, outline.columns - _FIXED)]
    columns = "\t".join([*_COLUMNS[: min(outline.columns, _FIXED + 1)], *samples])
    return "\n".join([*kept, next((line for line in outline.header if line.startswith("#CHROM")), columns), ""])
