"""Test sets of strains: windows of a strain beside its relative, and what a reader of them has to tell."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.conditional import Conditional
from genoattn.evaluation.bootstrap import BLOCK, ScoredCalls
from genoattn.genome.alphabet import kmer_codes, reverse_complement
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Sample, slice_sample
from genoattn.genome.sequence_store import Genome
from genoattn.genome.simulate import Rates, simulate
from genoattn.genome.strains import Strain, StrainBlock, reverse_complement_block, simulated_block

REPEATED = 24
"""A base is repeated if a k-mer of so many bases that holds it occurs twice in the relative, on either strand."""


class StrainWindow(NamedTuple):
    """A window of a strain beside its relative."""

    example: Example
    turned: Example
    """The same bases on the other strand."""
    truth: Sample
    """The bases of the window, and what is mutated of them."""
    repeated: Bool[np.ndarray, "length"]
    """True beside bases of the relative that occur more than once."""

    @property
    def scored(self) -> Bool[np.ndarray, "length"]:
        """The bases that are predicted."""
        return self.example.targets["base"] != IGNORE_INDEX


def simulated_strain(name: str, relative: Genome, intervals: Sequence[Interval], rates: Rates, seed: int) -> Strain:
    """A strain with simulated mutations, one block for each interval of its relative."""
    blocks = []
    for record, start, stop in intervals:
        bases = relative.fetch(record, start, stop)
        mutations = simulate(bases, rates, np.random.default_rng((seed, record, start)))
        blocks.append(simulated_block(bases, mutations, record, start))
    return Strain(name, tuple(blocks), 1.0)


def cut(
    strain: Strain,
    task: Conditional,
    intervals: Sequence[Interval],
    length: int,
    bases: int,
    repeats: Sequence[Bool[np.ndarray, "record"]],
    seed: int,
) -> list[StrainWindow]:
    """Windows side by side, spread evenly over the intervals of the relative; none if no interval holds one.

    Args:
        strain: The strain.
        task: The task that makes the examples.
        intervals: Intervals of the relative.
        length: Bases of a window, of the strain and of the relative.
        bases: Most bases of all windows together; at least one window is cut.
        repeats: The repeated bases of each record of the relative.
        seed: Draws masked bases.
    """
    step = length - task.lead
    parts = strain.within(intervals, length)
    spots = [(block, first) for block, low, high in parts for first in range(low, high - length + 1, step)]
    count = min(len(spots), max(1, bases // length))
    chosen = [spots[number * len(spots) // count] for number in range(count)]
    return [_window(block, first, task, length, repeats, seed) for block, first in chosen]


def _window(
    block: StrainBlock, first: int, task: Conditional, length: int, repeats: Sequence[np.ndarray], seed: int
) -> StrainWindow:
    stop, lead = first + length, task.lead
    place = block.start + block.sample.reference_position[first:stop]
    example = task.window_of(block, first, length, np.random.default_rng((seed, int(place[0]), length)))
    example = example._replace(block=(block.record, int(place[0]) // max(BLOCK, length)))
    turned = reverse_complement_block(block.part(max(first - lead, 0), stop, lead))
    repeated = repeats[block.record]
    return StrainWindow(
        example,
        task.window_of(turned, 0, length, np.random.default_rng(0)),
        slice_sample(block.sample, first, stop),
        repeated[np.minimum(place, len(repeated) - 1)],
    )


def repeated_bases(genome: Genome) -> list[Bool[np.ndarray, "record"]]:
    """The bases of each record that lie in a k-mer of `REPEATED` bases that occurs twice in the genome."""
    records = [genome.fetch(number, 0, length) for number, length in enumerate(genome.lengths)]
    own = [kmer_codes(record, REPEATED) for record in records]
    other = [kmer_codes(reverse_complement(record), REPEATED) for record in records]
    codes, counts = np.unique(np.concatenate([*own, *other]), return_counts=True)
    found = []
    for record, kmers in zip(records, own, strict=True):
        twice = (counts[np.searchsorted(codes, kmers)] > 1) & (kmers >= 0)
        depth = np.zeros(len(record) + 1, np.int64)
        starts = np.flatnonzero(twice)
        np.add.at(depth, starts, 1)
        np.add.at(depth, starts + REPEATED, -1)
        found.append(np.cumsum(depth[:-1]) > 0)
    return found


def scored_calls(
    windows: Sequence[StrainWindow],
    surprise: Sequence[Float[np.ndarray, "length"]],
    units: Sequence[int],
    kind: str,
) -> ScoredCalls:
    """The surprise at mutations of a kind, and at the bases that no mutation touches.

    A substituted base has its own surprise, an indel the highest among its equivalent placements.

    Args:
        windows: The windows.
        surprise: The surprise at each base of each window, NaN at bases that are not predicted.
        units: The resampling unit of each window.
        kind: "snv" or "indel".
    """
    scores, truth, owners = [], [], []
    for window, bits, unit in zip(windows, surprise, units, strict=True):
        touched = np.zeros(len(bits), np.bool_)
        found = list(bits[window.truth.substituted]) if kind == "snv" else []
        for event in window.truth.events:
            touched[event.earliest : event.latest] = True
            if kind == "indel" and event.kind in ("insertion", "deletion"):
                within = bits[event.earliest : event.latest]
                found.append(np.nanmax(within) if np.isfinite(within).any() else np.nan)
        events, others = np.array(found, np.float64), bits[~touched]
        events, others = events[np.isfinite(events)], others[np.isfinite(others)]
        scores += [events, others]
        truth += [np.ones(len(events), np.bool_), np.zeros(len(others), np.bool_)]
        owners.append(np.full(len(events) + len(others), unit))
    return ScoredCalls(np.concatenate(scores), np.concatenate(truth), np.concatenate(owners))
