"""Facts that only a GPU can tell: half-precision tiles at thousands of tokens, over 2³¹ numbers; float64 is right."""

import pytest

from benchmarks.gpu import correct


@pytest.mark.parametrize("case", list(correct.cases()), ids=str)
def test_kernels(case: correct.Softmax | correct.Linear | correct.Blocks) -> None:
    row = correct.kernel(case)
    assert row["good"], row["off"]


def test_more_numbers_than_32_bits_count() -> None:
    row = correct.huge()
    assert row["good"], row["off"]
