"""Language modeling: masks, counts of the Markov models by hand, and the evaluation of whole runs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.cli.main import main
from genoattn.data.batch import collate
from genoattn.data.example import MASK, RANDOM, UNCHANGED, VISIBLE
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.language_modeling import LanguageModeling, fully_masked
from genoattn.data.tokenizers.kmer import KmerTokenizer
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.evaluation.baselines.markov import MarkovModel, Reading
from genoattn.genome.alphabet import encode_bases
from genoattn.genome.simulate import Rates

SMALL = ("experiment=smoke", "task=pretrain", "curriculum=none", "trainer.threads=1", "test.windows=6")
SMALL += ("test.threshold_windows=6", "test.resamples=5", "data.max_leak=null")  # the genome is one repeat


def reading(text: str, marks: str, hide: bool) -> Reading:
    targets = np.array([mark == "x" for mark in marks])
    return Reading(encode_bases(text), ~targets if hide else np.ones(len(text), np.bool_), targets)


def test_counts_by_hand():
    model = MarkovModel([encode_bases("ACACAG"), encode_bases("ACN")], order=2)
    order_0, order_1, order_2 = model.counts(reading("GACA", "...x", hide=False))
    assert order_0.tolist() == [[4, 3, 1, 0]]
    assert order_1.tolist() == [[2, 0, 0, 0]]  # after C: A twice
    assert order_2.tolist() == [[2, 0, 0, 0]]  # after AC: A twice
    probabilities = list(model.probabilities(reading("GACA", "...x", hide=False), weight=1.0))
    first = [(4 + 0.25) / 9, (3 + 0.25) / 9, (1 + 0.25) / 9, 0.25 / 9]
    np.testing.assert_allclose(probabilities[0], [first])
    np.testing.assert_allclose(probabilities[1], [[(2 + first[0]) / 3, *(np.array(first[1:]) / 3)]])


def test_counts_between_flanks():
    model = MarkovModel([encode_bases("AGCAGCATC")], order=1, flanks=True)
    _, order_1 = model.counts(reading("AGC", ".x.", hide=True))
    assert order_1.tolist() == [[0, 0, 2, 1]]  # A?C: G twice, T once


def test_an_unreadable_context_falls_back_to_the_lower_order():
    model = MarkovModel([encode_bases("ACGT" * 20)], order=3)
    probabilities = list(model.probabilities(reading("AACT", ".xx.", hide=True), weight=1.0))
    np.testing.assert_allclose(probabilities[1][1], probabilities[0][1])  # the base before is hidden as well
    assert not np.allclose(probabilities[1][0], probabilities[0][0])


def test_the_chosen_order_reaches_the_entropy_of_the_genome():
    rng = np.random.default_rng(0)
    base, bases = 0, []
    for _ in range(6000):  # nine times of ten the next base is the next letter
        base = (base + 1) % 4 if rng.random() < 0.9 else int(rng.integers(4))
        bases.append(base)
    genome = np.array(bases, np.uint8)
    model = MarkovModel([genome[:5000]], order=5)
    whole = Reading(genome[5000:], np.ones(1000, np.bool_), np.ones(1000, np.bool_))
    choice = model.choose([whole])
    right = 0.9 + 0.1 / 4
    entropy = -(right * math.log2(right) + 3 * 0.025 * math.log2(0.025))
    assert choice.curve[choice.order] == min(choice.curve) and choice.curve[1] - min(choice.curve) < 0.03
    assert choice.curve[1] == pytest.approx(entropy, abs=0.1) and choice.curve[0] == pytest.approx(2, abs=0.01)


def test_shares_of_hidden_bases():
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 4, 40_000, dtype=np.uint8)
    hidden = LanguageModeling("bert", mask_fraction=0.2).example(reference, 40_000, Rates(), rng).masking
    assert hidden is not None
    targets = hidden != VISIBLE
    assert targets.mean() == pytest.approx(0.2, abs=0.01)
    for fate, share in ((MASK, 0.8), (RANDOM, 0.1), (UNCHANGED, 0.1)):
        assert (hidden[targets] == fate).mean() == pytest.approx(share, abs=0.02)
    spans = LanguageModeling("span", mask_fraction=0.2, span_mean=5.0).example(reference, 40_000, Rates(), rng).masking
    assert spans is not None and (spans == MASK).mean() == pytest.approx(0.2, abs=0.001)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], spans, [0]]))))[::2]
    assert 5 < runs.mean() < 8  # runs that touch join


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([NucleotideTokenizer(), KmerTokenizer(3), KmerTokenizer(3, True)]))
def test_no_token_reveals_a_hidden_base(seed: int, tokenizer):
    """The ids of a batch do not depend on the hidden bases."""
    rng = np.random.default_rng(seed)
    task = LanguageModeling("bert", mask_fraction=0.3)
    example = fully_masked(task.example(rng.integers(0, 4, 50, dtype=np.uint8), 50, Rates(), rng))
    assert example.masking is not None
    other = np.where(example.masking == VISIBLE, example.bases, rng.integers(0, 4, 50, dtype=np.uint8)).astype(np.uint8)
    first, second = (
        collate([example._replace(bases=b)], tokenizer, context_format=task.context_format)
        for b in (example.bases, other)
    )
    assert first.ids.tolist() == second.ids.tolist()
    labelled = first.targets["token"] != IGNORE_INDEX
    assert bool((first.ids[labelled] == tokenizer.mask_id).all())


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome in which every base decides the next."""
    file = tmp_path_factory.mktemp("genome") / "turns.fa"
    file.write_text(">turns\n" + "ACGT" * 4000 + "\n" + "".join(f">short{n}\n{'ACGT' * n}\n" for n in (6, 9, 12)))
    return file


