"""Genes are split by their shares; those that overlap stay together."""

from pathlib import Path

import pytest

from genoattn.genome.intervals import Interval, split_genes


@pytest.mark.parametrize(("count", "sizes"), [(10, (8, 1, 1)), (20, (16, 2, 2)), (100, (80, 10, 10))])
def test_shares_of_the_splits(count: int, sizes: tuple[int, ...]) -> None:
    genes = [Interval(0, 10 * n, 10 * n + 5) for n in range(count)]
    assert tuple(map(len, split_genes(Path("x.bed"), genes, seed=0))) == sizes


def test_genes_that_touch_are_separate_and_genes_that_share_a_base_are_not() -> None:
    touching = [Interval(0, 10 * n, 10 * n + 10) for n in range(20)]
    assert sum(map(len, split_genes(Path("x.bed"), touching, seed=0))) == 20
    sharing = [Interval(0, 10 * n, 10 * n + 10 + (n % 2 == 0)) for n in range(40)]
    assert sum(map(len, split_genes(Path("x.bed"), sharing, seed=0))) == 20
