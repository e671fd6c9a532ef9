"""Contexts of a Markov model."""

import numpy as np
import pytest

from genoattn.evaluation.baselines.markov import contexts
from genoattn.genome.alphabet import encode_bases

LEFT, BOTH = [-1, 0, 1, -1, -1, 0, 3], [-1, -1, -1, -1, -1, 1, -1]


@pytest.mark.parametrize(("flanks", "expected"), [(False, LEFT), (True, BOTH)])
def test_a_hidden_or_ambiguous_base_makes_no_context(flanks: bool, expected: list[int]) -> None:
    """A, C, a hidden G, N, A, T, C: of the neighbours of a base only A, C, G and T that may be read count."""
    readable = np.array([True, True, False, True, True, True, True])
    zero, one = contexts(encode_bases("ACGNATC"), readable, 1, flanks)
    assert zero.tolist() == [0] * 7
    assert one.tolist() == expected
