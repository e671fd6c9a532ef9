"""Every base of a genome is tested once, in a window that lines up, and scores come back to where they belong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.evaluation import AlignerScorer, brief, mean_quality, put_to
from genoattn.genome.mutate import Event, Mutation, Rates, apply, plant
from genoattn.genome.regions import Interval
from genoattn.genome.store import Genome, open_genome
from genoattn.metrics import KINDS, OUTPUTS, SIMPLE, kind_of
from genoattn.objective import IGNORE
from genoattn.tasks.aligned import Aligned
from genoattn.tasks.base import Example
from genoattn.trials import Trial, measure, planted, real, thresholds, tiles

RECORDS = [("ACGT", 900), ("AC", 120), ("AC", 400)]
LENGTHS = [length for _, length in RECORDS]
HELD_OUT = [Interval(0, 100, 300), Interval(0, 700, 900), Interval(1, 0, 120), Interval(2, 50, 90)]
TASK = Aligned(reach=7)
BUSY = Rates(0.06, 1.0, 0.5, 1.0, 1.0, longest=25)
HALF = dict.fromkeys(OUTPUTS, 0.5)
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
    return {record: plant(genome.bases(record, 0, LENGTHS[record]), BUSY, rng) for record in (2, 0)}


def windows_of(trial: Trial) -> list[tuple[Example, int, int, int]]:
    return [(example, *place) for example, place in zip(trial.examples, trial.places, strict=True)]


def truth(examples: Sequence[Example]) -> list[np.ndarray]:
    """A detector that knows."""
    return [np.stack([example.targets[name] == 1 for name in OUTPUTS], 1).astype(np.float64) for example in examples]


@given(st.integers(1, 400), st.integers(1, 60))
@settings(deadline=None, max_examples=150)
def test_tiles_test_each_base_once(total: int, length: int):
    tested = [0] * total
    for start, low, high in tiles(total, length):
        assert 0 <= start and 0 <= low < high <= length and start + high <= total
        assert low >= length // 8 or start == 0
        assert length - high >= length // 8 or start + high == total
        for base in range(start + low, start + high):
            tested[base] += 1
    assert tested == [1] * total


def test_tiles_by_hand():
    assert tiles(5, 8) == [(0, 0, 5)] and tiles(8, 8) == [(0, 0, 8)]
    assert tiles(9, 8) == [(0, 0, 7), (1, 6, 8)]
    assert tiles(24, 16) == [(0, 0, 14), (8, 6, 16)]


@SEEDS
@pytest.mark.parametrize("length", [32, 100, 1000])
def test_windows_of_a_genome_line_up(genome: Genome, length: int, seed: int):
    planned = changes(genome, seed)
    trial, _ = real("x", genome, TASK, planned, length, [])
    samples = {record: apply(genome.bases(record, 0, LENGTHS[record]), found) for record, found in planned.items()}
    whole = np.concatenate([sample.bases for sample in samples.values()])
    inserted = np.concatenate([sample.inserted for sample in samples.values()])
    begins = {0, len(samples[2].bases)}  # of the two records
    assert trial.bases == len(whole) == len(trial.windows) and trial.tested.all()
    covered = np.zeros(len(whole), int)
    compared = 0
    for example, offset, low, high in windows_of(trial):
        assert np.array_equal(whole[offset : offset + len(example.bases)], example.bases)
        assert 0 <= low < high <= len(example.bases)
        covered[offset + low : offset + high] += 1
        assert not inserted[offset] or offset in begins  # never starts inside an insertion
        assert offset in begins or example.targets["shift"][0] == TASK.reach
        assert example.beside is not None and len(example.beside) == len(example.bases) + 2 * TASK.reach
        mutated = (example.targets["substitution"] == 1) | inserted[offset : offset + len(example.bases)]
        for base in np.flatnonzero((example.targets["shift"] != IGNORE) & ~mutated).tolist():
            assert example.bases[base] == example.beside[base + int(example.targets["shift"][base])]
            compared += 1
    assert (covered == 1).all() and compared > 80


@SEEDS
def test_scores_come_back_to_their_bases(genome: Genome, seed: int):
    trial, held_out = real("x", genome, TASK, changes(genome, seed), 40, HELD_OUT)
    assert held_out is not None

    def numbers(shown: Trial) -> np.ndarray:
        rows = [offset + np.arange(len(example.bases)) for example, offset, _, _ in windows_of(shown)]
        return shown.scores(lambda _: [np.stack([row, row, row], 1).astype(np.float64) for row in rows])

    assert (numbers(trial) == np.arange(trial.bases)[:, None]).all()
    assert (numbers(held_out)[held_out.tested] == np.flatnonzero(held_out.tested)[:, None]).all()
    assert 0 < len(held_out.examples) < len(trial.examples)


@SEEDS
def test_who_knows_the_truth_is_perfect(genome: Genome, seed: int):
    trials = [trial for trial in real("x", genome, TASK, changes(genome, seed), 60, HELD_OUT) if trial]
    assert len(trials) == 2
    for trial in trials:
        scores = trial.scores(truth)
        found = measure(trial, scores, HALF, resamples=50)
        assert len(found) > 3
        for one in found.values():
            figures = (one.auprc, one.auroc, one.precision, one.recall, one.f1, one.base_auprc, one.f1_low)
            assert figures == pytest.approx([1] * 7)
        simple = {OUTPUTS[KINDS[kind]] for kind in found if kind in SIMPLE}
        assert thresholds(trial, scores) == {name: 1.0 if name in simple else 0.5 for name in OUTPUTS}


def brought_in(event: Event) -> int:
    """The reference base that the first base of an event is aligned to."""
    return event.reference + event.size * (event.kind == "deletion")


@SEEDS
def test_the_held_out_part_is_what_lies_in_the_blocks(genome: Genome, seed: int):
    planned = changes(genome, seed)
    whole, held_out = real("x", genome, TASK, planned, 60, HELD_OUT)
    assert held_out is not None and held_out.name == "x, held out"
    expected: Counter[str] = Counter()
    tested = 0
    for record, found in planned.items():
        sample = apply(genome.bases(record, 0, LENGTHS[record]), found)
        inside = [set(range(block.start, block.stop)) for block in HELD_OUT if block.record == record]
        tested += sum(origin in block for origin in sample.origin.tolist() for block in inside)
        expected.update(kind_of(event) for event in sample.events for block in inside if brought_in(event) in block)
    measured = measure(held_out, held_out.scores(truth), HALF, resamples=2)
    assert {kind: one.events for kind, one in measured.items()} == dict(expected)
    assert held_out.tested.sum() == tested and 0 < tested < whole.bases
    assert all(one.rate == pytest.approx(one.events / tested) for one in measured.values())


def test_blocks_that_hold_nothing_make_no_part(genome: Genome):
    assert real("x", genome, TASK, changes(genome, 0), 60, [Interval(1, 0, 120)])[1] is None


def test_a_part_takes_its_scores_from_the_whole(genome: Genome, monkeypatch: pytest.MonkeyPatch):
    trials = [trial for trial in real("x", genome, TASK, changes(genome, 0), 60, HELD_OUT) if trial]
    asked: list[int] = []

    def uncertain(_: AlignerScorer, examples: Sequence[Example]) -> list[np.ndarray]:
        asked.append(len(examples))
        # The score of a base must not depend on which window it is seen in.
        return [
            0.7 * table + 0.1 * example.bases[:, None] for table, example in zip(truth(examples), examples, strict=True)
        ]

    monkeypatch.setattr(AlignerScorer, "__call__", uncertain)
    detector = AlignerScorer(TASK.reach)
    results = put_to(trials, detector, HALF, 5)
    assert asked == [len(trials[0].examples)]
    assert [(one.detector, one.trial) for one in results] == [("aligner", "x"), ("aligner", "x, held out")]
    (alone,) = put_to(trials[1:], detector, HALF, 5)
    assert alone.kinds == results[1].kinds and alone.kinds != results[0].kinds
    assert (results[0].bases, results[1].bases) == (trials[0].bases, trials[1].tested.sum())
    assert set(results[0].curves) == {"snv", "insertion", "deletion"}
    assert results[0].curves["snv"].recall.max() == 1
    simple = [results[0].kinds[kind].f1 for kind in ("snv", "insertion", "deletion")]
    assert mean_quality(results[0], lambda found: found.f1) == pytest.approx(np.mean(simple))
    assert np.isnan(mean_quality(replace(results[0], kinds={}), lambda found: found.f1))


def test_in_brief_a_part_stands_for_its_whole(genome: Genome):
    (whole, held_out), (alone, nothing) = (
        real("x", genome, TASK, changes(genome, seed), 60, blocks) for seed, blocks in ((0, HELD_OUT), (1, []))
    )
    assert held_out is not None and nothing is None
    kept = {"both": brief([alone, whole, held_out]), "none": brief([whole, alone])}
    assert [id(trial) for trial in kept["both"]] == [id(alone), id(held_out)]
    assert [id(trial) for trial in kept["none"]] == [id(whole), id(alone)]


def test_planted_windows_lie_end_to_end():
    rng = np.random.default_rng(0)
    rates = replace(BUSY, rate=0.1, longest=4)
    made = [
        TASK.example(rng.integers(0, 2, TASK.span(length), dtype=np.uint8), length, rates, rng)
        for length in (50, 30, 40)
    ]
    trial = planted("test", made)
    assert trial.places == [(0, 0, 50), (50, 0, 30), (80, 0, 40)] and trial.bases == 120 and trial.tested.all()
    assert trial.windows.tolist() == [0] * 50 + [1] * 30 + [2] * 40
    assert len(trial.events) == sum(len(example.events) for example in made)
    row = np.concatenate([example.bases for example in made])
    events = iter(trial.events)
    for example, offset in zip(made, (0, 50, 80), strict=True):
        for event in example.events:
            moved = next(events)
            assert moved.start - event.start == moved.stop - event.stop == moved.first - event.first == offset
            assert row[moved.first : moved.last].tolist() == example.bases[event.first : event.last].tolist()
    found = measure(trial, trial.scores(truth), HALF, resamples=5)
    assert all(one.auprc == one.f1 == pytest.approx(1) for one in found.values())
    assert thresholds(trial, trial.scores(truth)) == dict.fromkeys(OUTPUTS, 1.0)
    assert thresholds(replace(trial, events=[]), trial.scores(truth)) == HALF  # nothing to choose by


def test_the_aligner_is_perfect_where_mutations_stand_alone(genome: Genome):
    bases = genome.bases(0, 0, LENGTHS[0])
    lone = [
        [
            Mutation(at, at + 1, bytes([3 - bases[at]])),
            Mutation(at, at, b"\0\1\2"),
            Mutation(at, at + 4, b""),
        ][number % 3]
        for number, at in enumerate(range(50, 860, 45))
    ]
    trial, _ = real("x", genome, Aligned(reach=24), {0: lone}, 256, [])
    (result,) = put_to([trial], AlignerScorer(24), HALF, 5)
    assert {kind: one.events for kind, one in result.kinds.items()} == {"snv": 6, "insertion": 6, "deletion": 6}
    assert all(one.precision == one.recall == 1 for one in result.kinds.values())
