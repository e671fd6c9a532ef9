"""Test sets: each base of a genome is tested at most once, and scores return to their bases."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE_INDEX, MUTATION_OUTPUTS
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.evaluation.detection.detectors import CallingDetector, aligner
from genoattn.evaluation.detection.metrics import DetectionMetrics
from genoattn.evaluation.detection.results import choose_thresholds, evaluate_detector, evaluate_scores
from genoattn.evaluation.detection.scored_calls import HEADLINE_KINDS, KINDS, LONG_KINDS, kind_of
from genoattn.evaluation.detection.testsets import (
    TestSet,
    simulated_test_set,
    variant_test_set,
    without_supersets,
)
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Event, Mutation, Sample, apply_mutations
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.simulate import Rates, simulate
from genoattn.genome.windows import tiles
from genoattn.models.detection import stretches

RECORDS = [("ACGT", 900), ("AC", 120), ("AC", 400)]
LENGTHS = [length for _, length in RECORDS]
HELD_OUT = [Interval(0, 100, 300), Interval(0, 700, 900), Interval(1, 0, 120), Interval(2, 50, 90)]
TASK = SideBySide(max_shift=7)
BUSY = Rates(0.06, 1.0, 0.5, 1.0, 1.0, longest=25)
HALF: dict[str, float] = dict.fromkeys(MUTATION_OUTPUTS, 0.5)
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    folder, rng = tmp_path_factory.mktemp("genome"), np.random.default_rng(0)
    records = ["".join(rng.choice(list(letters), length)) for letters, length in RECORDS]
    records[2] = records[2][:200] + "NNNNN" + records[2][205:]
    (folder / "a.fa").write_text("".join(f">r{n}\n{text}\n" for n, text in enumerate(records)))
    return open_genome([folder / "a.fa"], folder / "cache")


def changes(genome: Genome, seed: int) -> dict[int, list[Mutation]]:
    """Many and long mutations of the last record and of the first, in this order; the middle one has none."""
    rng = np.random.default_rng(seed)
    return {record: simulate(genome.fetch(record, 0, LENGTHS[record]), BUSY, rng) for record in (2, 0)}


def windows_of(test_set: TestSet) -> list[tuple[Example, int, int, int]]:
    return [(example, *placement) for example, placement in zip(test_set.examples, test_set.placements, strict=True)]


def truth(examples: Sequence[Example]) -> list[np.ndarray]:
    """The scores of a perfect detector."""
    return [
        np.stack([example.targets[name] == 1 for name in MUTATION_OUTPUTS], 1).astype(np.float64)
        for example in examples
    ]


def metrics_by_kind(test_set: TestSet, count: int = 2) -> dict[str, DetectionMetrics]:
    """The metrics of a perfect detector."""
    results = evaluate_scores(test_set, test_set.scores(truth), HALF, count)
    return {kind: result.metrics for kind, result in results.items()}


def bases_that_are_tested(sample: Sample, length: int) -> np.ndarray:
    """Bases that can be tested, one by one: all but the tails of long insertions."""
    tail = set()
    for event in sample.events:
        if kind_of(event) == "long insertion":
            tail |= set(range(event.start + max(1, length // 8), event.stop))
    return np.array([base not in tail for base in range(len(sample.bases))], np.bool_)


@given(st.integers(0, 50), st.integers(1, 400), st.integers(1, 60))
@settings(deadline=None, max_examples=150)
def test_tiles_test_each_base_once(begin: int, total: int, length: int):
    tested = [0] * total
    for start, low, high in tiles(begin, begin + total, length):
        assert begin <= start and 0 <= low < high and start + high <= begin + total
        assert low >= length // 8 or start == begin
        assert length - high >= length // 8  # at the end too, where there are bases beyond it
        for base in range(start + low, start + high):
            tested[base - begin] += 1
    assert tested == [1] * total


def test_tiles_by_hand():
    assert tiles(0, 5, 8) == [(0, 0, 5)] and tiles(3, 10, 8) == [(3, 0, 7)]
    assert tiles(3, 11, 8) == [(3, 0, 7), (9, 1, 2)]
    assert tiles(0, 24, 16) == [(0, 0, 14), (12, 2, 12)]


SIZES = st.sampled_from([0, 1, 2, 11, 12, 40])


@given(st.lists(st.tuples(st.integers(0, 15), SIZES, SIZES), max_size=6), st.integers(0, 9), st.integers(1, 100))
@settings(deadline=None, max_examples=150)
def test_stretches_exclude_the_tails_of_long_insertions(steps: list[tuple[int, int, int]], rest: int, length: int):
    """Mutations may touch here, and stand at either end."""
    rng = np.random.default_rng(len(steps))
    planned, at = [], 0
    for gap, gone, came in steps:
        planned.append(Mutation(at + gap, at + gap + gone, rng.integers(0, 2, came, dtype=np.uint8).tobytes()))
        at += gap + gone
    sample = apply_mutations(rng.integers(0, 2, at + rest, dtype=np.uint8), planned)
    tested_stretches = stretches(sample, length)
    bases = [base for begin, end in tested_stretches for base in range(begin, end)]
    assert all(begin < end for begin, end in tested_stretches)
    assert bases == np.flatnonzero(bases_that_are_tested(sample, length)).tolist()
    begins = {begin for begin, _ in tested_stretches}
    for event in sample.events:
        if kind_of(event) in LONG_KINDS:
            assert event.start in bases and (event.stop in begins or event.stop not in bases)


@SEEDS
@pytest.mark.parametrize("length", [32, 100, 1000])
def test_windows_of_a_genome_line_up(genome: Genome, length: int, seed: int):
    planned = changes(genome, seed)
    (test_set,) = variant_test_set("x", genome, TASK, planned, length, [])
    samples = {
        record: apply_mutations(genome.fetch(record, 0, LENGTHS[record]), mutations)
        for record, mutations in planned.items()
    }
    whole = np.concatenate([sample.bases for sample in samples.values()])
    inserted = np.concatenate([sample.inserted for sample in samples.values()])
    offsets = {2: 0, 0: len(samples[2].bases)}
    begins = {
        offsets[record] + stop
        for record, sample in samples.items()
        for stop in [0, *(event.stop for event in sample.events if kind_of(event) in LONG_KINDS)]
    }
    assert test_set.bases == len(whole) == len(test_set.windows)
    expected = [bases_that_are_tested(sample, length) for sample in samples.values()]
    assert np.array_equal(test_set.tested, np.concatenate(expected))
    assert test_set.tested.all() == (length == 1000)  # where an eighth of a window holds the longest insertion
    covered = np.zeros(len(whole), int)
    compared = 0
    for example, offset, low, high in windows_of(test_set):
        assert np.array_equal(whole[offset : offset + len(example.bases)], example.bases)
        assert 0 <= low < high <= len(example.bases)
        covered[offset + low : offset + high] += 1
        assert not inserted[offset] or offset in begins  # never starts inside an insertion
        assert example.targets["shift"][0] == TASK.max_shift
        assert (
            example.reference_window is not None
            and len(example.reference_window) == len(example.bases) + 2 * TASK.max_shift
        )
        mutated = (example.targets["substitution"] == 1) | inserted[offset : offset + len(example.bases)]
        for base in np.flatnonzero((example.targets["shift"] != IGNORE_INDEX) & ~mutated).tolist():
            assert example.bases[base] == example.reference_window[base + int(example.targets["shift"][base])]
            compared += 1
    assert np.array_equal(covered, test_set.tested) and compared > 80
    assert begins <= {offset for _, offset, _, _ in windows_of(test_set)}


@pytest.mark.parametrize("length", [8, 64, 256, 1000])
def test_a_new_window_begins_after_a_long_indel(tmp_path: Path, length: int):
    rng = np.random.default_rng(0)
    (tmp_path / "a.fa").write_text(">r\n" + "".join(rng.choice(list("ACGT"), 5000)) + "\n")
    genome = open_genome([tmp_path / "a.fa"], tmp_path / "cache")
    planned = [
        Mutation(800, 803, b""),  # so that the sample has drifted already
        Mutation(1000, 1000, rng.integers(0, 4, 1000, dtype=np.uint8).tobytes()),
        Mutation(2100, 2100, b"\0\1"),
        Mutation(2500, 3500, b""),
    ]
    test_set, held_out = variant_test_set("x", genome, TASK, {0: planned}, length, [Interval(0, 0, 5000)])
    _, insertion, _, deletion = test_set.events
    assert max(len(example.bases) for example in test_set.examples) <= length + 20
    untested = np.flatnonzero(~test_set.tested)
    assert untested.tolist() == list(range(insertion.start + length // 8, insertion.stop))
    assert np.array_equal(held_out.tested, test_set.tested)
    metrics = metrics_by_kind(test_set)
    assert {kind: (row.events, row.recall) for kind, row in metrics.items()} == dict.fromkeys(metrics, (1, 1.0))
    assert set(metrics) == {"insertion", "deletion", *LONG_KINDS}
    by_offset = {offset: example for example, offset, _, _ in windows_of(test_set)}
    bases = genome.fetch(0, 0, 5000)
    for stop, reference in (
        (insertion.stop, insertion.reference),
        (deletion.stop, deletion.reference + 1001),
    ):
        example, plain = by_offset[stop], min(length, 50)
        assert example.reference_window is not None
        assert example.bases[:plain].tolist() == bases[reference : reference + plain].tolist()
        assert example.reference_window[TASK.max_shift :][:plain].tolist() == example.bases[:plain].tolist()
        assert (example.targets["shift"][:plain] == TASK.max_shift).all()  # no drift


def test_anchors_place_windows_as_the_vcf_would(tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "a.fa").write_text(">r\n" + "".join(rng.choice(list("ACGT"), 6000)) + "\n")
    genome = open_genome([tmp_path / "a.fa"], tmp_path / "cache")
    planned = [
        Mutation(800, 803, b""),
        Mutation(1000, 1000, rng.integers(0, 4, 500, dtype=np.uint8).tobytes()),
        *[Mutation(at, at + 1, bytes([genome.fetch(0, at, at + 1)[0] ^ 2])) for at in range(1500, 2400, 90)],
        Mutation(2500, 3500, b""),
    ]
    by_vcf, by_anchors = (
        variant_test_set("x", genome, TASK, {0: planned}, 100, [], oracle=oracle)[0] for oracle in (True, False)
    )
    assert by_vcf.oracle and not by_anchors.oracle and not any(by_vcf.displaced) and not any(by_anchors.displaced)
    assert np.array_equal(by_vcf.tested, by_anchors.tested) and by_vcf.targets.keys() == by_anchors.targets.keys()
    covered = np.zeros(by_anchors.bases, int)
    for example, offset, low, high in windows_of(by_anchors):
        assert len(example.bases) <= 100
        covered[offset + low : offset + high] += 1
    assert (covered == 1).all()  # anchors do not say which bases have no counterpart
    bases = genome.fetch(0, 0, 6000)
    _, insertion, *_, deletion = by_anchors.events
    begins = [offset for _, offset, _, _ in windows_of(by_anchors)]
    for stop, reference in ((insertion.stop, insertion.reference), (deletion.stop - 1, deletion.reference + 1000)):
        (begin,) = (begin for begin in begins if stop <= begin < stop + 12)  # the anchors' k-mers may match by chance
        example = by_anchors.examples[begins.index(begin)]
        assert example.reference_window is not None
        place = reference + begin - stop
        assert example.reference_window[TASK.max_shift :][:50].tolist() == bases[place : place + 50].tolist()


def test_without_anchors_a_window_lies_at_the_same_position_of_the_reference(tmp_path: Path):
    (tmp_path / "a.fa").write_text(">r\n" + "AC" * 200 + "\n")
    genome = open_genome([tmp_path / "a.fa"], tmp_path / "cache")
    (test_set,) = variant_test_set("x", genome, TASK, {0: [Mutation(9, 10, b"\3")]}, 50, [], oracle=False)
    assert test_set.tested.all() and not any(test_set.displaced)


@SEEDS
@pytest.mark.parametrize("length", [8, 60])
def test_every_event_is_scored(genome: Genome, length: int, seed: int):
    (test_set,) = variant_test_set("x", genome, TASK, changes(genome, seed), length, [])
    metrics = metrics_by_kind(test_set)
    assert {kind: row.events for kind, row in metrics.items()} == Counter(kind_of(event) for event in test_set.events)
    assert set(LONG_KINDS) < set(metrics) and all(row.recall == row.precision == 1 for row in metrics.values())


@SEEDS
def test_scores_return_to_their_bases(genome: Genome, seed: int):
    test_set, held_out = variant_test_set("x", genome, TASK, changes(genome, seed), 40, HELD_OUT)

    def numbers(scored_set: TestSet) -> np.ndarray:
        rows = [offset + np.arange(len(example.bases)) for example, offset, _, _ in windows_of(scored_set)]
        return scored_set.scores(lambda _: [np.stack([row, row, row], 1).astype(np.float64) for row in rows])

    assert (
        numbers(test_set) == (np.arange(test_set.bases) * test_set.tested)[:, None]
    ).all() and not test_set.tested.all()
    assert (numbers(held_out)[held_out.tested] == np.flatnonzero(held_out.tested)[:, None]).all()
    assert 0 < len(held_out.examples) < len(test_set.examples)


@SEEDS
def test_a_perfect_detector_has_perfect_metrics(genome: Genome, seed: int):
    test_sets = variant_test_set("x", genome, TASK, changes(genome, seed), 60, HELD_OUT)
    assert len(test_sets) == 2
    for test_set in test_sets:
        scores = test_set.scores(truth)
        metrics = metrics_by_kind(test_set, 50)
        assert len(metrics) > 3
        for kind, row in metrics.items():
            assert (row.auprc, row.auroc, row.precision, row.recall, row.f1, row.f1_low) == pytest.approx([1] * 6)
            assert np.isnan(row.base_auprc) if kind in LONG_KINDS else row.base_auprc == pytest.approx(1)
        simple = {MUTATION_OUTPUTS[KINDS[kind]] for kind in metrics if kind in HEADLINE_KINDS}
        assert choose_thresholds(test_set, scores) == {
            name: 1.0 if name in simple else 0.5 for name in MUTATION_OUTPUTS
        }


def reference_of_first_base(event: Event) -> int:
    """The reference base that the first base of an event is aligned to."""
    return event.reference + event.size * (event.kind == "deletion")


@SEEDS
def test_the_held_out_part_lies_in_the_blocks(genome: Genome, seed: int):
    planned = changes(genome, seed)
    whole, held_out = variant_test_set("x", genome, TASK, planned, 60, HELD_OUT)
    assert (held_out.key, held_out.title, held_out.simulated) == ("x_held_out", "x, held out", False)
    expected: Counter[str] = Counter()
    tested = 0
    for record, mutations in planned.items():
        sample = apply_mutations(genome.fetch(record, 0, LENGTHS[record]), mutations)
        inside = [set(range(block.start, block.stop)) for block in HELD_OUT if block.record == record]
        positions = sample.reference_position[bases_that_are_tested(sample, 60)].tolist()
        tested += sum(position in block for position in positions for block in inside)
        expected.update(
            kind_of(event) for event in sample.events for block in inside if reference_of_first_base(event) in block
        )
    metrics = metrics_by_kind(held_out)
    assert {kind: row.events for kind, row in metrics.items()} == dict(expected)
    assert held_out.tested.sum() == tested and 0 < tested < whole.tested.sum()
    assert all(row.rate == pytest.approx(row.events / tested) for row in metrics.values())


def test_blocks_without_tested_bases_make_no_part(genome: Genome):
    assert len(variant_test_set("x", genome, TASK, changes(genome, 0), 60, [Interval(1, 0, 120)])) == 1


def test_a_part_takes_its_scores_from_the_whole(genome: Genome, monkeypatch: pytest.MonkeyPatch):
    test_sets = variant_test_set("x", genome, TASK, changes(genome, 0), 60, HELD_OUT)
    scored: list[int] = []

    def uncertain(_: CallingDetector, examples: Sequence[Example]) -> list[np.ndarray]:
        scored.append(len(examples))
        # The score of a base must not depend on its window.
        return [
            0.7 * table + 0.1 * example.bases[:, None] for table, example in zip(truth(examples), examples, strict=True)
        ]

    monkeypatch.setattr(CallingDetector, "__call__", uncertain)
    detector = aligner(TASK.max_shift)
    results = evaluate_detector(test_sets, detector, HALF, 5)
    assert scored == [len(test_sets[0].examples)]
    assert [(result.detector, result.test_set) for result in results] == [("aligner", "x"), ("aligner", "x_held_out")]
    (alone,) = evaluate_detector(test_sets[1:], detector, HALF, 5)
    # As text, because NaN is not equal to NaN.
    assert repr(alone.kinds) == repr(results[1].kinds) != repr(results[0].kinds)
    curves = {kind: result.curve for kind, result in results[0].kinds.items() if result.curve is not None}
    assert set(curves) == {"snv", "insertion", "deletion"} and curves["snv"].recall.max() == 1
    headline = [results[0].kinds[kind].metrics.f1 for kind in HEADLINE_KINDS]
    assert results[0].mean(lambda metrics: metrics.f1) == pytest.approx(np.mean(headline))
    assert np.isnan(replace(results[0], kinds={}).mean(lambda metrics: metrics.f1))


def test_a_superset_is_dropped_beside_its_part(genome: Genome):
    whole, held_out = variant_test_set("x", genome, TASK, changes(genome, 0), 60, HELD_OUT)
    (alone,) = variant_test_set("y", genome, TASK, changes(genome, 1), 60, [])
    assert not alone.tested.all()
    remaining = {"both": without_supersets([alone, whole, held_out]), "none": without_supersets([whole, alone])}
    assert [id(test_set) for test_set in remaining["both"]] == [id(alone), id(held_out)]
    assert [id(test_set) for test_set in remaining["none"]] == [id(whole), id(alone)]


def test_simulated_windows_lie_end_to_end():
    rng = np.random.default_rng(0)
    rates = replace(BUSY, rate=0.1, longest=4)
    examples = [
        TASK.example(rng.integers(0, 2, TASK.reference_length(length), dtype=np.uint8), length, rates, rng)
        for length in (50, 30, 40)
    ]
    test_set = simulated_test_set(examples)
    assert (
        test_set.placements == [(0, 0, 50), (50, 0, 30), (80, 0, 40)]
        and test_set.bases == 120
        and test_set.tested.all()
    )
    assert test_set.windows.tolist() == [0] * 50 + [1] * 30 + [2] * 40
    assert len(test_set.events) == sum(len(example.events) for example in examples)
    row = np.concatenate([example.bases for example in examples])
    events = iter(test_set.events)
    for example, offset in zip(examples, (0, 50, 80), strict=True):
        for event in example.events:
            event_in_set = next(events)
            assert (
                event_in_set.start - event.start
                == event_in_set.stop - event.stop
                == event_in_set.earliest - event.earliest
                == offset
            )
            assert (
                row[event_in_set.earliest : event_in_set.latest].tolist()
                == example.bases[event.earliest : event.latest].tolist()
            )
    metrics = metrics_by_kind(test_set, 5)
    assert all(row.auprc == row.f1 == pytest.approx(1) for row in metrics.values())
    assert choose_thresholds(test_set, test_set.scores(truth)) == dict.fromkeys(MUTATION_OUTPUTS, 1.0)
    assert (
        choose_thresholds(replace(test_set, events=[]), test_set.scores(truth)) == HALF
    )  # no event to choose a threshold by


def test_the_aligner_is_perfect_on_isolated_mutations(genome: Genome):
    bases = genome.fetch(0, 0, LENGTHS[0])
    isolated = [
        [
            Mutation(at, at + 1, bytes([3 - bases[at]])),
            Mutation(at, at, b"\0\1\2"),
            Mutation(at, at + 4, b""),
        ][number % 3]
        for number, at in enumerate(range(50, 860, 45))
    ]
    (test_set,) = variant_test_set("x", genome, SideBySide(max_shift=24), {0: isolated}, 256, [])
    (result,) = evaluate_detector([test_set], aligner(24), HALF, 5)
    assert {kind: row.metrics.events for kind, row in result.kinds.items()} == {"snv": 6, "insertion": 6, "deletion": 6}
    assert all(row.metrics.precision == row.metrics.recall == 1 for row in result.kinds.values())
