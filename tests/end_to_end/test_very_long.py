"""Very long windows of reference beside sample: anchors, resampled stretches, unseen genomes, and their benchmark."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

from benchmarks.studies import very_long_windows as long
from genoattn.cli.values import model_of, value_of
from genoattn.config.compose import compose
from genoattn.data.example import Example
from genoattn.data.source import DataSource
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.errors import UserError
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.bootstrap import BLOCK
from genoattn.evaluation.detection import evaluator as detection
from genoattn.evaluation.detection.scored_calls import kind_of
from genoattn.evaluation.detection.testsets import simulated_test_set
from genoattn.genome.alphabet import UNKNOWN
from genoattn.genome.mutations import apply_mutations
from genoattn.genome.sequence_store import open_genome
from genoattn.genome.simulate import Rates
from genoattn.genome.splits import test_only as all_for_test
from genoattn.genome.vcf import read_variants, to_mutations
from genoattn.paths import genomes_dir

pytestmark = pytest.mark.usefixtures("alone", "quick")
MANY = Rates(0.1, snv=0.3, insertion=0.3, deletion=0.4, longest=3)


def drawn(
    length: int, anchor: int | None, rates: Rates = MANY, reach: int = 8, seed: int = 0
) -> tuple[SideBySide, Example]:
    task = SideBySide(max_shift=reach, realign_every=anchor)
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 4, task.reference_length(length)).astype(np.uint8)
    return task, task.example(reference, length, rates, rng)


def test_the_rates_are_those_counted_in_the_vcf_that_ships() -> None:
    genome = open_genome([genomes_dir() / "NCTC8325.fa.gz"])
    path = genomes_dir() / "N315.vcf.gz"
    (contig, found), *_ = read_variants(path, dict(zip(genome.names, genome.lengths, strict=True))).by_contig.items()
    bases = genome.fetch(genome.index(contig), 0, genome.total)
    sample = apply_mutations(bases, to_mutations(found, bases, contig, path).mutations)
    kinds = [kind_of(event) for event in sample.events]
    counts = {kind: kinds.count(kind) for kind in ("snv", "insertion", "deletion")}
    assert counts == {"snv": 13_222, "insertion": 143, "deletion": 180}
    total = sum(counts.values())
    singles = [event for event in sample.events if event.kind == "snv"]
    turned = [int(sample.bases[event.start]) ^ int(bases[event.reference]) for event in singles]
    sizes = [event.size for event in sample.events if kind_of(event) in ("insertion", "deletion")]
    copies = [
        np.array_equal(sample.bases[event.start : event.stop], sample.bases[event.stop : event.stop + event.size])
        for event in sample.events
        if kind_of(event) == "insertion"
    ]
    evaluate, train = compose("evaluate", ["checkpoint=x", "test=real"]), compose("train", ["experiment=very_long"])
    for config in (evaluate.test, train.test, train.task):
        assert config.rate == pytest.approx(total / genome.total, rel=0.01)
        assert config.transitions == pytest.approx(turned.count(2) / (len(turned) - turned.count(2)), rel=0.01)
        assert (config.longest + 1) / 2 == pytest.approx(np.mean(sizes), abs=0.15)
        for kind, count in counts.items():
            assert config[kind] == pytest.approx(count / total, abs=1e-4)
    assert train.task.duplication == pytest.approx(np.mean(copies), abs=0.01)


def test_every_base_stands_beside_its_counterpart_from_its_own_anchor_on() -> None:
    anchor = 64
    task, example = drawn(1000, anchor)
    assert example.reference_window is not None
    gap = 2 * task.max_shift
    rows = np.arange(len(example.bases))
    place, inside = rows // (anchor + gap), rows % (anchor + gap) < anchor
    assert len(rows) == 1000 + gap * (1000 // anchor) and len(example.reference_window) == len(rows) + gap
    assert (example.bases[~inside] == UNKNOWN).all() and (example.bases[inside] < 4).all()
    for target in example.targets.values():
        assert (target[~inside] == IGNORE_INDEX).all()
    shift = example.targets["shift"].astype(int) - task.max_shift
    known = inside & (example.targets["shift"] != IGNORE_INDEX)
    assert known.mean() > 0.7
    same = known & (example.targets["substitution"] == 0) & (example.targets["insertion"] == 0)
    assert (example.reference_window[rows + task.max_shift + shift][same] == example.bases[same]).all()
    firsts = [int(np.flatnonzero(place == one)[0]) for one in range(place.max() + 1)]
    begins = [shift[first] for first in firsts if example.targets["deletion"][first] == 0]
    assert len(begins) > 10 and set(begins) == {0}


def test_anchors_change_neither_the_sample_nor_its_events() -> None:
    (task, pieces), (_, whole) = drawn(1000, 64), drawn(1000, None)
    inside = np.arange(len(pieces.bases)) % (64 + 2 * task.max_shift) < 64
    assert np.array_equal(pieces.bases[inside], whole.bases)
    for name in ("substitution", "insertion", "deletion"):
        assert np.array_equal(pieces.targets[name][inside], whole.targets[name])
    moved = [int(np.flatnonzero(inside)[event.start]) for event in whole.events]
    assert [event.start for event in pieces.events] == moved
    assert [event.kind for event in pieces.events] == [event.kind for event in whole.events]


def test_a_window_of_one_piece_is_as_without_anchors() -> None:
    (_, one), (_, other) = drawn(64, 64), drawn(64, None)
    assert one.reference_window is not None and other.reference_window is not None
    assert np.array_equal(one.bases, other.bases) and np.array_equal(one.reference_window, other.reference_window)
    with pytest.raises(UserError, match=r"task\.realign_every must be above 16"):
        SideBySide(max_shift=8, realign_every=16)


def test_a_million_bases_drift_beyond_reach_without_anchors_alone() -> None:
    rates = Rates(0.0048, snv=0.9762, insertion=0.0106, deletion=0.0132)
    lost = {}
    for anchor in (None, 4096):
        _, example = drawn(2**20, anchor, rates, reach=12)
        labelled = example.targets["substitution"] != IGNORE_INDEX
        assert labelled.sum() == 2**20
        lost[anchor] = float((example.targets["shift"][labelled] == IGNORE_INDEX).mean())
    assert lost[None] > 0.05 and lost[4096] == 0


def test_long_windows_are_resampled_in_stretches() -> None:
    _, example = drawn(2 * BLOCK + 5, None)
    test_set = simulated_test_set([example._replace(block=(0, number)) for number in (7, 9)])
    assert np.bincount(test_set.windows).tolist() == 2 * [BLOCK, BLOCK, 5]
    assert test_set.blocks == [(0, number, part) for number in (7, 9) for part in range(3)]
    _, short = drawn(64, None)
    assert simulated_test_set([short, short]).windows.tolist() == [0] * 64 + [1] * 64


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("genome") / "a.fa"
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 3_000))
    file.write_text(f">a\n{letters}\n>short\nACGTACGT\n")
    return file


def test_the_evaluation_leaves_the_aligner_out_of_long_windows_and_prints_the_time_of_scoring(
    fasta: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detection, "LONGEST_ALIGNED", 100)
    words = [
        "experiment=smoke",
        f"data.fasta={fasta}",
        "test.windows=3",
        "test.resamples=2",
        "test.threshold_windows=3",
    ]
    found = {}
    for length in (100, 101):
        config = compose("train", [*words, f"data.length={length}"])
        task, tokenizer = instantiate(config.task), instantiate(config.tokenizer)
        genome = open_genome([fasta])
        source = DataSource(genome, all_for_test(genome.names, genome.lengths, task.reference_length(length)), ())
        predictor = model_of(config, "attention", task, tokenizer)
        evaluator = detection.MutationDetectionEvaluator(
            source, value_of(config.data), value_of(config.test), task, False
        )
        found[length] = evaluator.evaluate([Candidate("model", "mine", predictor)]).metrics
        assert found[length].costs["scored_bases"] == 2 * 3 * length  # thresholds and test
        assert found[length].costs["score_cpu_seconds"] > 0 and found[length].costs["score_peak_bytes"] > 2**20
    assert found[100].select(candidate="aligner") and not found[101].select(candidate="aligner")
    assert "the aligner is left out: data.length=101" in capsys.readouterr().out


def written(folder: Path, **figures: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {f"model/test/snv/{name}": 0.5 for name in ("events", "auprc", "auprc_low", "auprc_high")}
    costs = {"cost/score_cpu_seconds": 2.0, "cost/score_seconds": 4.0, "cost/scored_bases": 1e6}
    costs |= {"cost/score_peak_bytes": 2.0**30, "cost/parameters": 7, "cost/train_seconds": 1.0}
    (folder / "metrics.json").write_text(json.dumps(kinds | costs | {"cost/bases_per_second": 3.0} | figures))


def test_the_benchmark_repeats_nothing_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def programme(command: list[str], **_: object) -> subprocess.CompletedProcess:
        calls.append(command)
        folder = Path(command[-1].partition("=")[2])
        if "data.length=1048576" in command:
            return subprocess.CompletedProcess(command, 2, "", "first\nat most 262144 tokens\n")
        written(folder)
        if command[3] in ("train", "finetune"):
            (folder / "model").mkdir()
            (folder / "model" / "model.json").write_text(json.dumps({"task": {"realign_every": 4096}}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", programme)
    *_, row = long.layer("linear", tmp_path, steps=3, bases=2**20)
    programs = [command[3] for command in calls]
    assert programs == ["train", "finetune"] + ["evaluate"] * 7  # four lengths, and three without realignment
    assert row["lengths"]["1048576"] == {"error": "at most 262144 tokens", "windows": 1}
    assert row["lengths"]["16384"]["windows"] == 64
    assert json.loads((tmp_path / "drifting" / "model" / "model.json").read_text())["task"]["realign_every"] is None
    calls.clear()
    *_, again = long.layer("linear", tmp_path, steps=3, bases=2**20)
    assert again == row
    assert all("data.length=1048576" in command for command in calls) and len(calls) == 2
    table = long.table([row])
    assert len(table.rows) == 7 and {len(line) for line in table.rows} == {len(table.columns)}
    assert table.rows[0][-3:] == ["4.0", "500", "1.00 GiB"]
