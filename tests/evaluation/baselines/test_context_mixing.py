"""Copies and context mixing: by hand, on texts that repeat themselves, and without a look at what is predicted."""

import numpy as np
import pytest

from genoattn.evaluation.baselines.context_mixing import ContextMixing, KmerCounts
from genoattn.evaluation.baselines.copies import NONE, RECENT, find_copy
from genoattn.genome.alphabet import encode_bases, reverse_complement

RNG = np.random.default_rng(0)
RELATIVE = RNG.integers(0, 4, 2000, np.uint8)
GAP = np.array([14], np.uint8)


def strain(every: int) -> np.ndarray:
    """The relative with another letter at each of its bases `every`, twice, …"""
    bases = RELATIVE.copy()
    bases[every::every] = (bases[every::every] + 1) % 4
    return bases


def test_a_copy_by_hand() -> None:
    text = encode_bases("ACGTTNGACGTTA")
    copy = find_copy(text, 3, 6, inverted=False)
    assert copy.letters.tolist() == [NONE, NONE, NONE, NONE, 3, 3, NONE]  # after ACG comes TT, and N is no base
    assert copy.lengths.tolist() == [0, 0, 0, 0, 3, 4, 5]


def test_a_copy_of_the_other_strand_by_hand() -> None:
    text = encode_bases("AACCTGNCAGG")  # the reverse complement of AACCTG is CAGGTT
    assert find_copy(text, 3, 7, inverted=True).letters.tolist() == [NONE, NONE, NONE, 2]
    assert find_copy(text, 3, 7, inverted=False).letters.tolist() == [NONE] * 4


@pytest.mark.parametrize("inverted", [False, True])
def test_a_copy_is_followed_over_differences(inverted: bool) -> None:
    bases = strain(50)
    before = reverse_complement(RELATIVE) if inverted else RELATIVE
    copy = find_copy(np.concatenate([before, GAP, bases]), 14, len(before) + 1, inverted)
    assert (copy.letters[:14] == NONE).all() and np.array_equal(copy.letters[14:], RELATIVE[14:])
    assert copy.misses[51 : 51 + RECENT].tolist() == [1] * RECENT and copy.misses[51 + RECENT] == 0


def test_a_copy_that_is_wrong_too_often_is_given_up() -> None:
    other = RNG.integers(0, 4, 100, np.uint8)
    copy = find_copy(np.concatenate([RELATIVE, GAP, RELATIVE[100:150], other]), 14, 2001, False)
    given_up = np.flatnonzero(copy.letters == NONE)
    assert given_up[14] > 50 and given_up[14] < 75


@pytest.mark.parametrize("at", [2100, 2300, 2811])
def test_nothing_after_a_base_is_read_for_it(at: int) -> None:
    text = np.concatenate([RELATIVE, GAP, strain(50)])[:3000]
    changed = text.copy()
    changed[at:] = RNG.integers(0, 4, len(text) - at, np.uint8)
    counts = KmerCounts([RELATIVE])
    first, second = (ContextMixing(counts).probabilities(one, 2001) for one in (text, changed))
    np.testing.assert_array_equal(first[: at - 2000], second[: at - 2000])
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-4)


def test_bits_of_a_strain_after_its_relative() -> None:
    bases = strain(100)
    counts = KmerCounts([RNG.integers(0, 4, 50_000, np.uint8)])
    assert counts.orders == (1, 2, 3, 4, 6, 8)

    def bits(text: np.ndarray, start: int, copies: tuple[int, ...]) -> float:
        table = ContextMixing(counts, copies).probabilities(text, start)
        return float(-np.log2(table[np.arange(len(bases)), text[start:]]).mean())

    assert 1.9 < bits(bases, 0, ()) < 2.1
    assert 1.9 < bits(bases, 0, (14, 24)) < 2.1
    assert (
        bits(np.concatenate([RELATIVE, GAP, bases]), 2001, (14, 24)) < 0.4
    )  # twenty differences, and all is to be learned
    turned = np.concatenate([reverse_complement(RELATIVE), GAP, bases])
    assert bits(turned, 2001, (14, 24)) < 0.4


def test_counts_by_hand() -> None:
    logs = KmerCounts([encode_bases("ACACAG" * 3)], orders=(1,)).logs(encode_bases("NAC"), 1)
    assert logs.shape == (2, 1, 4)
    np.testing.assert_allclose(np.exp(logs[0, 0]), 0.25, rtol=1e-6)  # the base before is unknown
    # After A: 6 C, 3 G, and on the other strand nothing follows; the last A of a copy is followed by C of the next.
    assert np.exp(logs[1, 0]).argmax() == 1
