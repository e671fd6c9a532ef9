"""The bootstrap: which units are resampled, and ratios and intervals by hand."""

import numpy as np
import pytest

from genoattn.evaluation.bootstrap import MIN_BLOCKS, Resamples, interval, resample, resampled_ratio


def test_blocks_are_resampled_as_a_whole():
    blocks = [number // 2 for number in range(2 * MIN_BLOCKS)]
    units, weights = resample(blocks, 7)
    assert units.tolist() == blocks
    assert weights.shape == (7, MIN_BLOCKS) and (weights.sum(1) == MIN_BLOCKS).all()
    assert (resample(blocks, 7).weights == weights).all()


def test_items_are_resampled_where_blocks_are_few():
    """An interval from one or two blocks would be of no width, as on a plasmid."""
    units, weights = resample([0, 0, 0, 1], 5)
    assert units.tolist() == [0, 1, 2, 3] and weights.shape == (5, 4)


def test_a_ratio_by_hand():
    resamples = Resamples(np.array([0, 0, 1]), np.array([[1, 1], [2, 0], [0, 2], [0, 0]]))
    ratios = resampled_ratio(np.array([1.0, 2.0, 9.0]), np.array([1.0, 1.0, 2.0]), resamples)
    assert ratios[:3].tolist() == [12 / 4, 6 / 4, 18 / 4] and np.isnan(ratios[3])


def test_an_interval_is_the_middle_of_the_defined_replicates():
    assert interval(np.array([np.nan, *np.arange(201)])) == pytest.approx((5, 195))
    assert np.isnan(interval(np.array([np.nan, np.nan]))).all()
