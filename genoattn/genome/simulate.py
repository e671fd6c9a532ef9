"""Random small mutations of a reference: substitutions, insertions and deletions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from genoattn.errors import UserError
from genoattn.genome.mutations import Mutation

_SNV, _MNV, _INSERTION, _DELETION = range(4)
_SINGLE = [bytes([base]) for base in range(4)]
_FLIPS = np.array([2, 1, 3], np.uint8)


@dataclass(frozen=True)
class Rates:
    """Rates of small mutations; raises UserError if a value is out of range.

    Attributes:
        rate: Events per base.
        snv: Share of substitutions of one base; the four shares need not sum to 1.
        mnv: Share of substitutions of 2 to max(2, `longest`) bases.
        insertion: Share of insertions.
        deletion: Share of deletions.
        longest: Most bases of an indel.
        transitions: Ratio of transitions to transversions.
        duplication: Share of the insertions that copy the bases before them, as a slipping polymerase does; the other
            insertions are random bases.
        sizes: "uniform": every size of an indel or MNV is equally likely. "log": every doubling is, that is 1 base, 2
            to 3, 4 to 7, …
    """

    rate: float = 0.02
    snv: float = 0.7
    mnv: float = 0.0
    insertion: float = 0.15
    deletion: float = 0.15
    longest: int = 3
    transitions: float = 2.0
    duplication: float = 0.0
    sizes: Literal["uniform", "log"] = "uniform"

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UserError(f"rate must be events per base between 0 and 1, got {self.rate}")
        shares = {"snv": self.snv, "mnv": self.mnv, "insertion": self.insertion, "deletion": self.deletion}
        for name, value in {**shares, "transitions": self.transitions}.items():
            if not (isfinite(value) and value >= 0):
                raise UserError(f"{name} must be a number of at least 0, got {value}")
        if not any(shares.values()):
            raise UserError("one of snv, mnv, insertion and deletion must be above 0, all are 0")
        if not 0 <= self.duplication <= 1:
            raise UserError(f"duplication must be a share between 0 and 1, got {self.duplication}")
        if self.longest < 1:
            raise UserError(f"longest must be at least 1 base, got {self.longest}")
        if self.sizes not in ("uniform", "log"):
            raise UserError(f"sizes must be uniform or log, got {self.sizes}")

    def boundaries(self) -> tuple[float, float, float]:
        """The points in [0, 1) where the shares of mnv, insertion and deletion begin; that of snv begins at 0."""
        total = self.snv + self.mnv + self.insertion + self.deletion
        return self.snv / total, (self.snv + self.mnv) / total, (self.snv + self.mnv + self.insertion) / total


def simulate(reference: UInt8[np.ndarray, "reference"], rates: Rates, rng: np.random.Generator) -> list[Mutation]:
    """Random mutations, sorted by start, with at least one unchanged base between any two.

    Each base begins an event with probability `rates.rate`. Events that touch the event before them or a letter other
    than A, C, G, T are left out, so there are slightly fewer than rate x length. Indels keep off both ends.
    """
    starts = (rng.random(len(reference)) < rates.rate).nonzero()[0]
    kinds = np.array(rates.boundaries()).searchsorted(rng.random(len(starts)), side="right")
    sizes = _sizes(1, rates.longest, len(starts), rates.sizes, rng)
    sizes[kinds == _SNV] = 1
    multiple = (kinds == _MNV).nonzero()[0]
    sizes[multiple] = _sizes(2, max(2, rates.longest), len(multiple), rates.sizes, rng)
    ends = sizes.cumsum()
    # One number per base serves for the inserted letter and for the substitution: an event needs only one of the two.
    chance = rng.random(int(sizes.sum()))
    random_bases = (chance * 4).astype(np.uint8).tobytes()
    flips = _flips(chance, rates.transitions).tobytes()
    copied = (rng.random(len(starts)) < rates.duplication).tolist()

    letters, is_known = reference.tobytes(), int(reference.max(initial=0)) <= 3
    mutations: list[Mutation] = []
    free = 0  # the first base that a next event may begin at
    events = zip(starts.tolist(), kinds.tolist(), sizes.tolist(), ends.tolist(), copied, strict=True)
    for start, kind, size, end, copy in events:
        stop = start if kind == _INSERTION else start + size
        indel = kind in (_INSERTION, _DELETION)
        if start < free or (indel and start == 0) or stop > len(letters) - indel:
            continue
        if not is_known and max(letters[start : max(stop, start + 1)]) > 3:
            continue
        if kind == _SNV:
            inserted = _SINGLE[letters[start] ^ flips[end - 1]]
        elif kind == _DELETION:
            inserted = b""
        elif kind == _INSERTION:
            before = letters[max(start - size, 0) : start]
            inserted = before if copy and len(before) == size and max(before) < 4 else random_bases[end - size : end]
        else:
            inserted = bytes(
                [letter ^ flip for letter, flip in zip(letters[start:stop], flips[end - size : end], strict=True)]
            )
        mutations.append(Mutation(start, stop, inserted))
        free = stop + 1
    return mutations


def write_copies(
    reference: UInt8[np.ndarray, "reference"], mutations: Sequence[Mutation], share: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "reference"]:
    """The reference with a copy of the deleted bases written after some deletions, which then remove one of two copies.

    Most deletions of a genome are of this kind, and a random one hardly ever is.

    Args:
        reference: The reference.
        mutations: Mutations of it, sorted and apart.
        share: Share of the deletions; one with another mutation or the end of the reference in the way is left alone.
        rng: Source of chance.
    """
    if not mutations:
        return reference
    written = reference.copy()
    chosen = rng.random(len(mutations)) < share
    ends = [*(mutation.start for mutation in mutations[1:]), len(reference)]
    for (start, stop, inserted), end, copy in zip(mutations, ends, chosen.tolist(), strict=True):
        if copy and not inserted and 2 * stop - start < end:
            written[stop : 2 * stop - start] = reference[start:stop]
    return written


def _sizes(least: int, most: int, count: int, sizes: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers of bases from `least` to `most`, spread as `Rates.sizes` says."""
    if sizes == "uniform":
        return rng.integers(least, most + 1, count)
    return np.minimum(least * ((most + 1) / least) ** rng.random(count), most).astype(np.int64)


def _flips(chance: np.ndarray, transitions: float) -> np.ndarray:
    """Numbers to XOR codes with for another base: 2 is the transition (A-G, C-T), 1 and 3 are transversions."""
    transition = transitions / (1 + transitions)
    return _FLIPS[np.array((transition, (1 + transition) / 2)).searchsorted(chance, side="right")]
