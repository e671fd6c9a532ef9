"""Anchors place the bases of a sample where they come from; the chain leaves out what does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.genome import anchors as module
from genoattn.genome.anchors import Anchor, anchor_length, chain, chained_anchors, place_by_anchors
from genoattn.genome.mutations import Mutation, apply_mutations
from genoattn.genome.simulate import Rates, simulate

CASES = settings(deadline=None, max_examples=40)


def random(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, length, dtype=np.uint8)


def placed(reference: np.ndarray, sample: np.ndarray) -> list[int]:
    anchors = chained_anchors(reference, sample)
    return [place_by_anchors(reference, sample, anchors, base) for base in range(len(sample))]


@CASES
@given(st.integers(300, 900), st.integers(0, 2**32))
def test_snvs_and_large_indels_leave_every_base_in_its_place(length: int, seed: int):
    rng, reference = np.random.default_rng(seed), random(length, seed)
    snvs = [snv for snv in simulate(reference[: length // 2 - 60], Rates(0.02, 1.0, 0.0, 0.0, 0.0), rng) if snv.start]
    inserted = rng.integers(0, 4, int(rng.integers(20, 200)), dtype=np.uint8).tobytes()
    middle = length // 2
    indel = Mutation(middle, middle, inserted) if rng.random() < 0.5 else Mutation(middle, middle + 40, b"")
    sample = apply_mutations(reference, [*snvs, indel])
    away = np.abs(np.array(placed(reference, sample.bases)) - sample.reference_position)
    border = range(sample.events[-1].earliest, sample.events[-1].latest + 1)  # equivalent places
    assert not away[[base for base in range(len(away)) if base not in border]].any()


@CASES
@given(st.integers(0, 2**32))
def test_small_indels_displace_few_bases_and_little(seed: int):
    reference = random(3000, seed)
    mutations = simulate(reference, Rates(0.01, 0.7, 0.0, 0.15, 0.15, longest=6), np.random.default_rng(seed))
    sample = apply_mutations(reference, mutations)
    away = np.abs(np.array(placed(reference, sample.bases)) - sample.reference_position)
    assert (away == 0).mean() > 0.97 and (away <= 12).all()


def test_a_place_is_followed_beyond_both_sequences():
    reference = random(200)
    assert placed(reference[50:], reference) == list(range(-50, 150))
    assert placed(reference[:150], reference) == list(range(200))
    assert placed(reference, reference[50:]) == list(range(50, 200))


def test_a_repeat_is_placed_by_what_stands_around_it():
    unit = random(60, 1)
    reference = np.concatenate([random(100, 2), unit, random(100, 3), unit, random(100, 4)])
    assert placed(reference, reference) == list(range(420))


def test_without_a_shared_kmer_there_is_no_anchor():
    assert chained_anchors(random(3), random(400)) == [] == chained_anchors(random(400), np.full(400, 14, np.uint8))
    assert sum(anchor.stop - anchor.start for anchor in chained_anchors(random(400), random(400, 1))) < 40  # by chance


def test_anchors_are_long_enough_to_be_rare():
    assert [anchor_length(bases) for bases in (1, 2**9, 2**9 + 1, 2_821_361)] == [4, 8, 9, 15]


@pytest.mark.parametrize(("look_back", "expected"), [(4, 4), (1, 3)])
def test_an_anchor_follows_one_of_those_that_are_near(look_back: int, expected: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LOOK_BACK", look_back)
    stray = Anchor(60, 80, 5000)
    anchors = [Anchor(0, 20, 0), Anchor(30, 50, 0), stray, Anchor(90, 110, 0), Anchor(120, 140, 0)]
    chained = chain(anchors)
    assert len(chained) == expected and (stray in chained) == (look_back == 1)
