"""Splits keep their distance, and windows stay inside them."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN, decode_bases
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.splits import Splits, split_blocks, split_records
from genoattn.genome.windows import Windows, fetch_padded, slice_padded


def labelled(splits: Splits) -> list[tuple[str, Interval]]:
    return [(name, interval) for name in ("train", "validation", "test") for interval in getattr(splits, name)]


def bases(intervals: Sequence[Interval]) -> int:
    return sum(interval.length for interval in intervals)


fractions = st.floats(0.01, 0.45)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=6), st.integers(1, 60), st.integers(1, 7), fractions, fractions
)
@example([125], 25, 1, 0.25, 0.375)  # room for three windows exactly
def test_blocks_keep_their_distance(lengths: list[int], window: int, cycles: int, validation: float, test: float):
    if max(lengths) < 5 * window:
        with pytest.raises(UserError, match=r"data\.length"):
            split_blocks(lengths, window, cycles, validation, test)
        return
    splits = split_blocks(lengths, window, cycles, validation, test)
    for (name, first), (other, second) in combinations(labelled(splits), 2):
        if first.record == second.record:
            gap = max(first.start, second.start) - min(first.stop, second.stop)
            assert gap >= window, (name, first, other, second)
    for record, length in enumerate(lengths):
        blocks = sorted((i, name) for name, i in labelled(splits) if i.record == record)
        assert all(0 <= i.start < i.stop <= length and i.length >= window for i, _ in blocks)
        assert [name for _, name in blocks][:3] == ["train", "validation", "test"][: len(blocks)]
        if length < window:
            assert blocks == []
        elif length < 5 * window:
            assert [i for i, _ in blocks] == [Interval(record, 0, length)]
        else:
            assert len(blocks) % 3 == 0 and len(blocks) <= 3 * cycles
            assert sum(i.length for i, _ in blocks) + (len(blocks) - 1) * window == length
            assert len(blocks) == 3 or all(i.length >= 8 * window for i, _ in blocks)
    assert len(splits.skipped) == sum(length < window for length in lengths)


def test_no_position_is_near_two_splits():
    """By brute force, without arithmetic on intervals."""
    window = 7
    splits = split_blocks([1000, 36, 30, 3], window, cycles=3)
    for record, length in enumerate([1000, 36, 30, 3]):
        owner = [""] * length
        for name, interval in labelled(splits):
            if interval.record == record:
                for at in range(interval.start, interval.stop):
                    assert owner[at] == ""
                    owner[at] = name
        for at in range(length):
            near = {name for name in owner[at : at + window + 1] if name}
            assert len(near) <= 1, (record, at)


def test_a_genome_by_hand():
    splits = split_blocks([1400, 99, 300], 100, cycles=2, names=["chromosome", "scrap", "plasmid"])
    assert splits == Splits(
        train=(Interval(0, 0, 960), Interval(2, 0, 300)),
        validation=(Interval(0, 1060, 1180),),
        test=(Interval(0, 1280, 1400),),
        skipped=("scrap",),
    )
    assert [bases(intervals) for intervals in splits[:3]] == [1260, 120, 120]


def test_a_long_record_has_every_cycle_and_near_the_fractions():
    splits = split_blocks([2_821_361], 512)
    assert len(splits.test) == len(splits.validation) == len(splits.train) == 5
    total = sum(interval.length for _, interval in labelled(splits))
    assert abs(bases(splits.test) / total - 0.1) < 0.001 and total > 0.99 * 2_821_361


def test_splits_that_cannot_be():
    with pytest.raises(UserError) as caught:
        split_blocks([80, 90], 100, names=["a", "b"])
    assert "a window: its longest record, b, has 90 bases, and a window takes 100 (data.length" in str(caught.value)
    with pytest.raises(UserError, match=r"longest, b, has 499 bases, .* need 500, a window taking 100"):
        split_blocks([80, 499], 100, names=["a", "b"])
    with pytest.raises(UserError, match="longest, number 2, has 499"):
        split_blocks([80, 499], 100)
    for fractions in ((0.0, 0.1), (0.1, 0.0), (0.5, 0.5), (-0.1, 0.2)):
        with pytest.raises(UserError, match=r"data\.validation and data\.test"):
            split_blocks([1000], 10, 5, *fractions)
    with pytest.raises(UserError, match=r"data\.length must be at least 1, got 0"):
        split_blocks([1000], 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=3, max_size=20), fractions, fractions, st.integers(0, 5))
def test_whole_records_are_shared_out(lengths: list[int], validation: float, test: float, seed: int):
    window, names = 50, [f"r{i}" for i in range(len(lengths))]
    usable = [record for record, length in enumerate(lengths) if length >= window]
    if len(usable) < 3:
        with pytest.raises(UserError, match=r"data\.split=block|data\.length"):
            split_records(names, lengths, window, validation, test, seed)
        return
    splits = split_records(names, lengths, window, validation, test, seed)
    assert splits == split_records(names, lengths, window, validation, test, seed)
    assert sorted(interval.record for _, interval in labelled(splits)) == usable
    assert all(interval == (interval.record, 0, lengths[interval.record]) for _, interval in labelled(splits))
    assert splits.train and splits.validation and splits.test
    assert splits.skipped == tuple(names[i] for i in range(len(lengths)) if i not in usable)
    total = sum(lengths[record] for record in usable)
    for name, fraction in (("validation", validation), ("test", test)):
        share = bases(getattr(splits, name)) / total
        assert share <= fraction or len(getattr(splits, name)) == 1


def test_chromosomes_come_near_their_fractions():
    human = [248, 242, 198, 190, 182, 171, 159, 145, 138, 134, 135, 133, 114, 107, 102, 90, 83, 80, 59, 64, 47, 51, 156]
    lengths = [length * 1000 for length in human]
    chosen = set()
    for seed in range(5):
        splits = split_records([str(i) for i in range(len(lengths))], lengths, 1000, seed=seed)
        for intervals in (splits.test, splits.validation):
            assert 0.07 <= bases(intervals) / sum(lengths) <= 0.1
        chosen.add(splits.test)
    assert len(chosen) > 1


def test_two_records_are_too_few():
    with pytest.raises(UserError) as caught:
        split_records(["a", "b", "c"], [1000, 1000, 10], 100)
    assert "data.split=record needs at least three records" in str(caught.value)
    assert "found 2; use data.split=block" in str(caught.value)
    with pytest.raises(UserError, match="longest record, a, has 1000 bases"):
        split_records(["a", "b", "c"], [1000, 999, 10], 2000)


def genome_of(folder: Path, *records: str, soft_mask: str = "keep") -> Genome:
    (folder / "a.fa").write_text("".join(f">r{i}\n{letters}\n" for i, letters in enumerate(records)))
    return open_genome([folder / "a.fa"], folder / "cache", soft_mask)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_draws_stay_inside_and_reach_every_start(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    genome = genome_of(tmp_path_factory.mktemp("draws"), "ACGT" * 5, "A", "TTGCA" * 4)
    ends = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted)
    pairs = data.draw(st.lists(st.tuples(st.sampled_from([0, 2]), ends), min_size=1, max_size=4))
    intervals = [Interval(record, start, stop) for record, (start, stop) in pairs]
    length = data.draw(st.integers(1, 8))
    starts = [(i.record, s) for i in intervals for s in range(i.start, i.stop - length + 1)]
    if not starts:
        with pytest.raises(UserError, match=f"holds a window of {length} bases"):
            Windows(genome, intervals, length)
        return
    windows = Windows(genome, intervals, length)
    rng = np.random.default_rng(0)
    drawn = [windows.draw(rng) for _ in range(40 * len(starts))]
    assert all(window.length == length for window in drawn)
    assert {(window.record, window.start) for window in drawn} == set(starts)


def test_every_start_is_as_likely(tmp_path: Path):
    windows = Windows(genome_of(tmp_path, "A" * 13, "C" * 9), [Interval(0, 0, 13), Interval(1, 1, 9)], 4)
    rng = np.random.default_rng(1)
    counts = np.zeros((2, 13))
    for _ in range(15_000):
        window = windows.draw(rng)
        counts[window.record, window.start] += 1
    drawn = counts[counts > 0]
    assert len(drawn) == 10 + 5 and abs(drawn - 1000).max() < 150
    assert windows.draw(np.random.default_rng(7)) == windows.draw(np.random.default_rng(7))


def test_windows_of_n_are_skipped(tmp_path: Path):
    genome = genome_of(tmp_path, "A" * 20 + "N" * 20 + "R" * 20)
    windows = Windows(genome, [Interval(0, 0, 60)], 10)
    rng = np.random.default_rng(0)
    starts = {windows.draw(rng).start for _ in range(2000)}
    assert starts == {*range(16), *range(35, 51)}, "at most half may be N, and R is not N"
    assert windows.skipped > 100
    known = Windows(genome, [Interval(0, 0, 60)], 10, max_n_fraction=0.0)
    assert {known.draw(rng).start for _ in range(2000)} == {*range(11), *range(40, 51)}
    with pytest.raises(UserError, match=r"1000 windows of 10 bases .* more than 50% N"):
        Windows(genome, [Interval(0, 22, 38)], 10).draw(rng)


def test_masked_bases_are_unknown(tmp_path: Path):
    letters, rng = "A" * 20 + "a" * 20, np.random.default_rng(0)
    for soft_mask, last in (("keep", 30), ("mask", 15)):
        windows = Windows(genome_of(tmp_path, letters, soft_mask=soft_mask), [Interval(0, 0, 40)], 10)
        assert max(windows.draw(rng).start for _ in range(2000)) == last


def test_a_share_of_n_lies_within_0_and_1(tmp_path: Path):
    with pytest.raises(UserError, match=r"data\.max_n_fraction"):
        Windows(genome_of(tmp_path, "ACGT" * 10), [Interval(0, 0, 40)], 4, max_n_fraction=1.5)


@given(st.integers(-30, 40), st.integers(0, 40))
def test_windows_beyond_the_ends_are_padded_with_n(start: int, length: int):
    bases = np.arange(10, dtype=np.uint8) % 4
    expected = [bases[at] if 0 <= at < 10 else UNKNOWN for at in range(start, start + length)]
    assert slice_padded(bases, start, start + length).tolist() == expected


def test_windows_of_a_record_are_padded_with_n(tmp_path: Path):
    genome = genome_of(tmp_path, "TTTT", "ACGT", "GGGG")
    for (start, stop), letters in {(-2, 3): "NNACG", (2, 7): "GTNNN", (-6, -4): "NN", (9, 10): "N"}.items():
        assert decode_bases(fetch_padded(genome, 1, start, stop)) == letters
