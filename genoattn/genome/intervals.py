"""To be said in a sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genoattn.errors import UserError, hint
from genoattn.genome.sequence_store import Genome


class Interval(NamedTuple):
    """Bases start..stop (0-based, half-open) of the record of that number."""

    record: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bases in the interval."""
        return self.stop - self.start


SHARES = (0.8, 0.9)
"""Where among the genes of a BED those for validation begin, and those for the test."""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def split_genes(path: Path, genome: Genome, seed: int) -> tuple[list[Interval], list[Interval], list[Interval]]:
    """The genes of a BED (0-based, half-open), overlapping ones joined, for training, validation and test by chance."""
    genes = _joined(_bed(path, genome))
    order = np.random.default_rng(seed).permutation(len(genes)).tolist()
    first, second = (round(share * len(genes)) for share in SHARES)
    if not 0 < first < second < len(genes):
        raise UserError(f"{path} holds {len(genes)} separate genes; training, validation and test need ten or more")
    chosen = [sorted(genes[number] for number in part) for part in (order[:first], order[first:second], order[second:])]
    return chosen[0], chosen[1], chosen[2]


def _bed(path: Path, genome: Genome) -> list[Interval]:
    if not path.is_file():
        raise UserError(f"task.split_bed={path} does not exist")
    found = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) < 3 or not (_is_number(fields[1]) and _is_number(fields[2])):
            raise UserError(f"{path}, line {number}: expected a name, a start and an end, got {line!r}")
        if fields[0] not in genome.names:
            raise UserError(
                f"{path}, line {number}: the FASTA has no contig {fields[0]!r}{hint(fields[0], genome.names)}"
            )
        record, start, stop = genome.index(fields[0]), int(fields[1]), int(fields[2])
        if not start < stop <= genome.lengths[record]:
            raise UserError(
                f"{path}, line {number}: expected 0 ≤ start < end ≤ {genome.lengths[record]}, got {start} and {stop}"
            )
        found.append(Interval(record, start, stop))
    return found


def _joined(genes: Sequence[Interval]) -> list[Interval]:
    whole: list[Interval] = []
    for gene in sorted(genes):
        if whole and whole[-1].record == gene.record and gene.start < whole[-1].stop:
            whole[-1] = whole[-1]._replace(stop=max(whole[-1].stop, gene.stop))
        else:
            whole.append(gene)
    return whole
