"""Windows of labelled regions: their place, strand and surroundings, their splits, and labels that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from genoattn.data.tasks.region import Region
from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases, encode_bases, reverse_complement
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.splits import Splits

SPLITS = Splits((Interval(0, 0, 60),), (Interval(0, 60, 80),), (Interval(0, 80, 90),), ())


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    folder = tmp_path_factory.mktemp("region")
    letters = decode_bases(np.random.default_rng(0).integers(0, 4, 100, np.uint8))
    (folder / "a.fa").write_text(f">chr\n{letters}\n")
    return open_genome([folder / "a.fa"], folder / "cache")


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_region_in_its_surroundings(genome: Genome, tmp_path: Path):
    file = written(
        tmp_path, "a.bed", "chr\t20\t26\tx\nchr\t70\t76\ty\t0\t-\nchr\t82\t88\tx\nchr\t91\t99\tx\nchr\t0\t4\tz\n"
    )
    rng = np.random.default_rng(0)
    for flanks in (True, False):
        task = Region(file, classes=["y", "x"], flanks=flanks)
        items = task.read_items(genome, SPLITS)
        (train,), (validation,), (test,) = items.train, items.validation, items.test
        assert (train.label, validation.label, test.label) == (1, 0, 1)
        assert items.skipped == {"between the splits": 1, "labelled z": 1}
        example = task.item_example(genome, train, 16, rng)
        low, high = example.site or (0, 0)
        assert np.array_equal(example.bases[low:high], genome.fetch(0, 20, 26)) and example.targets["class"] == [1]
        assert len(example.bases) == (16 if flanks else 6)
        other = task.item_example(genome, validation, 16, rng)
        low, high = other.site or (0, 0)
        assert np.array_equal(other.bases[low:high], reverse_complement(genome.fetch(0, 70, 76)))
        cut = task.item_example(genome, train, 4, rng)
        assert np.array_equal(cut.bases, genome.fetch(0, 21, 25)) and cut.site == (0, 4)


def test_sequences_are_split_by_what_they_are(genome: Genome, tmp_path: Path):
    rng = np.random.default_rng(0)
    sequences = [decode_bases(rng.integers(0, 4, 20, np.uint8)) for _ in range(200)]
    rows = [f"{sequence},{number % 2}" for number, sequence in enumerate(sequences * 2)]
    file = written(tmp_path, "a.csv", "\n".join(["sequence,label", *rows]) + "\n")
    items = Region(file, classes=[0, 1]).read_items(genome, SPLITS)
    parts = [{item.region.bases for item in items.of(split)} for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200  # equal sequences stay together
    assert 140 < len(parts[0]) < 180
    middle = Region(file, classes=[0, 1]).item_example(genome, items.train[0], 8, rng)
    assert middle.bases.tobytes() == items.train[0].region.bases[6:14] and middle.site == (0, 8)


def test_numbers_are_learned_in_standard_deviations(genome: Genome, tmp_path: Path):
    rows = "\n".join(f"A{'C' * number},{number},train" for number in range(1, 40))
    file = written(tmp_path, "a.csv", f"sequence,label,split\n{rows}\nGG,7,test\n")
    task = Region(file, target="score")
    items = task.read_items(genome, SPLITS)
    values = [
        float(task.item_example(genome, item, 50, np.random.default_rng(0)).targets["score"][0]) for item in items.train
    ]
    assert np.mean(values) == pytest.approx(0, abs=1e-6) and np.std(values) == pytest.approx(1)
    assert len(items.validation) > 0 and [item.score for item in items.test] == [7]
    assert task.evaluator == "window_scores" and encode_bases("GG").tobytes() == items.test[0].region.bases


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "task.classes must be given; task.file=a.csv holds the labels x (2), y (1)"),
        ({"classes": ["x", "w"]}, "task.classes: no region of a.csv is labelled w; its labels are x (2), y (1)"),
        ({"classes": ["x"]}, "task.classes must name two labels or more, each once, got ['x']"),
        ({"target": "score"}, "a.csv, region 1: expected a number, got 'x'"),
        ({"target": "score", "classes": ["x", "y"]}, "are for task.target=class"),
        ({"file": None}, "task.file must be given"),
    ],
)
def test_labels_that_do_not_fit(settings: dict, sentence: str, genome: Genome, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "a.csv", "sequence,label\nAC,x\nACG,y\nACGT,x\n")
    with pytest.raises(UserError) as error:
        Region(**{"file": "a.csv", **settings}).read_items(genome, SPLITS)
    assert sentence in str(error.value)
