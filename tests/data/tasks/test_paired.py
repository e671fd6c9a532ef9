"""Labels of the paired task are those that a slow comparison gives, on both strands and from any start."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.data.batch import collate
from genoattn.data.example import MASK, Example
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.paired import Paired
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.simulate import Rates

CASES = settings(deadline=None, max_examples=60)
SNVS = Rates(0.15, 1.0, 0.0, 0.0, 0.0)
INDELS = Rates(0.1, 1.0, 0.0, 1.0, 1.0, longest=4)


def make(task: Paired, length: int, rates: Rates, seed: int) -> tuple[Example, np.ndarray]:
    """An example, and the stretch of reference that it was made from."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 4, task.reference_length(length), dtype=np.uint8)
    return task.example(reference, length, rates, rng), reference


def known(example: Example) -> np.ndarray:
    return example.targets["substitution"] != IGNORE_INDEX


@CASES
@given(st.integers(1, 80), st.integers(0, 2**32))
def test_without_indels_and_shift_bases_that_differ_are_labelled(length: int, seed: int):
    example, _ = make(Paired(), length, SNVS, seed)
    assert example.reference is not None and len(example.reference) == len(example.bases) == length
    assert example.targets["substitution"].tolist() == (example.reference != example.bases).astype(int).tolist()
    assert not example.targets["insertion"].any() and not example.targets["deletion"].any()


@CASES
@given(st.integers(40, 80), st.integers(0, 20), st.booleans(), st.integers(0, 2**32))
def test_a_shifted_sample_of_either_strand_is_compared_where_it_belongs(
    length: int, shift: int, other: bool, seed: int
):
    example, _ = make(Paired(shift=shift, reverse_strand_fraction=float(other)), length, SNVS, seed)
    assert example.reference is not None
    visible = reverse_complement(example.reference) if other else example.reference
    target = example.targets["substitution"]
    fits = []
    for offset in range(-shift, shift + 1):
        place = np.arange(len(target)) + offset
        inside = (place >= 0) & (place < length)
        differs = visible[place[inside]] != example.bases[inside]
        fits.append(np.array_equal(inside, target != IGNORE_INDEX) and np.array_equal(differs, target[inside] == 1))
    assert sum(fits) == 1  # one offset explains which bases have labels


@CASES
@given(st.booleans(), st.integers(0, 2**32))
def test_indels_are_labelled_on_the_strand_of_the_sample(other: bool, seed: int):
    task = Paired(shift=5, reverse_strand_fraction=float(other))
    example, reference = make(task, 60, INDELS, seed)
    source = reverse_complement(reference) if other else reference
    labelled = known(example)
    for event in example.events:
        if event.kind in ("insertion", "deletion"):
            assert example.targets[event.kind][event.start] in (1, IGNORE_INDEX)
            if labelled[event.start]:
                assert example.targets[event.kind][event.start] == 1
    quiet = labelled.copy()
    for event in example.events:
        quiet[event.start : event.stop] = False
    text, whole = example.bases.tobytes(), source.tobytes()
    begin = 0
    for end in [*np.flatnonzero(~quiet & labelled).tolist(), len(text)]:  # unchanged runs occur in the reference
        run = text[begin:end]
        assert run in whole or not labelled[begin:end].all()
        begin = end + 1


@CASES
@given(st.integers(0, 2**32))
def test_hidden_bases_are_to_be_restored_and_nothing_else(seed: int):
    example, _ = make(Paired(mask_fraction=0.3), 100, SNVS, seed)
    assert example.masking is not None and example.reference is not None
    hidden = example.masking == MASK
    assert 0 < hidden.sum() < 100
    for name in ("substitution", "insertion", "deletion"):
        assert ((example.targets[name] == IGNORE_INDEX) == hidden).all()
    same = example.reference == example.bases
    expected = np.where(hidden & same, example.bases.astype(int), IGNORE_INDEX)
    assert example.targets["restore"].tolist() == expected.tolist()
    batch = collate([example], NucleotideTokenizer(), context_format=Paired(mask_fraction=0.3).context_format)
    visible = batch.ids[0, 101:].numpy()
    assert (visible[hidden] == NucleotideTokenizer.mask_id).all() and (visible[~hidden] == example.bases[~hidden]).all()


def test_both_sequences_are_in_one_context():
    task = Paired(restart_positions=True)
    example, _ = make(task, 6, SNVS, 3)
    assert example.reference is not None
    batch = collate([example], NucleotideTokenizer(), context_format=task.context_format)
    separator = NucleotideTokenizer.vocabulary_size
    assert batch.ids.tolist() == [[*example.reference.tolist(), separator, *example.bases.tolist()]]
    assert batch.segment_ids is not None and batch.segment_ids.tolist() == [[0] * 7 + [1] * 6]
    assert batch.position_ids is not None and batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5]]
    assert batch.base_to_answer is not None and batch.base_to_answer.tolist() == [[7, 8, 9, 10, 11, 12]]
    assert batch.bases == 12
    running = collate([example], NucleotideTokenizer(), context_format=Paired(restart_positions=False).context_format)
    assert running.position_ids is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shift": -1}, "task.shift must be 0 or more bases, got -1"),
        ({"reverse_strand_fraction": 1.5}, "task.reverse_strand_fraction must be a share between 0 and 1, got 1.5"),
        ({"mask_fraction": -0.1}, "task.mask_fraction must be a share between 0 and 1, got -0.1"),
        ({"masked_weight": -1.0}, "task.masked_weight must be at least 0, got -1.0"),
    ],
)
def test_mistakes_read_well(settings: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        Paired(**settings)
