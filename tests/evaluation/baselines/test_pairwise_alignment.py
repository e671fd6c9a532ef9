"""Pairwise alignment: isolated mutations are called at their left-aligned placement; equal sequences give no call."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.evaluation.baselines.pairwise_alignment import AlignmentCaller
from genoattn.genome.alphabet import encode_bases
from genoattn.genome.mutations import Mutation, apply_mutations

CALL = AlignmentCaller()
APART = 40
KINDS = ("snv", "insertion", "deletion")


def mutation(kind: str, start: int, size: int, reference: np.ndarray, rng: np.random.Generator) -> Mutation:
    if kind == "snv":
        return Mutation(start, start + 1, bytes([(int(reference[start]) + size) % 4]))
    if kind == "insertion":
        return Mutation(start, start, rng.integers(0, 4, size, dtype=np.uint8).tobytes())
    return Mutation(start, start + size, b"")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 15), st.integers(1, 3)), max_size=5),
    st.integers(0, 60),
    st.integers(0, 2**32),
)
def test_isolated_mutations_are_called_left_aligned(placed: list[tuple[str, int, int]], over: int, seed: int):
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 4, (len(placed) + 2) * APART + over, dtype=np.uint8)
    changes = [
        mutation(kind, (number + 1) * APART + aside, size, reference, rng)
        for number, (kind, aside, size) in enumerate(placed)
    ]
    sample = apply_mutations(reference, changes)
    length = len(sample.bases) - over  # the reference runs on past the sample's end
    calls = CALL(reference, sample.bases[:length])
    assert np.array_equal(calls.substituted, sample.substituted[:length])
    assert np.array_equal(calls.inserted, sample.inserted[:length])
    assert np.array_equal(calls.deleted_before, sample.deleted_before[:length])


@pytest.mark.parametrize("over", [0, 30])
def test_equal_sequences_give_no_call(over: int):
    reference = np.random.default_rng(0).integers(0, 4, 300, dtype=np.uint8)
    calls = CALL(reference, reference[: 300 - over].copy())
    assert [call.tolist() for call in calls] == [[False] * (300 - over)] * 3


@pytest.mark.parametrize(
    ("reference", "sample", "substituted", "inserted", "missing"),
    [
        ("ACGTACGTTGCA", "ACGTACCTTGCA", [6], [], []),
        ("GATTCAAAAAGCTAGCTTAC", "GATTCAAAAAAGCTAGCTTAC", [], [5], []),  # leftmost in the run of A
        ("GATTCAAAAAGCTAGCTTAC", "GATTCAAAGCTAGCTTAC", [], [], [5]),
        ("GATTCAGNRTGCTAGCTTAC", "GATTCAGNRTGCTAGCTTGC", [18], [], []),  # letters that are not A, C, G or T match
    ],
)
def test_small_alignments(reference: str, sample: str, substituted: list, inserted: list, missing: list):
    calls = CALL(encode_bases(reference), encode_bases(sample))
    assert [np.flatnonzero(call).tolist() for call in calls] == [substituted, inserted, missing]
