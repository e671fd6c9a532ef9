"""Frame: is the reading frame of a gene broken at the middle of a window, by a frameshift or a premature stop?"""

from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tasks.window_classification import ItemClassification, Items, within
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.genes import AMINO_ACIDS, CODON, Gene, codon_numbers, find_genes, gene_bases, is_stop, read_genes
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome
from genoattn.genome.splits import Splits
from genoattn.genome.windows import fetch_padded

GENE_END = 60
"""Bases between a change and either end of its gene, or a quarter of a short gene."""

MAX_DRAWS = 100
"""Draws of a place in a gene, or of inserted bases, that suits a kind of change."""

BLOCK = 8192
"""Bases whose genes a bootstrap resamples together."""


class Change(NamedTuple):
    """Bases [start, stop) of a gene, counted from its first, are replaced."""

    start: int
    stop: int
    inserted: UInt8[np.ndarray, "inserted"]


@final
class Frame(ItemClassification):
    """A local control for comparisons of layers: sixty bases around a change tell all that can be told.

    A window shows a gene on its coding strand. At its middle a base was inserted or deleted (a frameshift) or a codon
    became a stop by a substitution (class "broken"); or nothing was changed, or three bases were inserted or deleted,
    or a codon was replaced by another one for the same amino acid (class "intact"). No change of the class "intact"
    makes a stop codon in frame. The middle is at any of the three bases of a codon.

    The auxiliary output "phase" tells the place of each base in its codon, in the frame that the gene had: 0, 1 or 2,
    and 3 outside the gene. The class alone is one label a window, and would be learned slowly.
    """

    sites = 1
    class_names = ("intact", "broken")

    def __init__(
        self,
        genes: str | None = None,
        shortest: int = 600,
        stops: float = 0.25,
        silent: float = 0.5,
        phase_weight: float = 1.0,
    ):
        """Build the task.

        Args:
            genes: A GFF3 file with the coding sequences (CDS) of the genome; None: the longest open reading frames.
            shortest: Fewest bases of a gene.
            stops: Share of broken frames that end at a premature stop; the others are shifted by one base.
            silent: Share of intact frames with a change: half of them three bases more or less, half synonymous.
            phase_weight: Weight of the auxiliary output "phase" in the loss; 0: no such output.

        Raises:
            UserError: A setting is out of range.
        """
        if shortest < 10 * CODON:
            raise UserError(f"task.shortest must be at least {10 * CODON} bases, got {shortest}")
        for name, share in (("stops", stops), ("silent", silent)):
            if not 0 <= share <= 1:
                raise UserError(f"task.{name} must be a share between 0 and 1, got {share}")
        if phase_weight < 0:
            raise UserError(f"task.phase_weight must be at least 0, got {phase_weight}")
        self.genes, self.shortest, self.stops, self.silent = genes, shortest, stops, silent
        self.outputs = {"class": TargetSpec(2, 1.0, level="window", strand_symmetry="invariant")}
        if phase_weight > 0:
            self.outputs["phase"] = TargetSpec(CODON + 1, phase_weight, strand_symmetry="none")

    def read_items(self, genome: Genome, splits: Splits) -> Items:
        if self.genes is None:
            genes, skipped = find_genes(genome, self.shortest), {}
        else:
            genes, skipped = read_genes(Path(self.genes), genome, self.shortest)
        train, validation, test = (
            [gene for gene in genes if within(Interval(gene.record, gene.start, gene.stop), part)]
            for part in splits[:3]
        )
        between = len(genes) - len(train) - len(validation) - len(test)
        name = f"{'open reading frames' if self.genes is None else 'genes'} of {self.shortest} bases or more"
        return Items(name, train, validation, test, skipped | ({"between the splits": between} if between else {}))

    def item_example(self, genome: Genome, item: Gene, length: int, rng: np.random.Generator) -> Example:
        broken = bool(rng.random() < 0.5)
        kind = self._kind(broken, rng)
        bases = gene_bases(genome, item)
        change = _draw(kind, bases, rng)
        if change is None:
            kind = "deletion" if broken else "unchanged"
            change = _draw(kind, bases, rng)
            assert change is not None
        half = length // 2
        before = _read(genome, item, change.start - half, change.start)
        after = _read(genome, item, change.stop, change.stop + length - half)
        window = np.concatenate([before, change.inserted, after])[:length]
        target = {"class": np.array([broken], np.int8)}
        if "phase" in self.outputs:
            inserted = np.full(len(change.inserted), IGNORE_INDEX)
            left, right = np.arange(change.start - half, change.start), np.arange(change.stop, change.stop + length)
            phases = [np.where((at >= 0) & (at < len(bases)), at % CODON, CODON) for at in (left, right)]
            target["phase"] = np.concatenate([phases[0], inserted, phases[1]])[:length].astype(np.int8)
        block = item.record, item.start // BLOCK
        return Example(window, None, target, (), block=block, site=(half, half + 1), kind=kind)

    def _kind(self, broken: bool, rng: np.random.Generator) -> str:
        first, second = rng.random(2)
        if broken:
            return "stop" if first < self.stops else "insertion" if second < 0.5 else "deletion"
        return "unchanged" if first >= self.silent else "three bases" if second < 0.5 else "synonymous"


def _read(genome: Genome, gene: Gene, start: int, stop: int) -> UInt8[np.ndarray, "length"]:
    """Bases [start, stop) counted along a gene from its first, those around it included."""
    if not gene.reverse:
        return fetch_padded(genome, gene.record, gene.start + start, gene.start + stop)
    return reverse_complement(fetch_padded(genome, gene.record, gene.stop - stop, gene.stop - start))


def _draw(kind: str, bases: UInt8[np.ndarray, "gene"], rng: np.random.Generator) -> Change | None:
    """A change of a kind at a random place of a gene; None if no place was found."""
    margin = min(GENE_END, len(bases) // 4)
    for _ in range(MAX_DRAWS):
        at = int(rng.integers(margin, len(bases) - margin))
        change = _change_at(kind, bases, at, rng)
        if change is not None:
            return change
    return None


def _change_at(kind: str, bases: UInt8[np.ndarray, "gene"], at: int, rng: np.random.Generator) -> Change | None:
    """A change of a kind at one base of a gene; None if there is none."""
    nothing = np.zeros(0, np.uint8)
    if kind == "unchanged":
        return Change(at, at, nothing)
    if kind == "insertion":
        return Change(at, at, rng.integers(0, 4, 1, np.uint8))
    if kind == "deletion":
        return Change(at, at + 1, nothing)
    if kind == "three bases":
        more = rng.random() < 0.5
        change = Change(at, at, rng.integers(0, 4, CODON, np.uint8)) if more else Change(at, at + CODON, nothing)
        first = at - at % CODON
        whole = np.concatenate([bases[first:at], change.inserted, bases[change.stop : first + 2 * CODON]])
        return None if is_stop(codon_numbers(whole)[::CODON]).any() else change
    first = at - at % CODON
    codon = int(codon_numbers(bases[first : first + CODON])[0])
    if codon < 0:
        return None
    shift = 4 - 2 * (at - first)
    others = [codon & ~(3 << shift) | base << shift for base in range(4) if base != codon >> shift & 3]
    wanted = AMINO_ACIDS[codon] if kind == "synonymous" else ord("*")
    fitting = [other for other in others if AMINO_ACIDS[other] == wanted]
    if not fitting:
        return None
    return Change(at, at + 1, np.array([fitting[int(rng.integers(len(fitting)))] >> shift & 3], np.uint8))
