"""The benchmark of making examples runs, and counts bases by the processor time of who makes them."""

import pytest

from benchmarks.data_loading import TASKS, measure


@pytest.mark.usefixtures("alone")
def test_a_measurement() -> None:
    row = measure("pretrain", TASKS["pretrain"], length=512, workers=0, seconds=0.05)
    assert row[:3] == ("pretrain", 512, 0) and row.by_processor >= 0.9 * row.by_clock > 0
