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
from genoattn.data.tokenizers.kmer import KmerTokenizer
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


def test_bases_of_an_interleaved_context_alternate():
    bases, pad = np.array([0, 1, 2, 3], np.uint8), NucleotideTokenizer.pad_id
    same, short = Example(bases, None, {}, (), bases[::-1]), Example(bases[:3], None, {}, (), bases[::-1])
    long = Example(bases, None, {}, (), bases[:2])
    batch = collate([same, short, long], NucleotideTokenizer(), context_format=Paired("interleaved").context_format)
    assert batch.ids.tolist() == [[3, 0, 2, 1, 1, 2, 0, 3], [3, 0, 2, 1, 1, 2, 0, pad], [0, 0, 1, 1, pad, 2, pad, 3]]
    assert batch.position_ids is not None and batch.position_ids.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 3
    assert batch.segment_ids is not None and batch.segment_ids.tolist() == [[0, 1] * 4] * 3
    assert batch.padding_mask.long().tolist() == [[1] * 8, [1] * 7 + [0], [1, 1, 1, 1, 0, 1, 0, 1]]
    assert batch.base_to_answer is not None
    assert batch.base_to_answer.tolist() == [[1, 3, 5, 7], [1, 3, 5, -1], [1, 3, 5, 7]]


def test_hidden_bases_of_an_interleaved_sample_are_masked_there_alone():
    task = Paired("interleaved", mask_fraction=0.3)
    example, _ = make(task, 40, SNVS, 1)
    assert example.masking is not None and example.reference is not None
    batch = collate([example], NucleotideTokenizer(), context_format=task.context_format)
    hidden = example.masking == MASK
    assert batch.ids[0, 0::2].tolist() == example.reference.tolist()
    assert ((batch.ids[0, 1::2].numpy() == NucleotideTokenizer.mask_id) == hidden).all() and hidden.any()


@CASES
@given(st.sampled_from(["concatenated", "interleaved"]), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**32))
def test_the_offset_leads_to_the_counterpart(layout: Any, most: int, shift: int, seed: int):
    """The indels before a base, counted one by one, move it; masked bases have an offset too."""
    task = Paired(layout, shift=shift, mask_fraction=0.2, max_offset=most, offset_weight=1.0)
    example, _ = make(task, 60, INDELS, seed)
    assert example.distance is not None and task.outputs["offset"].classes == 2 * most + 1
    start = None
    for base, offset in enumerate((example.targets["offset"].astype(int) - most).tolist()):
        gone = sum(event.size for event in example.events if event.kind == "deletion" and event.start <= base)
        came = sum(min(max(base - event.start, 0), event.size) for event in example.events if event.kind == "insertion")
        if example.targets["offset"][base] != IGNORE_INDEX:
            start = offset - gone + came if start is None else start
            assert offset == start + gone - came and abs(start) <= shift
        if example.distance[base] != -1:
            drift = example.distance[base] if layout == "interleaved" else 61 - example.distance[base]
            assert (abs(drift) <= most) == (example.targets["offset"][base] != IGNORE_INDEX)
            assert abs(drift) == abs(offset) or abs(drift) > most


def test_a_drift_of_any_size_is_as_likely_as_its_half():
    task, drifts = Paired("interleaved", drift=40), []
    for seed in range(300):
        example, _ = make(task, 50, Rates(0.0), seed)
        assert example.distance is not None and example.reference is not None
        inside = example.distance >= 0
        (drift,) = {*example.distance[inside].tolist()}
        ahead = inside[0] and (example.reference[drift:] == example.bases[: 50 - drift]).all()
        behind = inside[-1] and (example.reference[: 50 - drift] == example.bases[drift:]).all()
        assert inside.sum() == 50 - drift and ahead != (behind and drift > 0)
        drifts.append(-drift if ahead else drift)
    assert min(drifts) < -32 and max(drifts) > 32 and not task.same_start
    bins = np.bincount([abs(drift).bit_length() for drift in drifts])
    assert len(bins) == 7 and bins.min() > 25  # 300 / 7 = 43 of each


