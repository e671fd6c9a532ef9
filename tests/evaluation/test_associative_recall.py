"""Associative recall: windows are read slowly by hand, nothing gives a value away, and whole runs are evaluated."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.cli.main import main
from genoattn.data.batch import collate
from genoattn.data.example import MASK, Example, Query
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.associative_recall import AssociativeRecall
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.evaluation.baselines.exact_match import exact_match
from genoattn.evaluation.metrics import Replicates
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.simulate import Rates

PAIR = str.maketrans("ACGT", "TGCA")
KINDS = st.fixed_dictionaries(
    {
        "haystack": st.sampled_from(["genome", "random"]),
        "pairs": st.integers(1, 3),
        "key": st.integers(10, 16),
        "value": st.integers(2, 6),
        "distractor_mismatches": st.sampled_from([None, 1, 2, 4]),
        "distractors": st.integers(1, 3),
        "reverse_strand_fraction": st.sampled_from([0.0, 0.5, 1.0]),
        "distance": st.sampled_from([None, (20, 200), (300, 10_000)]),
        "form": st.sampled_from(["masked", "causal"]),
        "queries": st.sampled_from(["among", "after", "before"]),
    }
).filter(lambda kinds: possible(**kinds))


def possible(form: str, queries: str, distance: tuple[int, int] | None, **_: Any) -> bool:
    """Queries before the haystack do not suit a causal model; distances of 20 to 200 bases leave no room beside it."""
    return (form, queries) != ("causal", "before") and (queries == "among" or distance != (20, 200))


def opposite_strand(letters: str) -> str:
    return letters.translate(PAIR)[::-1]


def window(task: AssociativeRecall, length: int, seed: int) -> Example:
    rng = np.random.default_rng(seed)
    reference = rng.choice(5, length, p=[0.34, 0.15, 0.15, 0.34, 0.02]).astype(np.uint8)
    reference[reference == 4] = 14  # some N
    return task.example(reference, length, Rates(), rng)


def occurrences(text: str, word: str) -> list[int]:
    """The positions of a word and of its reverse complement in a text; they may overlap."""
    return [at for letters in (word, opposite_strand(word)) for at in range(len(text)) if text.startswith(letters, at)]


@settings(deadline=None, max_examples=40)
@given(KINDS, st.integers(0, 2**32))
def test_keys_values_and_distractors_lie_where_the_query_says(kinds: dict[str, Any], seed: int):
    task = AssociativeRecall(**kinds)
    example = window(task, 800, seed)
    haystack = np.zeros(0, np.uint8) if example.reference is None else example.reference
    own, lead = len(example.bases), len(haystack)
    assert (own, lead) == ((800, 0) if kinds["queries"] == "among" else (task.pairs * task.placement.unit, 800))
    text, labelled = decode_bases(np.concatenate([haystack, example.bases])), np.zeros(own, np.bool_)
    offsets_of = {"among": (0, 0), "after": (801, 0), "before": (0, own + 1)}  # of the queries, of the haystack
    offsets = offsets_of[kinds["queries"]]
    assert len(example.queries) == task.pairs
    for begin_base, end_base, needle, reverse, distance, distractors in example.queries:
        start, stop = begin_base + lead, end_base + lead
        key, value = text[start - task.key : start], text[start:stop]
        assert stop - start == task.value and len(distractors) == task.distractors
        units = []
        for at in (needle, *distractors):  # on the other strand the value comes first, then the turned key
            begin = at if reverse else at - task.key
            unit = text[begin : begin + task.key + task.value]
            units.append((begin, opposite_strand(unit) if reverse else unit))
        assert units[0][1] == key + value
        first = offsets[0] + begin_base - task.key, offsets[1] + units[0][0]
        assert (
            distance == abs(first[0] - first[1]) >= task.placement.unit
            and (first[0] < first[1]) == example.sample_first
        )
        if task.distance:
            assert task.distance[0] <= distance - (task.segment_count - 1) <= task.distance[1]
        assert sorted(occurrences(text, key)) == sorted(
            [start - task.key, units[0][0] + (task.value if reverse else 0)]
        )
        keys, values = [unit[: task.key] for _, unit in units], [unit[task.key :] for _, unit in units]
        assert len(set(values)) == len(values)
        for number, key in enumerate(keys[1:], 1):
            assert len(occurrences(text, key)) == 1
            for other in keys[:number]:  # the needle's key, and those of earlier distractors
                assert sum(a != b for a, b in zip(key, other, strict=True)) == task.distractor_mismatches
        labelled[begin_base - (task.form == "causal") : end_base - (task.form == "causal")] = True
        matched = exact_match(example, Query(begin_base, end_base, 0, False, 0), task)
        assert (matched == example.bases[begin_base:end_base]).all()
    target = example.targets["value"]
    assert ((target != IGNORE_INDEX) == labelled).all()
    if task.form == "causal":
        assert example.masking is None and (target[:-1][labelled[:-1]] == example.bases[1:][labelled[:-1]]).all()
    else:
        assert example.masking is not None and ((example.masking == MASK) == labelled).all()
        batch = collate([example], NucleotideTokenizer())
        ids = batch.ids[0].numpy()
        query_ids = ids[offsets[0] :][:own]
        assert (query_ids[labelled] == NucleotideTokenizer.mask_id).all()
        assert (query_ids[~labelled] == example.bases[~labelled]).all()
        if lead:
            assert (ids[offsets[1] :][:lead] == haystack).all()
            assert ids[max(offsets) - 1] == NucleotideTokenizer().vocabulary_size
            assert batch.base_to_answer is not None and batch.segment_ids is not None
            assert batch.base_to_answer[0].tolist() == list(range(offsets[0], offsets[0] + own))
            assert batch.segment_ids[0].nonzero()[:, 0].tolist() == batch.base_to_answer[0].tolist()


def test_an_example_is_a_function_of_its_generator():
    task = AssociativeRecall(distractor_mismatches=2, reverse_strand_fraction=0.5)
    first, second, other = (window(task, 600, seed) for seed in (3, 3, 4))
    assert first.queries == second.queries and (first.bases == second.bases).all()
    assert first.queries != other.queries


def test_distances_are_uniform_on_a_log_scale():
    task = AssociativeRecall(pairs=1, key=8, value=4, distance=(12, 3072))
    distances = [window(task, 4096, seed).queries[0].distance for seed in range(200)]
    counts = np.histogram(np.log2(distances), bins=np.log2([12, 48, 192, 768, 3073]))[0]
    assert counts.sum() == 200 and (np.abs(counts - 50) < 22).all()


@pytest.mark.parametrize("form", ["masked", "causal"])
def test_only_the_key_distinguishes_a_needle_from_its_distractors(form: Any):
    """A rule that ignores the query is right half of the time, whether it reads positions or bases."""
    task = AssociativeRecall(
        pairs=1,
        key=8,
        value=4,
        distractor_mismatches=1,
        distractors=1,
        distance=(12, 500),
        reverse_strand_fraction=0.5,
        form=form,
    )
    right = {"nearest": 0, "first": 0, "richer in G and C": 0, "greater at the base that differs": 0}
    count = 250
    for seed in range(count):
        example = window(task, 512, seed)
        (query,) = example.queries
        positions = [query.needle, *query.distractors]
        shift = 4 if query.reverse_strand else -8
        keys = [example.bases[at + shift : at + shift + 8] for at in positions]
        gc = [np.isin(example.bases[at : at + 4], [1, 2]).sum() for at in positions]
        right["nearest"] += abs(query.start - positions[0]) < abs(query.start - positions[1])
        right["first"] += positions[0] < positions[1]
        right["richer in G and C"] += (gc[0] > gc[1]) + 0.5 * (gc[0] == gc[1])
        right["greater at the base that differs"] += tuple(keys[0]) > tuple(keys[1])
    assert all(abs(share / count - 0.5) < 0.12 for share in right.values()), right


def test_bases_are_as_frequent_as_in_the_haystack():
    task = AssociativeRecall(pairs=4, key=16, value=8)
    examples = [window(task, 512, seed) for seed in range(40)]
    units = np.concatenate([example.bases[q.start - 16 : q.stop] for example in examples for q in example.queries])
    shares = np.bincount(units, minlength=4) / len(units)
    np.testing.assert_allclose(shares, [0.347, 0.153, 0.153, 0.347], atol=0.03)


def test_exact_match_by_hand():
    text = "TTTTACGTACCAGGGG" + "CCCCGGTACTTTT"  # the key ACGTACC, once more as its reverse complement GGTACGT
    bases = np.array(["ACGT".index(letter) for letter in text], np.uint8)
    task = AssociativeRecall(key=7, value=2)
    hidden = np.zeros(len(bases), np.uint8)
    hidden[11:13] = MASK
    example = Example(bases, None, {}, (), masking=hidden)
    # the last bases of the key, GTACC, occur on the other strand after CC: the value is GG
    assert exact_match(example, Query(11, 13, 0, True, 0), task).tolist() == [2, 2]
    nothing = Example(np.zeros(12, np.uint8), None, {}, (), masking=np.full(12, MASK, np.uint8))
    assert exact_match(nothing, Query(7, 9, 0, True, 0), task).tolist() == [0, 0]


def test_a_shorter_window_has_as_many_queries_as_fit():
    task = AssociativeRecall(pairs=4, key=10, value=4, distractor_mismatches=1)
    assert task.reference_length(400) == 400
    assert [len(window(task, length, 0).queries) for length in (90, 200, 400)] == [1, 2, 4]


@pytest.mark.parametrize(
    ("kinds", "length", "sentence"),
    [
        ({"pairs": 9}, 512, "task.pairs=9 queries, each with 1 needle(s) of 32 bases, take 576 bases, more than half"),
        ({"key": 7}, 512, "task.key must be at least 8 to be unique among 512 bases of data.length, got 7"),
        ({"distance": (500, 600)}, 512, "task.distance begins at 500 bases, and a needle and its query in"),
        ({"distance": (5, 2)}, 0, "task.distance must be null or [fewest, most] bases, got [5, 2]"),
        (
            {"distractor_mismatches": 25},
            0,
            "task.distractor_mismatches must be null or lie within 1 and the 24 bases of task.key, got 25",
        ),
        ({"distractor_mismatches": 1, "distractors": 4}, 0, "task.distractors must be 1, 2 or 3"),
        ({"value": 0}, 0, "task.value must be at least 1, got 0"),
        ({"queries": "before", "form": "causal"}, 0, 'task.queries="before" puts queries before needles'),
        ({"reverse_strand_fraction": 1.5}, 0, "task.reverse_strand_fraction must be a share between 0 and 1, got 1.5"),
    ],
)
def test_impossible_settings_are_refused(kinds: dict[str, Any], length: int, sentence: str):
    with pytest.raises(UserError, match=re.escape(sentence)):
        AssociativeRecall(**kinds).reference_length(length)


def test_windows_without_room_are_refused():
    task = AssociativeRecall(pairs=4, distance=(470, 480))
    with pytest.raises(UserError, match="found no place in a window of 512 bases"):
        window(task, 512, 0)
    with pytest.raises(UserError, match=r"a window of 100 bases, as curriculum\.length has it, cannot hold"):
        window(task, 100, 0)


BY = ("distance", "strand", "distractor_mismatches")
SMALL = ("experiment=smoke", "task=recall", "task.pairs=1", "task.key=8", "task.value=2", "curriculum=none")
SMALL += ("trainer.threads=1", "data.length=96", "test.windows=12", "test.resamples=5")


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("genome") / "random.fa"
    file.write_text(f">chr\n{decode_bases(np.random.default_rng(1).integers(0, 4, 12_000, np.uint8))}\n")
    return file


@pytest.mark.usefixtures("alone", "quick")
@pytest.mark.parametrize(
    "words",
    [
        ("task.distractor_mismatches=1", "task.distance=[10,64]", "reverse_complement=average"),
        ("task.form=causal", "model.causal=true", "task.reverse_strand_fraction=0.5"),
        ("task.queries=before", "task.distractor_mismatches=1"),
    ],
    ids=["masked", "causal", "before"],
)
def test_a_run_is_evaluated_again_with_the_same_metrics(words: tuple[str, ...], fasta: Path, tmp_path: Path):
    given = (*SMALL, *words, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path}/run")
    assert main(["train", *given]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["model/test/all/queries"] == 12
    assert 0 <= metrics["model/test/all/exact"] <= metrics["model/test/all/accuracy"] <= 1
    assert metrics["exact_match/test/all/exact"] == metrics["exact_match/test/all/accuracy"] == 1
    assert {f"{name}/test/all/exact" for name in ("control", "untrained", "chance")} <= set(metrics)
    assert ("model/test/all/misled" in metrics) == ("task.distractor_mismatches=1" in words)
    replicates = Replicates.read(tmp_path / "run")
    assert str(replicates.primary_metric) == "model/test/all/exact"
    assert len(replicates.replicates[replicates.primary_metric]) == 5
    groups = {by: [group for group in replicates.subgroups if group.by == by] for by in BY}
    assert sum(group.count for group in groups["distance"]) == 12
    assert all(group.low and group.high == 2 * group.low for group in groups["distance"])
    strands = {group.name: group.count for group in groups["strand"]}
    assert sum(strands.values()) == 12 and ("reverse" in strands) == ("task.reverse_strand_fraction=0.5" in words)
    mismatches = "1" if "task.distractor_mismatches=1" in words else "none"
    assert [group.name for group in groups["distractor_mismatches"]] == [mismatches]
    assert (tmp_path / "run" / "plots" / "recall.png").is_file()
    again = ["evaluate", *SMALL[-3:], f"data.fasta={fasta}", f"checkpoint={tmp_path}/run"]
    assert main([*again, f"hydra.run.dir={tmp_path}/again"]) == 0
    metrics_again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert all(
        metrics_again[key] == pytest.approx(metrics[key], abs=1e-6) for key in metrics if key.startswith("model/")
    )


@pytest.mark.usefixtures("alone", "quick")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task.form=causal",), "needs model.causal=true, and it is false"),
        (("task.queries=left",), "task.queries: expected 'among', 'after' or 'before', got 'left'"),
        (("tokenizer=kmer", "tokenizer.k=3"), "task=recall predicts single bases"),
        (
            ("task.form=causal", "model.causal=true", "tokenizer=kmer", "tokenizer.k=3", "tokenizer.overlapping=true"),
            "an overlapping token already reads",
        ),
        (
            ("task.form=causal", "model.causal=true", "reverse_complement=average"),
            "reverse_complement must be none or augment with task.form=causal",
        ),
        (("curriculum=anneal", "curriculum.length=20"), "cannot hold a query and its needle(s)"),
    ],
)
def test_error_messages(words, sentence: str, fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = {word.split("=")[0]: word for word in (*SMALL, *words)}
    assert main(["train", *given.values(), f"data.fasta={fasta}", f"hydra.run.dir={tmp_path}/run"]) == 2
    assert sentence in capsys.readouterr().err