def run(folder: Path, *words: str) -> dict:
    assert main(["train", *SMALL, f"hydra.run.dir={folder}", *words]) == 0
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.usefixtures("alone", "quick")
@pytest.mark.parametrize(
    "words",
    [("task.objective=bert",), ("task.objective=span",), ("task.objective=causal", "model.causal=true")],
    ids=["bert", "span", "causal"],
)
def test_a_run_is_evaluated_again_with_the_same_metrics(words: tuple[str, ...], fasta: Path, tmp_path: Path):
    settings = (f"data.fasta={fasta}", "trainer.max_steps=40", "optimizer.lr=0.01", "schedule.warmup=2", *words)
    metrics = run(tmp_path / "run", *settings)
    learned = 1.2 if "task.objective=causal" in words else metrics["untrained/test/all/bits_per_base"] - 0.3
    assert metrics["model/test/all/bits_per_base"] < learned < metrics["untrained/test/all/bits_per_base"]
    bits = 1.9 if "span" in words[0] else 0.5  # the base before a hidden one is mostly hidden as well
    assert metrics["markov_left/test/all/bits_per_base"] < bits and metrics["markov_left/test/all/order"] >= 1
    assert ("markov_flanks/test/all/order" in metrics) == ("causal" not in words[0])
    assert metrics["model/test/all/loss_base"] == pytest.approx(metrics["model/test/all/bits_per_base"] * math.log(2))
    assert (tmp_path / "run" / "plots" / "bits_per_base.png").is_file()
    again = ["evaluate", *SMALL[4:], "data.length=64", f"data.fasta={fasta}", f"checkpoint={tmp_path / 'run'}"]
    assert main([*again, f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    metrics_again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert metrics_again["model/test/all/bits_per_base"] == pytest.approx(
        metrics["model/test/all/bits_per_base"], rel=1e-6
    )


@pytest.mark.usefixtures("alone", "quick")
def test_short_records_are_used_whole_and_sorted_by_length(fasta: Path, tmp_path: Path):
    short = fasta.parent / "short.fa"
    pieces = [f">s{n}\n{'ACGT' * (5 + n % 11)}\n" for n in range(300)]
    short.write_text(f">long\n{'ACGT' * 200}\n" + "".join(pieces))
    words = (f"data.fasta={short}", "data.min_length=8", "control=null", "trainer.max_steps=8")
    mixed, sorted_ = (
        run(tmp_path / name, *words, f"data.bucket_batches={n}") for name, n in (("mixed", 1), ("sorted", 8))
    )
    assert 0 < sorted_["cost/padding"] < 0.7 * mixed["cost/padding"]


@pytest.mark.usefixtures("alone", "quick")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task.objective=causal",), "needs model.causal=true"),
        (("model.causal=true",), "needs model.causal=false"),
        (("reverse_complement=average",), "reverse_complement must be none or augment with task=pretrain"),
        (("task.mask_fraction=0.0",), "task.mask_fraction must be a share of the bases above 0 and below 1, got 0.0"),
        (("task=paired", "data.min_length=8"), "data.min_length=8 takes records shorter than a window whole"),
        (("data.min_length=80",), "data.min_length must be at most data.length (64), got 80"),
    ],
)
def test_error_messages(words, sentence: str, fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = {word.split("=")[0]: word for word in SMALL} | {word.split("=")[0]: word for word in words}
    assert main(["train", *given.values(), f"data.fasta={fasta}", f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_span_mean_below_one_base_is_refused():
    with pytest.raises(UserError, match=r"task\.span_mean must be at least 1 base, got 0\.5"):
        LanguageModeling(span_mean=0.5)
