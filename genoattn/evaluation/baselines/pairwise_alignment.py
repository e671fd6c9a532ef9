"""Global pairwise alignment with affine gaps (Gotoh 1982) as a mutation caller: a baseline without training."""

from typing import NamedTuple, final

import numpy as np
from Bio.Align import PairwiseAligner
from jaxtyping import Bool, UInt8

from genoattn.genome.alphabet import decode_bases
from genoattn.genome.mutations import Mutation, apply_mutations


class Calls(NamedTuple):
    """Sample bases called substituted or inserted, and sample bases before which bases are called deleted."""

    substituted: Bool[np.ndarray, "sample"]
    inserted: Bool[np.ndarray, "sample"]
    deleted_before: Bool[np.ndarray, "sample"]


@final
class AlignmentCaller:
    """Biopython's PairwiseAligner, with left-aligned indels.

    The scores are those of minimap2's preset for long, similar sequences scaled down: a match 1, a mismatch -4, a gap
    -6 and -2 per further base. Reference bases left over at the end cost nothing.
    """

    def __init__(self) -> None:
        aligner = PairwiseAligner(mode="global", match_score=1, mismatch_score=-4)
        aligner.open_gap_score, aligner.extend_gap_score = -6, -2
        aligner.open_right_deletion_score = aligner.extend_right_deletion_score = 0
        self._aligner = aligner

    def __call__(self, reference: UInt8[np.ndarray, "reference"], sample: UInt8[np.ndarray, "sample"]) -> Calls:
        """The calls for a sample that begins where `reference` begins; the reference may be longer."""
        if np.array_equal(reference[: len(sample)], sample):
            nothing = np.zeros(len(sample), np.bool_)
            return Calls(nothing, nothing, nothing)
        best = self._aligner.align(decode_bases(reference), decode_bases(sample))[0]
        coordinates = np.asarray(best.coordinates)
        called = apply_mutations(reference[: int(coordinates[0, -1])], self._mutations(coordinates, sample, reference))
        size = len(sample)
        return Calls(called.substituted[:size], called.inserted[:size], called.deleted_before[:size])

    def _mutations(self, coordinates: np.ndarray, sample: np.ndarray, reference: np.ndarray) -> list[Mutation]:
        mutations: list[Mutation] = []
        for (start, at), (stop, to) in zip(coordinates.T[:-1].tolist(), coordinates.T[1:].tolist(), strict=True):
            if start == stop or (at == to and to < len(sample)):
                mutations.append(Mutation(start, stop, sample[at:to].tobytes()))
            elif at < to:
                differing = np.flatnonzero(reference[start:stop] != sample[at:to]).tolist()
                mutations += [
                    Mutation(start + n, start + n + 1, sample[at + n : at + n + 1].tobytes()) for n in differing
                ]
        return mutations
