"""Structural variants give the sample of a naive splice, on both strands; inversions are as short as possible."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.data.example import Example
from genoattn.data.targets import COLUMNS, IGNORE_INDEX
from genoattn.data.tasks.base import inversion_labels
from genoattn.data.tasks.paired import Paired
from genoattn.errors import UserError
from genoattn.evaluation.detection.results import choose_thresholds, evaluate_scores
from genoattn.evaluation.detection.scored_calls import collect_scored_calls
from genoattn.evaluation.detection.testsets import simulated_test_set
from genoattn.genome.alphabet import COMPLEMENT, decode_bases, encode_bases, reverse_complement
from genoattn.genome.mutations import Event, Mutation, Sample, apply_mutations
from genoattn.genome.simulate import Rates, simulate
from genoattn.genome.structural_variants import StructuralRates, StructuralVariant, apply_structural, drop_overlapping

CASES = settings(deadline=None, max_examples=60)
BUSY = StructuralRates(0.02, 0.02, 0.02, 2, 12, unit=3, units=3, large_insertion=0.02, large_deletion=0.02)
SMALL = Rates(0.08, 1.0, 0.5, 1.0, 1.0, longest=4)


def naive(reference: np.ndarray, mutations: list[Mutation], changes: list[StructuralVariant]) -> list[int]:
    """From the right, so that places stay true."""
    edits = [*mutations, *(change.mutation(reference) for change in changes)]
    letters = reference.tolist()
    for start, stop, inserted in sorted(edits, reverse=True):
        letters[start:stop] = list(inserted)
    return letters


def case(seed: int, letters: int = 4, length: int = 150) -> tuple[np.ndarray, list[Mutation], list[StructuralVariant]]:
    rng = np.random.default_rng(seed)
    reference, changes = BUSY.simulate(rng.integers(0, letters, length, dtype=np.uint8), rng)
    return reference, drop_overlapping(simulate(reference, SMALL, rng), changes), changes


SEEDS = st.integers(0, 2**32)


@CASES
@given(SEEDS, st.sampled_from([2, 4]))
def test_the_sample_is_the_spliced_reference(seed: int, letters: int):
    reference, mutations, changes = case(seed, letters)
    sample = apply_structural(reference, mutations, changes)
    assert sample.bases.tolist() == naive(reference, mutations, changes)
    assert all(len(column) == len(sample.bases) for column in sample[:-1])
    kinds = Counter(event.kind for event in sample.events)
    expected = Counter(change.kind for change in [*mutations, *changes])
    assert kinds["inversion"] <= expected["inversion"]
    kinds["inversion"] = expected["inversion"] = 0  # an inversion that changes nothing is not an event
    assert kinds == expected
    assert [event.start for event in sample.events] == sorted(event.start for event in sample.events)


@CASES
@given(SEEDS, st.sampled_from([2, 4]))
def test_the_reference_position_is_that_of_the_counterpart(seed: int, letters: int):
    reference, mutations, changes = case(seed, letters)
    sample = apply_structural(reference, mutations, changes)
    turned = np.zeros(len(sample.bases), np.bool_)
    for event in sample.events:
        if event.kind == "inversion":
            turned[event.start : event.stop] = True
            backwards = range(event.reference + event.size - 1, event.reference - 1, -1)
            assert sample.reference_position[event.start : event.stop].tolist() == list(backwards)
    plain = ~(sample.substituted | sample.inserted | turned)
    assert (reference[sample.reference_position[plain]] == sample.bases[plain]).all()
    assert (COMPLEMENT[reference[sample.reference_position[turned]]] == sample.bases[turned]).all()
    assert (np.diff(sample.reference_position[plain]) > 0).all()
    assert not (turned & (sample.substituted | sample.inserted | sample.ambiguous_inserted)).any()
    lost = sum(event.size for event in sample.events if event.kind in ("deletion", "contraction"))
    assert len(sample.bases) == len(reference) + sample.inserted.sum() - lost


@CASES
@given(SEEDS, st.sampled_from([2, 4]))
def test_the_other_strand_shows_the_same_changes(seed: int, letters: int):
    reference, _, changes = case(seed, letters)
    length = len(reference)
    here = apply_structural(reference, [], changes)
    there = apply_structural(
        reverse_complement(reference), [], [change.on_reverse_strand(length) for change in reversed(changes)]
    )
    assert reverse_complement(there.bases).tolist() == here.bases.tolist()
    for change in changes:  # one at a time: the placements of variants that may touch depend on their order
        forward = apply_structural(reference, [], [change])
        other = apply_structural(reverse_complement(reference), [], [change.on_reverse_strand(length)])
        gap = int(change.kind in ("contraction", "deletion"))  # labelled at the base behind it
        total = len(forward.bases) + gap
        spans = [(event.kind, event.size, event.earliest, event.latest) for event in forward.events]
        turned = [(event.kind, event.size, total - event.latest, total - event.earliest) for event in other.events]
        assert spans == turned or (gap and 0 in (forward.events[0].earliest, other.events[0].earliest))
    assert [change.on_reverse_strand(length).on_reverse_strand(length) for change in changes] == changes


@CASES
@given(st.lists(st.integers(0, 3), min_size=4, max_size=24), st.data())
def test_an_inversion_reaches_as_far_as_others_give_the_same(letters: list[int], data: st.DataObject):
    half = np.array(letters, np.uint8)
    reference = np.concatenate([half, reverse_complement(half)]) if data.draw(st.booleans()) else half
    start = data.draw(st.integers(0, len(reference) - 1))
    stop = data.draw(st.integers(start + 1, len(reference)))
    sample = apply_structural(reference, [], [StructuralVariant("inversion", start, stop, stop - start)])
    fitting = [
        (at, start + stop - at)
        for at in range((start + stop + 1) // 2)
        if start + stop - at <= len(reference)
        and naive(reference, [], [StructuralVariant("inversion", at, start + stop - at, 0)]) == sample.bases.tolist()
    ]
    if sample.bases.tolist() == reference.tolist():
        assert sample.events == ()
        return
    (event,) = sample.events
    run = {start}  # outwards and inwards from the simulated inversion, while each step fits
    for step in (-1, 1):
        at = start + step
        while (at, start + stop - at) in fitting:
            run.add(at)
            at += step
    assert (event.earliest, event.latest) == (min(run), start + stop - min(run))
    assert (event.start, event.stop) == (max(run), start + stop - max(run))
    target = inversion_labels(sample)
    assert (target[event.start : event.stop] == 1).all() and (target == 1).sum() == event.size
    assert (target == IGNORE_INDEX).sum() == (event.latest - event.earliest) - event.size


@pytest.mark.parametrize(
    ("reference", "change", "bases", "event", "origin"),
    [
        ("AACTGG", ("inversion", 1, 4, 3), "AAGTGG", ("inversion", 1, 2, 3, 1, 4, 2), [0, 1, 2, 3, 4, 5]),
        ("CAAGGC", ("inversion", 1, 5, 4), "CCCTTC", ("inversion", 4, 1, 5, 1, 5, 1), [0, 4, 3, 2, 1, 5]),
        ("CGATT", ("duplication", 1, 3, 2), "CGAGATT", ("duplication", 2, 1, 3, 1, 5, 1), [0, 1, 1, 1, 2, 3, 4]),
        ("GTATATC", ("expansion", 1, 5, 2), "GTATATATC", ("expansion", 2, 1, 3, 1, 8, 1), [0, 1, 1, 1, 2, 3, 4, 5, 6]),
        ("GTATAC", ("contraction", 1, 5, 2), "GTAC", ("contraction", 2, 1, 2, 1, 4, 1), [0, 3, 4, 5]),
    ],
)
def test_small_cases_by_hand(reference: str, change: tuple, bases: str, event: tuple, origin: list[int]):
    sample = apply_structural(encode_bases(reference), [], [StructuralVariant(*change)])
    assert decode_bases(sample.bases) == bases
    assert [tuple(made) for made in sample.events] == [event] and sample.reference_position.tolist() == origin


def test_mutations_beside_a_change_keep_their_places():
    reference = encode_bases("GATTACAGGGTCCATGCAAT")
    changes = [StructuralVariant("inversion", 8, 12, 4)]
    planned = [Mutation(2, 3, b"\1"), Mutation(7, 8, b"\1"), Mutation(10, 10, b"\0"), Mutation(14, 17, b"")]
    separate = drop_overlapping(planned, changes)
    assert separate == [planned[0], planned[3]]  # the second touches the inversion, the third is inside
    sample = apply_structural(reference, separate, changes)
    assert [event.kind for event in sample.events] == ["snv", "inversion", "deletion"]
    assert apply_structural(reference, separate, []).events == apply_mutations(reference, separate).events


@CASES
@given(SEEDS, st.floats(0, 0.2), st.integers(2, 30), st.integers(0, 30), st.integers(1, 6), st.integers(1, 6))
def test_simulated_changes_lie_apart_on_plain_bases(
    seed: int, rate: float, shortest: int, more: int, unit: int, units: int
):
    rng = np.random.default_rng(seed)
    structure = StructuralRates(rate, rate / 2, rate, shortest, shortest + more, unit, units, rate, rate)
    letters = rng.choice([0, 1, 2, 3, 3, 3, 14], 300).astype(np.uint8)
    reference, changes = structure.simulate(letters, np.random.default_rng(seed))
    again, same = structure.simulate(letters, np.random.default_rng(seed))
    assert changes == same and (again == reference).all()
    written = np.zeros(300, np.bool_)
    for before, after in pairwise(changes):
        assert after.start > before.stop
    for kind, start, stop, size, inserted in changes:
        assert 0 < start < stop + (kind == "insertion") and stop < 300 and (letters[start:stop] < 4).all()
        if kind == "insertion":
            assert start == stop and shortest <= len(inserted) == size <= shortest + more
            continue
        if kind in ("inversion", "duplication", "deletion"):
            assert shortest <= stop - start == size <= shortest + more
            continue
        written[start:stop] = True
        whole = [period for period in range(1, unit + 1) if size % period == 0 and size // period <= units]
        room = [period for period in whole if stop - start >= size + 2 * period]
        assert any((reference[start : stop - period] == reference[start + period : stop]).all() for period in room)
    assert (reference[~written] == letters[~written]).all()


def test_without_rates_nothing_is_drawn():
    rng, reference = np.random.default_rng(0), np.zeros(50, np.uint8)
    assert (
        StructuralRates().simulate(reference, rng) == (reference, [])
        and rng.random() == np.random.default_rng(0).random()
    )


def test_simulated_rates():
    structure = StructuralRates(0.002, 0.001, 0.001, shortest=5, longest=9)
    rng = np.random.default_rng(0)
    _, changes = structure.simulate(rng.integers(0, 4, 300_000, dtype=np.uint8), rng)
    counts = Counter(change.kind for change in changes)
    for kind, expected in {"inversion": 600, "duplication": 300, "expansion": 150, "contraction": 150}.items():
        assert abs(counts[kind] - expected * 0.97) < 4 * expected**0.5, kind  # a few are too near another


STRUCTURED: dict[str, Any] = {"inversion": 0.004, "tandem": 0.003, "repeat": 0.006, "structure_longest": 40}


def make(task: Paired, length: int, seed: int) -> Example:
    rng = np.random.default_rng(seed)
    return task.example(rng.integers(0, 4, task.reference_length(length), dtype=np.uint8), length, Rates(0.02), rng)


@CASES
@given(st.integers(30, 300), st.integers(0, 20), st.sampled_from([0.0, 0.5, 1.0]), SEEDS)
def test_each_base_has_its_counterpart_in_the_context(length: int, shift: int, other: float, seed: int):
    example = make(Paired(shift=shift, reverse_strand_fraction=other, **STRUCTURED), length, seed)
    assert example.reference is not None and example.distance is not None
    assert len(example.bases) == len(example.reference) == length
    context = np.concatenate([example.reference, [99], example.bases])
    turned = example.targets["inversion"] == 1
    mutated = np.zeros(length, np.bool_)
    for event in example.events:
        if event.kind in ("snv", "mnv", "insertion", "duplication", "expansion"):
            mutated[event.start : event.stop] = True
    unchanged = (example.distance >= 0) & ~mutated
    where = np.arange(length) + length + 1 - example.distance
    fits = []
    for strand in (False, True):
        same, inverted = unchanged & (turned == strand), unchanged & (turned != strand)
        fits.append(
            (context[where[same]] == example.bases[same]).all()
            and (context[where[inverted]] == COMPLEMENT[example.bases[inverted]]).all()
        )
    assert any(fits)


def test_structural_kinds_are_told_apart_in_the_exam():
    task = Paired(shift=20, **STRUCTURED)
    trial = simulated_test_set([make(task, 300, seed)._replace(block=(0, seed)) for seed in range(30)])
    assert tuple(trial.targets) == COLUMNS

    def knowing(examples: Sequence[Example]) -> list[np.ndarray]:
        return [np.stack([one.targets[name] == 1 for name in COLUMNS], 1).astype(np.float64) for one in examples]

    scores = trial.scores(knowing)
    assert choose_thresholds(trial, scores) == dict.fromkeys(COLUMNS, 1.0)
    found = {kind: one.metrics for kind, one in evaluate_scores(trial, scores, dict.fromkeys(COLUMNS, 0.5), 5).items()}
    structural = {"inversion", "duplication", "expansion", "contraction"}
    assert structural | {"snv", "insertion", "deletion"} <= set(found)
    for kind, one in found.items():
        assert one.f1 == pytest.approx(1), kind
        assert np.isnan(one.base_auprc) == (kind in structural - {"inversion"})
    narrow = trial.scores(lambda examples: [table[:, :3] for table in knowing(examples)])
    assert (narrow[:, :3] == scores[:, :3]).all() and not narrow[:, 3].any()  # a caller that knows of no inversions


def test_a_stretch_scores_the_mean_of_its_best_place():
    scores = np.zeros((12, 4))
    scores[2:8, 3] = [0.1, 0.9, 0.5, 0.7, 0.3, 0.2]
    scores[:6, 1] = [1.0, 0.0, 0.0, 0.4, 0.6, 0.8]
    inversion = Event("inversion", 4, 3, 7, 2, 8, 3)  # bases 2 and 7 pair with each other
    duplication = Event("duplication", 3, 0, 3, 0, 6, 0)
    found = collect_scored_calls(scores, [duplication], np.zeros(12, np.int64), np.ones(12, np.bool_))
    assert found["duplication"].scores[0] == pytest.approx(0.6)  # the second copy
    found = collect_scored_calls(scores, [inversion], np.zeros(12, np.int64), np.ones(12, np.bool_))
    assert found["inversion"].scores[0] == pytest.approx((0.9 + 0.5 + 0.7 + 0.3) / 4)
    assert len(found["inversion"].scores) == 1 + 6


def test_outputs_follow_what_is_planted():
    assert "inversion" not in Paired(tandem=0.01, repeat=0.01).outputs
    assert list(Paired(inversion=0.01).outputs) == list(COLUMNS)
    example = make(Paired(**STRUCTURED, mask_fraction=0.2), 200, 1)
    assert (example.targets["inversion"][example.masking == 1] == IGNORE_INDEX).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"inversion": -0.1}, "task.inversion must be events per base between 0 and 1, got -0.1"),
        ({"repeat": 2.0}, "task.repeat must be events per base between 0 and 1, got 2.0"),
        (
            {"inversion": 0.5, "tandem": 0.6},
            "task.inversion, tandem, repeat, .* must be 1 event per base together at most, got 1.1",
        ),
        ({"structure_shortest": 1}, "task.structure_shortest must lie between 2 bases and task.structure_longest"),
        ({"structure_longest": 3}, "task.structure_shortest must lie between 2 bases and task.structure_longest=3"),
        ({"unit": 0}, "task.unit must be at least 1, got 0"),
        ({"units": 0}, "task.units must be at least 1, got 0"),
    ],
)
def test_mistakes_read_well(wrong: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        Paired(**wrong)


def test_an_event_of_a_sample_is_where_the_sample_shows_it():
    reference, mutations, changes = case(3)
    sample: Sample = apply_structural(reference, mutations, changes)
    for event in sample.events:
        assert 0 <= event.earliest <= event.start < event.stop <= event.latest <= len(sample.bases)
        assert event.earliest == event.start or event.kind == "inversion"
    assert replace(BUSY, repeat=0.0).rate == pytest.approx(0.08)
