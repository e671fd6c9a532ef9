"""The features of a GFF3 file, plain or gzip."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from genoattn.errors import UserError, shorten
from genoattn.genome.input_files import bounded_lines, is_number, open_text
from genoattn.genome.record_names import unknown_contig
from genoattn.genome.sequence_store import Genome


class Feature(NamedTuple):
    """A line of a GFF3.

    Attributes:
        place: File and line, for messages.
        record: The number of the record.
        kind: The type, such as CDS.
        start: First base (0-based).
        stop: One after the last base; beyond the end of a circular record it goes on at its beginning.
        strand: The column as it is.
        phase: The column as it is.
        attributes: The ninth column.
    """

    place: str
    record: int
    kind: str
    start: int
    stop: int
    strand: str
    phase: str
    attributes: Mapping[str, str]


def read_features(path: Path, genome: Genome, skipped: Counter[str] | None = None) -> Iterator[Feature]:
    """Read the features of a GFF3 (1-based, both ends included) in its order.

    Args:
        path: The file.
        genome: The genome.
        skipped: Counts the lines that are no features, by their kind.

    Raises:
        UserError: A line is malformed or does not lie within a record of the genome.
    """
    skipped = Counter[str]() if skipped is None else skipped
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    circular: set[str] = set()
    with open_text(path, "utf-8", "replace") as text:
        for number, line in enumerate(bounded_lines(text, path), 1):
            place, fields = f"{path}, line {number}", line.rstrip("\r\n").split("\t")
            if line.startswith(("##FASTA", ">")):  # the rest of the file is sequences
                skipped["beginning of the sequences"] += 1
                while text.read(1 << 20):  # damage is found at the end of a gzip file
                    pass
                return
            if not line.strip():
                continue
            if line.startswith("#"):
                skipped["comment"] += 1
                continue
            if len(fields) != 9 or not fields[2] or not (is_number(fields[3]) and is_number(fields[4])):
                raise UserError(
                    f"{place}: expected the nine columns of GFF3, separated by tabs, with a type in the third and the"
                    f" first and last base in the fourth and fifth, got '{shorten(line.rstrip())}'"
                )
            name, first, last = unquote(fields[0]), int(fields[3]), int(fields[4])
            if name not in lengths:
                raise unknown_contig(place, name, lengths)
            length, pairs = lengths[name], (pair.strip().split("=", 1) for pair in fields[8].split(";") if "=" in pair)
            attributes = dict(pairs)
            if attributes.get("Is_circular") == "true":
                circular.add(name)
            if not 1 <= first <= last or first > length or last > length * (1 + (name in circular)):
                raise UserError(f"{place}: expected 1 ≤ first ≤ last ≤ {length}, got {first} and {last}")
            yield Feature(place, genome.index(name), fields[2], first - 1, last, fields[6], fields[7], attributes)
