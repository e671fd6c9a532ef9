"""apply_mutations equals a naive splice; equivalent places of an indel equal those found by trying every place."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases, encode_bases
from genoattn.genome.mutations import Event, Mutation, Sample, apply_mutations, mutated_sequence
from genoattn.genome.simulate import Rates, simulate, write_copies


def naive(reference: np.ndarray, mutations: list[Mutation]) -> list[int]:
    letters = reference.tolist()
    for start, stop, inserted in reversed(mutations):
        letters[start:stop] = list(inserted)
    return letters


def canonical(reference: np.ndarray, sample: Sample) -> list[Mutation]:
    """The mutations of the events, and a deletion after the last sample base, which is not an event."""
    applied = [
        Mutation(event.reference, event.reference + event.size, b"")
        if event.kind == "deletion"
        else Mutation(
            event.reference,
            event.reference + event.size * (event.kind != "insertion"),
            sample.bases[event.start : event.stop].tobytes(),
        )
        for event in sample.events
    ]
    tail = len(naive(reference, applied)) - len(sample.bases)
    return applied + [Mutation(len(reference) - tail, len(reference), b"")] * (tail > 0)


@st.composite
def mutated(draw: st.DrawFn, gap: int = 0) -> tuple[np.ndarray, list[Mutation]]:
    """A repetitive reference, and mutations of any kind at least `gap` bases apart, at both ends too."""
    letters = draw(st.sampled_from([[0], [0, 1], [0, 1, 2, 3, 14]]))
    reference = np.array(draw(st.lists(st.sampled_from(letters), max_size=30)), np.uint8)
    mutations: list[Mutation] = []
    position = draw(st.integers(0, 5))
    while position <= len(reference) and len(mutations) < 6:
        stop = min(len(reference), position + draw(st.integers(0, 4)))
        inserted = bytes(draw(st.lists(st.sampled_from(letters), max_size=4)))
        if stop > position or inserted:
            mutations.append(Mutation(position, stop, inserted))
        position = stop + max(gap, draw(st.integers(0, 5)), 1 if stop == position else 0)
    return reference, mutations


def same(a: Sample, b: Sample) -> bool:
    return a.events == b.events and all(np.array_equal(*columns) for columns in zip(a[:-1], b[:-1], strict=True))


@settings(deadline=None, max_examples=100)
@given(mutated())
def test_sample_is_the_spliced_reference(case: tuple[np.ndarray, list[Mutation]]) -> None:
    reference, mutations = case
    sample = apply_mutations(reference, mutations)
    assert sample.bases.tolist() == naive(reference, mutations) == mutated_sequence(reference, mutations).tolist()
    assert naive(reference, canonical(reference, sample)) == sample.bases.tolist()
    assert sample.bases.flags.writeable


@settings(deadline=None, max_examples=100)
@given(mutated())
def test_every_sample_base_has_its_reference_position(case: tuple[np.ndarray, list[Mutation]]) -> None:
    reference, mutations = case
    sample = apply_mutations(reference, mutations)
    matched = ~(sample.substituted | sample.inserted)
    assert len(sample.reference_position) == len(sample.bases)
    assert (np.diff(sample.reference_position) >= 0).all()
    assert (sample.bases[matched] == reference[sample.reference_position[matched]]).all()
    assert (sample.bases[sample.substituted] != reference[sample.reference_position[sample.substituted]]).all()
    aligned = sample.reference_position[~sample.inserted]
    assert (np.diff(aligned) > 0).all()
    for event in sample.events:
        if event.kind == "insertion":
            assert (sample.reference_position[event.start : event.stop] == event.reference).all()
        elif event.kind != "deletion":
            assert sample.reference_position[event.start] == event.reference


@settings(deadline=None, max_examples=100)
@given(mutated())
def test_masks_are_the_events(case: tuple[np.ndarray, list[Mutation]]) -> None:
    sample = apply_mutations(*case)
    masks = [np.zeros(len(sample.bases), bool) for _ in range(5)]
    for kind, size, start, stop, first, last, _ in sample.events:
        assert 0 <= first == start < stop <= last <= len(sample.bases)
        assert stop - start == (1 if kind == "deletion" else size)
        tight = {"snv": 0, "mnv": 0, "insertion": 1, "deletion": 2}[kind]
        masks[tight][start:stop] = True
        if tight:
            masks[tight + 2][first:last] = True
        assert tight or (first, last) == (start, stop)
    assert all(np.array_equal(a, b) for a, b in zip(masks, sample[2:7], strict=True))
    assert sample.inserted.sum() == sum(event.size for event in sample.events if event.kind == "insertion")


@settings(deadline=None, max_examples=100)
@given(mutated())
def test_equivalence_class_is_every_placement_that_gives_the_sample(case: tuple[np.ndarray, list[Mutation]]) -> None:
    reference, mutations = case
    sample = apply_mutations(reference, mutations)
    applied = canonical(reference, sample)
    for index, event in enumerate(sample.events):
        if event.kind not in ("insertion", "deletion"):
            continue
        here = applied[index]
        lowest = applied[index - 1].stop + 1 if index else 0
        highest = (
            applied[index + 1].start - 1 if index + 1 < len(applied) else len(reference) - (event.kind == "deletion")
        )
        shift = event.start - event.reference
        placements = {here.start}
        for start in range(lowest, highest - (here.stop - here.start) + 1):
            inserted = sample.bases[start + shift : start + shift + len(here.inserted)].tobytes()
            other = Mutation(start, start + here.stop - here.start, inserted)
            if naive(reference, [*applied[:index], other, *applied[index + 1 :]]) == sample.bases.tolist():
                placements.add(start)
        assert placements == set(range(event.reference, event.reference + event.latest - event.stop + 1))


@settings(deadline=None, max_examples=100)
@given(mutated(gap=1), st.data())
def test_any_placement_gives_the_same_sample(case: tuple[np.ndarray, list[Mutation]], data: st.DataObject) -> None:
    reference, mutations = case
    mutations = [mutation for mutation in mutations if mutation.kind in ("snv", "insertion", "deletion")]
    sample = apply_mutations(reference, mutations)
    moved = canonical(reference, sample)
    for index, event in enumerate(sample.events):
        by = data.draw(st.integers(0, event.latest - event.stop))
        start, stop, inserted = moved[index]
        inserted = sample.bases[event.start + by : event.start + by + len(inserted)].tobytes()
        moved[index] = Mutation(start + by, stop + by, inserted)
    assert same(apply_mutations(reference, moved), sample)


@pytest.mark.parametrize(
    ("reference", "mutation", "bases", "events", "origin"),
    [
        ("ACGT", (1, 2, "T"), "ATGT", [("snv", 1, 1, 2, 1, 2, 1)], [0, 1, 2, 3]),
        ("ACGT", (1, 3, "TA"), "ATAT", [("mnv", 2, 1, 3, 1, 3, 1)], [0, 1, 2, 3]),
        ("ACGT", (2, 2, "TT"), "ACTTGT", [("insertion", 2, 2, 4, 2, 4, 2)], [0, 1, 2, 2, 2, 3]),
        ("ACCCT", (4, 4, "C"), "ACCCCT", [("insertion", 1, 1, 2, 1, 5, 1)], [0, 1, 1, 2, 3, 4]),
        ("GCACAT", (5, 5, "CA"), "GCACACAT", [("insertion", 2, 1, 3, 1, 7, 1)], [0, 1, 1, 1, 2, 3, 4, 5]),
        ("TACAC", (5, 5, "AC"), "TACACAC", [("insertion", 2, 1, 3, 1, 7, 1)], [0, 1, 1, 1, 2, 3, 4]),
        ("ACG", (3, 3, "T"), "ACGT", [("insertion", 1, 3, 4, 3, 4, 3)], [0, 1, 2, 3]),
        ("ACGT", (1, 3, ""), "AT", [("deletion", 2, 1, 2, 1, 2, 1)], [0, 3]),
        ("ACCCT", (3, 4, ""), "ACCT", [("deletion", 1, 1, 2, 1, 4, 1)], [0, 2, 3, 4]),
        ("GCACAT", (2, 4, ""), "GCAT", [("deletion", 2, 1, 2, 1, 4, 1)], [0, 3, 4, 5]),
        ("ACCC", (3, 4, ""), "ACC", [("deletion", 1, 1, 2, 1, 3, 1)], [0, 2, 3]),
        ("ACGT", (2, 4, ""), "AC", [], [0, 1]),
        ("AAGT", (0, 1, ""), "AGT", [("deletion", 1, 0, 1, 0, 2, 0)], [1, 2, 3]),
        ("ACGT", (0, 4, ""), "", [], []),
        ("ACGTA", (1, 4, "C"), "ACA", [("deletion", 2, 2, 3, 2, 3, 2)], [0, 1, 4]),
        (
            "ACGTA",
            (1, 3, "TGG"),
            "ATGGTA",
            [("snv", 1, 1, 2, 1, 2, 1), ("insertion", 1, 3, 4, 3, 4, 3)],
            [0, 1, 2, 3, 3, 4],
        ),
        ("AAAAA", (1, 4, "CAC"), "ACACA", [("snv", 1, 1, 2, 1, 2, 1), ("snv", 1, 3, 4, 3, 4, 3)], [0, 1, 2, 3, 4]),
        ("ACGT", (1, 2, "C"), "ACGT", [], [0, 1, 2, 3]),
    ],
)
def test_small_cases_by_hand(
    reference: str, mutation: tuple[int, int, str], bases: str, events: list[tuple], origin: list[int]
) -> None:
    start, stop, inserted = mutation
    sample = apply_mutations(encode_bases(reference), [Mutation(start, stop, encode_bases(inserted).tobytes())])
    assert decode_bases(sample.bases) == bases
    assert list(sample.events) == [Event(*event) for event in events]
    assert sample.reference_position.tolist() == origin


def test_an_indel_stays_one_base_off_another_mutation() -> None:
    reference = encode_bases("GCCCCCCG")
    sample = apply_mutations(reference, [Mutation(2, 3, b"\0"), Mutation(6, 7, b"")])  # GCACCCG
    assert sample.events[1] == Event("deletion", 1, 4, 5, 4, 7, 4)
    sample = apply_mutations(reference, [Mutation(1, 1, b"\1"), Mutation(5, 6, b"\0")])  # GCCCCCACG
    assert sample.events[0] == Event("insertion", 1, 1, 2, 1, 5, 1)


def test_kinds() -> None:
    cases = [(1, 2, 1), (1, 3, 2), (1, 1, 2), (1, 3, 0), (1, 3, 1), (1, 2, 3)]
    kinds = [Mutation(start, stop, b"\0" * came).kind for start, stop, came in cases]
    assert kinds == ["snv", "mnv", "insertion", "deletion", "complex", "complex"]


def test_mutations_must_be_sorted_separate_and_inside() -> None:
    reference = encode_bases("ACGTACGT")
    for mutations in ([(3, 4), (1, 2)], [(1, 3), (2, 4)], [(7, 9)], [(3, 2)]):
        with pytest.raises(ValueError, match="sorted, not overlapping and within 8 bases"):
            apply_mutations(reference, [Mutation(start, stop, b"\0") for start, stop in mutations])


def planted(rates: Rates, length: int = 200_000, seed: int = 0) -> tuple[np.ndarray, list[Mutation]]:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 4, length, dtype=np.uint8)
    return reference, simulate(reference, rates, rng)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 14]), max_size=60),
    st.floats(0, 1),
    st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=4, max_size=4).filter(any),
    st.integers(1, 5),
    st.integers(0, 2**32),
)
def test_simulated_mutations_lie_apart_on_plain_bases(
    letters: list[int], rate: float, shares: list[float], longest: int, seed: int
) -> None:
    reference = np.array(letters, np.uint8)
    rates = Rates(rate, *shares, longest=longest)
    mutations = simulate(reference, rates, np.random.default_rng(seed))
    assert mutations == simulate(reference, rates, np.random.default_rng(seed))
    for before, after in pairwise(mutations):
        assert after.start > before.stop
    for start, stop, inserted in mutations:
        kind = Mutation(start, stop, inserted).kind
        assert kind != "complex" and shares[["snv", "mnv", "insertion", "deletion"].index(kind)] > 0
        assert max(stop - start, len(inserted)) <= (max(2, longest) if kind == "mnv" else longest)
        assert (reference[start : stop + (start == stop)] < 4).all() and all(code < 4 for code in inserted)
        if kind in ("snv", "mnv"):
            assert all(old != new for old, new in zip(reference[start:stop].tolist(), inserted, strict=True))
        else:
            assert start > 0 and stop < len(reference)
    sample = apply_mutations(reference, mutations)
    assert Counter(event.kind for event in sample.events) == Counter(mutation.kind for mutation in mutations)


def test_simulated_shares_sizes_and_rate() -> None:
    rates = Rates(rate=0.02, snv=4.0, mnv=1.0, insertion=2.0, deletion=3.0, longest=4)
    _, mutations = planted(rates)
    kinds = Counter(mutation.kind for mutation in mutations)
    total = len(mutations)
    assert 0.018 < total / 200_000 < 0.02  # 4,000 drawn, give or take 63, less those too near the one before
    for kind, share in {"snv": 0.4, "mnv": 0.1, "insertion": 0.2, "deletion": 0.3}.items():
        assert abs(kinds[kind] / total - share) < 4 * (share * (1 - share) / total) ** 0.5
    for kind, sizes in {"mnv": [2, 3, 4], "insertion": [1, 2, 3, 4], "deletion": [1, 2, 3, 4]}.items():
        counts = Counter(max(m.stop - m.start, len(m.inserted)) for m in mutations if m.kind == kind)
        assert sorted(counts) == sizes
        fair = kinds[kind] / len(sizes)
        assert all(abs(count - fair) < 4 * fair**0.5 for count in counts.values())


def test_log_sizes_make_each_doubling_equally_likely() -> None:
    _, mutations = planted(Rates(rate=0.01, snv=0.0, mnv=1.0, insertion=1.0, deletion=1.0, longest=15, sizes="log"))
    sizes = [max(m.stop - m.start, len(m.inserted)) for m in mutations if m.kind in ("insertion", "deletion")]
    counts = Counter(size.bit_length() for size in sizes)
    assert sorted(counts) == [1, 2, 3, 4] and max(sizes) == 15
    fair = len(sizes) / 4
    assert all(abs(count - fair) < 5 * fair**0.5 for count in counts.values())
    multiple = [m.stop - m.start for m in mutations if m.kind == "mnv"]
    assert min(multiple) == 2 and max(multiple) == 15


def test_copies_are_written_after_deletions() -> None:
    rng = np.random.default_rng(5)
    reference = rng.integers(0, 4, 20_000, np.uint8)
    mutations = simulate(reference, Rates(0.02, 1.0, 0.0, 1.0, 2.0, longest=6), rng)
    written = write_copies(reference, mutations, 0.5, rng)
    deletions = [m for m in mutations if m.kind == "deletion"]

    def copied(bases: np.ndarray) -> float:
        twice = [np.array_equal(bases[m.start : m.stop], bases[m.stop : 2 * m.stop - m.start]) for m in deletions]
        return sum(twice) / len(twice)

    assert copied(reference) < 0.2 and 0.4 < copied(written) < 0.7
    assert all(written[m.start : m.stop].tobytes() == reference[m.start : m.stop].tobytes() for m in mutations)
    changed = np.flatnonzero(written != reference)
    assert all(any(m.stop <= at < 2 * m.stop - m.start for m in deletions) for at in changed[:50])
    assert np.array_equal(write_copies(reference, mutations, 0.0, rng), reference)
    assert np.array_equal(write_copies(reference, [], 1.0, rng), reference)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 2.0, 10.0])
def test_transitions_to_transversions(ratio: float) -> None:
    reference, mutations = planted(Rates(snv=1.0, insertion=0.0, deletion=0.0, transitions=ratio))
    changes = Counter(("ACGT"[reference[m.start]], "ACGT"[m.inserted[0]]) for m in mutations)
    transitions = sum(changes[pair] for pair in [("A", "G"), ("G", "A"), ("C", "T"), ("T", "C")])
    share = ratio / (1 + ratio)
    total = sum(changes.values())
    assert abs(transitions / total - share) <= 4 * (share * (1 - share) / total) ** 0.5
    others = [count for (old, new), count in changes.items() if {old, new} not in ({"A", "G"}, {"C", "T"})]
    assert len(others) == 8 and max(others) - min(others) < 8 * np.mean(others) ** 0.5


def test_inserted_bases_are_uniform() -> None:
    _, mutations = planted(Rates(rate=0.05, snv=0.0, insertion=1.0, deletion=0.0))
    counts = Counter(code for mutation in mutations for code in mutation.inserted)
    fair = sum(counts.values()) / 4
    assert sorted(counts) == [0, 1, 2, 3] and all(abs(count - fair) < 4 * fair**0.5 for count in counts.values())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rate": 1.5}, "rate must be events per base between 0 and 1, got 1.5"),
        ({"rate": float("nan")}, "rate must be events per base between 0 and 1, got nan"),
        ({"insertion": -0.1}, "insertion must be a number of at least 0, got -0.1"),
        ({"transitions": float("inf")}, "transitions must be a number of at least 0, got inf"),
        (
            {"snv": 0.0, "insertion": 0.0, "deletion": 0.0},
            "one of snv, mnv, insertion and deletion must be above 0, all are 0",
        ),
        ({"longest": 0}, "longest must be at least 1 base, got 0"),
    ],
)
def test_rates_that_make_no_sense(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        Rates(**wrong)
    assert str(error.value) == words
