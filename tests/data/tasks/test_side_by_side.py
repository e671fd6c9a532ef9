"""Labels are those that a slow reading of the sample gives; a curriculum starts and ends at its values."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.data.curriculum import Curriculum
from genoattn.data.example import Example
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.errors import UserError
from genoattn.genome.mutations import Event, Mutation, Sample, apply_mutations, slice_sample
from genoattn.genome.simulate import Rates, simulate

CASES = settings(deadline=None, max_examples=80)
BUSY = Rates(0.1, 1.0, 0.5, 1.0, 1.0, longest=6)


def reference_of(length: int, letters: int, rng: np.random.Generator) -> np.ndarray:
    """Few letters make repeats, in which an indel has many right places."""
    return rng.integers(0, letters, length, dtype=np.uint8)


def drift(events: tuple[Event, ...], base: int) -> int:
    """The lead of the reference over the sample in bases, from the sizes of the indels before a base."""
    gone = sum(event.size for event in events if event.kind == "deletion" and event.start <= base)
    came = sum(min(max(base - event.start, 0), event.size) for event in events if event.kind == "insertion")
    return gone - came


def expected_labels(events: tuple[Event, ...], length: int, kinds: tuple[str, ...]) -> list[int]:
    """0 for unchanged bases, 1 at the left-aligned placement, IGNORE_INDEX at the other equivalent ones."""
    row = [0] * length
    for event in events:
        if event.kind in kinds:
            row[event.earliest : event.latest] = [IGNORE_INDEX] * (event.latest - event.earliest)
    for event in events:
        if event.kind in kinds:
            row[event.start : event.stop] = [1] * (event.stop - event.start)
    return row


def check_targets(example: Example, max_shift: int) -> None:
    targets, events, length = example.targets, example.events, len(example.bases)
    assert example.reference_window is not None
    assert targets["substitution"].tolist() == expected_labels(events, length, ("snv", "mnv"))
    assert targets["insertion"].tolist() == expected_labels(events, length, ("insertion",))
    assert targets["deletion"].tolist() == expected_labels(events, length, ("deletion",))
    for base, shift in enumerate(targets["shift"].tolist()):
        true = drift(events, base)
        assert shift == (true + max_shift if abs(true) <= max_shift else IGNORE_INDEX)
        mutated = targets["substitution"][base] == 1, targets["insertion"][base] == 1
        if shift != IGNORE_INDEX and not mutated[1]:
            same = example.reference_window[max_shift + base + true] == example.bases[base]
            assert same != mutated[0], base


@CASES
@given(st.integers(0, 40), st.integers(1, 80), st.integers(1, 4), st.integers(0, 2**32))
def test_targets_agree_with_the_sample(max_shift: int, length: int, letters: int, seed: int):
    task = SideBySide(max_shift=max_shift)
    rng = np.random.default_rng(seed)
    reference = reference_of(task.reference_length(length), letters, rng)
    example = task.example(reference, length, BUSY, rng)
    assert 0 < len(example.bases) <= length
    assert example.reference_window is not None and np.array_equal(
        example.reference_window, reference[: length + 2 * max_shift]
    )
    assert len(example.reference_window) == length + 2 * max_shift
    check_targets(example, max_shift)


def test_only_the_left_aligned_placement_of_an_indel_is_labelled():
    reference = np.array([0] * 3 + [2, 1, 1, 1, 1, 3, 0, 2, 2, 3] + [0] * 3, np.uint8)  # max_shift 3 to both sides
    task = SideBySide(max_shift=3)
    sample = apply_mutations(reference[3:-3], [Mutation(4, 5, b""), Mutation(8, 8, b"\2")])
    example = task.build_example(reference, sample, 0)
    assert sample.bases.tolist() == [2, 1, 1, 1, 3, 0, 2, 2, 2, 3]
    assert example.targets["deletion"].tolist() == [0, 1, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 0, 0, 0, 0, 0]
    assert example.targets["insertion"].tolist() == [0, 0, 0, 0, 0, 0, 1, IGNORE_INDEX, IGNORE_INDEX, 0]
    assert (example.targets["shift"] - 3).tolist() == [0, 1, 1, 1, 1, 1, 1, 0, 0, 0]


def test_without_max_shift_a_base_is_compared_with_one_base():
    task = SideBySide(max_shift=0)
    assert task.outputs["shift"].classes == 1
    reference = np.arange(8, dtype=np.uint8) % 4
    example = task.build_example(reference, apply_mutations(reference, [Mutation(4, 5, b"")]), 0)
    assert example.targets["shift"].tolist() == [0, 0, 0, 0, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX]
    assert set(SideBySide(shift_weight=0.0).outputs) == {"substitution", "insertion", "deletion"}
    assert (
        "shift" not in SideBySide(shift_weight=0.0).build_example(reference, apply_mutations(reference, []), 0).targets
    )


def test_a_window_that_starts_elsewhere_counts_from_there():
    reference = np.random.default_rng(0).integers(0, 4, 60, dtype=np.uint8)
    sample = slice_sample(apply_mutations(reference, [Mutation(10, 13, b""), Mutation(30, 30, b"\0\1")]), 20, 50)
    task = SideBySide(max_shift=5)
    example = task.build_example(reference[23 - 5 : 53 + 5], sample, 23)
    assert example.targets["shift"][0] == 5  # deletions before the window do not shift it
    check_targets(example, 5)


@CASES
@given(st.integers(0, 63), st.integers(1, 600), st.integers(0, 2**32))
def test_the_reference_length_is_enough(max_shift: int, length: int, seed: int):
    task = SideBySide(max_shift=max_shift)
    rng = np.random.default_rng(seed)
    example = task.example(reference_of(task.reference_length(length), 4, rng), length, task.rates, rng)
    assert example.reference_window is not None
    assert (len(example.bases), len(example.reference_window)) == (length, length + 2 * max_shift)


@CASES
@given(st.integers(0, 2**32), st.integers(1, 4), st.data())
def test_slice_sample_is_a_slice(seed: int, letters: int, data: st.DataObject):
    rng = np.random.default_rng(seed)
    reference = reference_of(50, letters, rng)
    sample = apply_mutations(reference, simulate(reference, Rates(0.3, 1.0, 1.0, 1.0, 1.0, longest=8), rng))
    start = data.draw(st.integers(0, len(sample.bases) - 1))
    stop = data.draw(st.integers(start, len(sample.bases) + 5))
    window = slice_sample(sample, start, stop)
    for got, whole in zip(window[:-1], sample[:-1], strict=True):
        assert got.tolist() == whole.tolist()[start:stop]
    length = len(window.bases)
    inside = [event for event in sample.events if start <= event.start < stop]
    assert [event.kind for event in window.events] == [event.kind for event in inside]
    for got, whole in zip(window.events, inside, strict=True):
        assert (got.size, got.reference) == (whole.size, whole.reference)
        for first, last, begin, end in (
            (got.start, got.stop, whole.start, whole.stop),
            (got.earliest, got.latest, whole.earliest, whole.latest),
        ):
            assert list(range(first, last)) == [at for at in range(length) if begin <= at + start < end]


def test_an_event_across_a_border_belongs_to_where_it_begins():
    reference = np.array([0, 1, 2, 3, 0, 1, 2, 3], np.uint8)
    sample = apply_mutations(reference, [Mutation(4, 4, b"\2\2\2\2")])  # ACGT GGGG ACGT, the inserted at 4 to 8
    before, after = slice_sample(sample, 2, 6), slice_sample(sample, 6, 10)
    assert before.events == (Event("insertion", 4, 2, 4, 2, 4, 4),) and after.events == ()
    assert before.inserted.tolist() == [False, False, True, True]
    assert after.inserted.tolist() == [True, True, False, False]
    assert isinstance(after, Sample) and after.reference_position.tolist() == [4, 4, 4, 5]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_shift": -1}, r"task\.max_shift must lie within 0 and 63 bases, got -1"),
        ({"max_shift": 64}, r"task\.max_shift must lie within 0 and 63 bases, got 64"),
        ({"shift_weight": -0.5}, r"task\.shift_weight must be at least 0, got -0\.5"),
        ({"rate": 1.5}, r"rate must be events per base between 0 and 1, got 1\.5"),
    ],
)
def test_tasks_that_make_no_sense(wrong: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        SideBySide(**wrong)


TRUE = Rates(0.02, 0.7, 0.0, 0.15, 0.15, longest=10)


def test_a_curriculum_begins_and_ends_where_it_says():
    curriculum = Curriculum(until=0.5, rate=0.1, snv=0.1, mnv=0.3, insertion=0.45, deletion=0.0, length=64)
    first, half, last = (curriculum.at(progress, TRUE, 1024) for progress in (0.0, 0.25, 0.5))
    shares = ("rate", "snv", "mnv", "insertion", "deletion")
    assert [getattr(first.rates, name) for name in shares] == pytest.approx([0.1, 0.1, 0.3, 0.45, 0.0])
    assert [getattr(half.rates, name) for name in shares] == pytest.approx([0.06, 0.4, 0.15, 0.3, 0.075])
    assert (first.length, half.length) == (64, 256)  # by equal factors: 64 * 4 * 4 = 1024
    assert last == curriculum.at(1.0, TRUE, 1024) == (TRUE, 1024)
    assert first.rates.longest == TRUE.longest and first.rates.transitions == TRUE.transitions


def test_values_that_a_curriculum_does_not_name_stay():
    for progress in (0.0, 0.3, 1.0):
        assert Curriculum().at(progress, TRUE, 100) == (TRUE, 100)
        assert Curriculum(rate=0.2).at(progress, TRUE, 100).length == 100
    assert Curriculum(length=500).at(0.0, TRUE, 100).length == 100  # never longer than the task's own


def test_mixed_lengths_are_doublings_until_the_end():
    curriculum = Curriculum(until=0.5, rate=0.1, length=64, lengths="mixed")
    drawn = [curriculum.at(0.7, TRUE, 500, chance).length for chance in (0.0, 0.24, 0.25, 0.5, 0.76, 0.999)]
    assert drawn == [64, 64, 128, 256, 500, 500]
    assert curriculum.at(0.0, TRUE, 512, 0.3) == (curriculum.at(0.0, TRUE, 512, 0.9).rates, 128)
    assert curriculum.at(1.0, TRUE, 512, 0.0) == (TRUE, 512)
    assert {curriculum.at(0.1, TRUE, 40, chance).length for chance in (0.0, 0.99)} == {40}


@CASES
@given(st.floats(0.01, 1), st.floats(0, 1), st.integers(1, 300), st.integers(1, 300))
def test_a_curriculum_moves_one_way(until: float, rate: float, shorter: int, length: int):
    curriculum = Curriculum(until=until, rate=rate, length=shorter)
    stages = [curriculum.at(step / 40, TRUE, length) for step in range(41)]
    assert stages[0].length == min(shorter, length) and stages[0].rates.rate == pytest.approx(rate)
    assert stages[-1] == (TRUE, length)
    for before, after in pairwise(stages):
        assert before.length <= after.length
        assert abs(after.rates.rate - TRUE.rate) <= abs(before.rates.rate - TRUE.rate) + 1e-12


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"until": 0.0}, r"curriculum\.until must be a share of training above 0 and at most 1, got 0\.0"),
        ({"until": 1.5}, r"curriculum\.until must be .* got 1\.5"),
        ({"until": float("nan")}, r"curriculum\.until must be .* got nan"),
        ({"rate": 2.0}, r"curriculum\.rate must be events per base between 0 and 1, got 2\.0"),
        ({"insertion": -0.1}, r"curriculum\.insertion must be a number of at least 0, got -0\.1"),
        ({"mnv": float("inf")}, r"curriculum\.mnv must be a number of at least 0, got inf"),
        ({"length": 0}, r"curriculum\.length must be at least 1 base, got 0"),
        ({"lengths": "mixed"}, r"curriculum\.lengths=mixed needs curriculum\.length, .* got null"),
    ],
)
def test_curricula_that_make_no_sense(wrong: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        Curriculum(**wrong)
