"""k-mer chaining: isolated mutations are called on either strand and at any start; equal sequences give no call."""

import numpy as np
import pytest

from genoattn.data.tasks.paired import Paired
from genoattn.evaluation.baselines.kmer_chaining import KmerCaller
from genoattn.evaluation.detection.detectors import kmer_lookup
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.anchors import Anchor, chain, find_anchors
from genoattn.genome.mutations import Mutation, apply_mutations
from genoattn.genome.simulate import Rates
from genoattn.genome.structural_variants import StructuralVariant, apply_structural

CALL = KmerCaller()


def random(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, length, dtype=np.uint8)


def called_bases(calls: tuple) -> list[list[int]]:
    return [np.flatnonzero(mask).tolist() for mask in calls]


def mutations(reference: np.ndarray) -> dict[str, Mutation]:
    at = 150
    return {
        "snv": Mutation(at, at + 1, bytes([reference[at] ^ 2])),
        "mnv": Mutation(at, at + 3, bytes((reference[at : at + 3] ^ 1).tolist())),
        "insertion": Mutation(at, at, b"\0\1\2\3\3"),
        "deletion": Mutation(at, at + 4, b""),
        "long insertion": Mutation(at, at, random(60, 9).tobytes()),
        "long deletion": Mutation(at, at + 60, b""),
        "duplication": Mutation(at, at, reference[at - 7 : at].tobytes()),
    }


@pytest.mark.parametrize("kind", list(mutations(random(400))))
@pytest.mark.parametrize("other", [False, True])
def test_an_isolated_mutation_is_called(kind: str, other: bool):
    for seed, shift in enumerate(range(-60, 61, 6)):
        whole = random(400, seed)
        sample = apply_mutations(whole, [mutations(whole)[kind]])
        reference = whole[:shift] if shift < 0 else whole[shift:]
        calls = CALL(reverse_complement(reference) if other else reference, sample.bases)
        assert called_bases(calls) == [*called_bases((sample.substituted, sample.inserted, sample.deleted_before)), []]


def test_equal_sequences_give_no_call():
    reference = random(300)
    for sample in (reference, reference[40:200], reverse_complement(reference), reverse_complement(reference)[10:90]):
        assert called_bases(CALL(reference, sample)) == [[], [], [], []]


def test_unrelated_sequences_give_no_call():
    for reference, sample in ((random(300), random(300, 1)), (random(3), random(200)), (random(200), random(3))):
        assert called_bases(CALL(reference, sample)) == [[], [], [], []]
    unknown = np.full(100, 14, np.uint8)
    assert called_bases(CALL(unknown, unknown)) == [[], [], [], []]


@pytest.mark.parametrize("other", [False, True])
def test_an_isolated_inversion_is_called(other: bool):
    for seed, size in enumerate(range(30, 120, 3)):
        whole = random(400, seed)
        sample = apply_structural(whole, [], [StructuralVariant("inversion", 150, 150 + size, size)])
        (event,) = sample.events
        calls = CALL(reverse_complement(whole) if other else whole, sample.bases)
        assert called_bases(calls) == [[], [], [], list(range(event.start, event.stop))]


def test_an_indel_in_a_repeat_is_left_aligned():
    unit = np.array([0, 1, 3], np.uint8)
    left, right = random(100, 3), random(100, 4)
    left[-1], right[0] = 2, 2
    reference = np.concatenate([left, np.tile(unit, 6), right])
    longer = apply_mutations(reference, [Mutation(109, 109, unit.tobytes())])
    assert called_bases(CALL(reference, longer.bases)) == [[], [100, 101, 102], [], []]
    shorter = apply_mutations(reference, [Mutation(109, 112, b"")])
    assert called_bases(CALL(reference, shorter.bases)) == [[], [], [100], []]


def test_a_repeated_stretch_is_placed_by_its_flanks():
    copy = random(60, 5)
    reference = np.concatenate([random(100, 1), copy, random(100, 2), copy, random(100, 3)])
    sample = apply_mutations(reference, [Mutation(285, 286, bytes([reference[285] ^ 3]))])  # within the second copy
    assert called_bases(CALL(reference, sample.bases)) == [[285], [], [], []]


def test_anchors_occur_once_in_both_strands():
    reference = np.array([0, 0, 1, 2, 0, 0, 1, 3, 1], np.uint8)  # AACGAACTC
    other = reverse_complement(reference)  # GAGTTCGTT
    places = find_anchors(reference, other, np.array([0, 0, 1, 3, 1, 14, 2, 3, 3], np.uint8), 3)  # AACTCNGTT
    # AAC occurs twice, ACT and CTC once, a k-mer with N never; GTT is AAC of the other strand.
    assert places.tolist() == [[-1, 5, 6, -1, -1, -1, -1], [-1, -1, -1, -1, -1, -1, -1]]
    turned = find_anchors(reference, other, other, 3)
    assert turned[1].tolist() == [0, 1, -1, 3, 4, 5, -1] and (turned[0] == -1).all()


def test_the_chain_skips_anchors_that_lie_elsewhere():
    true = [Anchor(0, 20, 5), Anchor(22, 50, 5), Anchor(50, 80, 7)]
    chance = [Anchor(24, 33, 300), Anchor(60, 70, -40)]
    assert chain(sorted(true + chance)) == true
    assert chain([]) == []


def test_the_detector_does_well_where_events_are_rare():
    task = Paired(shift=40, reverse_strand_fraction=0.5)
    rng = np.random.default_rng(0)
    rates = Rates(0.005)
    examples = [task.example(random(task.reference_length(400), seed), 400, rates, rng) for seed in range(20)]
    scores = np.concatenate(kmer_lookup()(examples))
    for column, name in enumerate(("substitution", "insertion", "deletion")):
        truth = np.concatenate([example.targets[name] for example in examples])
        called = scores[:, column] == 1
        right = (called & (truth == 1)).sum()
        assert right / (truth == 1).sum() > 0.8 and right / called[truth >= 0].sum() > 0.8, name


@pytest.mark.parametrize("length", [1, 5, 20])
def test_short_samples_raise_no_error(length: int):
    assert all(len(mask) == length for mask in CALL(random(50), random(50)[:length]))
