"""Origin and terminus from the cumulative GC skew, by hand and wherever a circle is cut open."""

import numpy as np
import pytest

from genoattn.genome.alphabet import encode_bases, reverse_complement
from genoattn.genome.replichores import Replichores, find_replichores, gc_skew


def test_by_hand():
    found = find_replichores(encode_bases("CACGGTGAGGACCTCC"))
    assert found == Replichores(3, 10, 16)
    assert [found.leading(at) for at in (2, 3, 9, 10, 15, 0)] == [False, True, True, False, False, False]


@pytest.mark.parametrize("cut", [0, 7, 333, 512, 900])
def test_a_circle_may_be_cut_open_anywhere(cut: int):
    """600 bases with more G from the origin on, 424 with more C; both strands of each base are told."""
    rng = np.random.default_rng(0)
    circle = np.concatenate([np.tile([2, 0, 2, 3], 150), np.tile([1, 0, 1, 3, 1, 0, 1, 1], 53)]).astype(np.uint8)
    bases = np.roll(circle, -cut)
    found = find_replichores(bases)
    at = int(rng.integers(20, 580))
    assert found.leading((at - cut) % 1024) and not found.leading((700 - cut) % 1024)
    turned = find_replichores(reverse_complement(bases))
    assert not turned.leading(1023 - (at - cut) % 1024) and turned.leading(1023 - (700 - cut) % 1024)


def test_skew():
    assert gc_skew(encode_bases("GGGC")) == 0.5 and gc_skew(encode_bases("AATN")) == 0