@pytest.mark.parametrize("other", [0.0, 1.0])
def test_large_indels_move_a_sample(other: float):
    structure = {"large_insertion": 0.01, "large_deletion": 0.01, "structure_shortest": 15, "structure_longest": 30}
    task = Paired("interleaved", rate=0.0, reverse_strand_fraction=other, **structure)
    kinds: set[str] = set()
    for seed in range(20):
        example, reference = make(task, 100, Rates(0.0), seed)
        source = (reverse_complement(reference) if other else reference).tobytes()
        kinds |= {event.kind for event in example.events}
        assert all(15 <= event.size <= 30 or event.kind == "insertion" for event in example.events)
        begin = 0
        for event in example.events:  # what lies between two events is as in the reference
            assert example.bases[begin : event.start].tobytes() in source
            begin = event.stop if event.kind == "insertion" else event.start
        assert example.bases[begin:].tobytes() in source and len(example.bases) == 100
    assert kinds == {"insertion", "deletion"}


@CASES
@given(st.integers(0, 6), st.integers(0, 2**32))
def test_a_piece_starts_afresh_at_its_true_counterpart(drift: int, seed: int):
    """Where a base is unchanged, the reference base that lies `offset` away in its own piece is the same."""
    every, most = 30, 6
    settings = {"max_offset": most, "offset_weight": 1.0, "realign_every": every, "drift": drift}
    example, _ = make(Paired("interleaved", **settings), 100, INDELS, seed)
    assert example.reference is not None and example.distance is not None
    sizes = [30, 30, 30, 10]
    assert len(example.reference) == len(example.bases) == 100 + 3 * 2 * most
    begin, compared = 0, 0
    changed = (example.targets["substitution"] == 1) | (example.targets["insertion"] == 1)
    for number, size in enumerate(sizes):
        piece, offsets = slice(begin, begin + size), example.targets["offset"][begin : begin + size].astype(int)
        if number and not changed[begin] and example.targets["deletion"][begin] == 0:
            assert offsets[0] == most
        for base in np.flatnonzero((offsets != IGNORE_INDEX) & ~changed[piece]).tolist():
            assert 0 <= base + offsets[base] - most < size
            assert example.reference[begin + base + offsets[base] - most] == example.bases[begin + base]
            compared += 1
        between = slice(begin + size, begin + size + 2 * most)
        assert (example.bases[between] == 14).all() and (example.reference[between] == 14).all()
        assert all((target[between] == IGNORE_INDEX).all() for target in example.targets.values())
        assert (example.distance[between] == -1).all()
        begin += size + 2 * most
    assert compared > 30
    short, _ = make(Paired("interleaved", **settings), every, INDELS, seed)
    assert len(short.bases) == every


@pytest.mark.parametrize(("tokenizer", "fits"), [(KmerTokenizer(3, True), True), (KmerTokenizer(3), False)])
def test_interleaved_tokens_own_one_base(tokenizer: KmerTokenizer, fits: bool):
    reason = Paired("interleaved").refuse(tokenizer.max_token_length, causal=False)
    assert (reason == "") == fits and (fits or "needs one token per base" in reason)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shift": -1}, "task.shift must be 0 or more bases, got -1"),
        ({"drift": -1}, "task.drift must be 0 or more bases, got -1"),
        ({"large_deletion": 1.5}, "task.large_deletion must be events per base between 0 and 1, got 1.5"),
        ({"reverse_strand_fraction": 1.5}, "task.reverse_strand_fraction must be a share between 0 and 1, got 1.5"),
        ({"mask_fraction": -0.1}, "task.mask_fraction must be a share between 0 and 1, got -0.1"),
        ({"masked_weight": -1.0}, "task.masked_weight must be at least 0, got -1.0"),
        ({"offset_weight": -1.0}, "task.offset_weight must be at least 0, got -1.0"),
        ({"realign_every": 100}, "task.realign_every=100 cuts .* needs task.layout=interleaved"),
        (
            {"layout": "interleaved", "realign_every": 16},
            "must be above 16 bases .twice task.max_offset., .* got 16",
        ),
        ({"max_offset": 64}, "task.max_offset must be between 0 and 63 bases, got 64"),
        ({"layout": "interleaved", "restart_positions": False}, "needs task.restart_positions=true, got false"),
    ],
)
def test_mistakes_read_well(settings: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        Paired(**settings)
