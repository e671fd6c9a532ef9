"""Language modelling: what is hidden, what counts of a genome say by hand, and that whole runs are examined."""

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
SMALL += ("test.threshold_windows=6", "test.resamples=5")


def reading(text: str, asked: str, hide: bool) -> Reading:
    told = np.array([mark == "x" for mark in asked])
    return Reading(encode_bases(text), ~told if hide else np.ones(len(text), np.bool_), told)


def test_counts_by_hand():
    model = MarkovModel([encode_bases("ACACAG"), encode_bases("ACN")], order=2)
    zero, one, two = model.counts(reading("GACA", "...x", hide=False))
    assert zero.tolist() == [[4, 3, 1, 0]]
    assert one.tolist() == [[2, 0, 0, 0]]  # after C: A twice
    assert two.tolist() == [[2, 0, 0, 0]]  # after AC: A twice
    probabilities = list(model.probabilities(reading("GACA", "...x", hide=False), weight=1.0))
    first = [(4 + 0.25) / 9, (3 + 0.25) / 9, (1 + 0.25) / 9, 0.25 / 9]
    np.testing.assert_allclose(probabilities[0], [first])
    np.testing.assert_allclose(probabilities[1], [[(2 + first[0]) / 3, *(np.array(first[1:]) / 3)]])


def test_counts_between_flanks():
    model = MarkovModel([encode_bases("AGCAGCATC")], order=1, flanks=True)
    _, one = model.counts(reading("AGC", ".x.", hide=True))
    assert one.tolist() == [[0, 0, 2, 1]]  # A?C: G twice, T once


def test_a_context_that_cannot_be_read_falls_back():
    model = MarkovModel([encode_bases("ACGT" * 20)], order=3)
    probabilities = list(model.probabilities(reading("AACT", ".xx.", hide=True), weight=1.0))
    np.testing.assert_allclose(probabilities[1][1], probabilities[0][1])  # the base before is hidden as well
    assert not np.allclose(probabilities[1][0], probabilities[0][0])


def test_the_order_that_is_chosen_says_what_the_genome_says():
    rng = np.random.default_rng(0)
    base, bases = 0, []
    for _ in range(6000):  # the next base is one further on, nine times of ten
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


def test_shares_of_what_is_hidden():
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 4, 40_000, dtype=np.uint8)
    hidden = LanguageModeling("bert", mask_fraction=0.2).example(reference, 40_000, Rates(), rng).masking
    assert hidden is not None
    asked = hidden != VISIBLE
    assert asked.mean() == pytest.approx(0.2, abs=0.01)
    for fate, share in ((MASK, 0.8), (RANDOM, 0.1), (UNCHANGED, 0.1)):
        assert (hidden[asked] == fate).mean() == pytest.approx(share, abs=0.02)
    spans = LanguageModeling("span", mask_fraction=0.2, span_mean=5.0).example(reference, 40_000, Rates(), rng).masking
    assert spans is not None and (spans == MASK).mean() == pytest.approx(0.2, abs=0.001)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], spans, [0]]))))[::2]
    assert 5 < runs.mean() < 8  # runs that touch join


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([NucleotideTokenizer(), KmerTokenizer(3), KmerTokenizer(3, True)]))
def test_no_token_gives_a_hidden_base_away(seed: int, tokenizer):
    """Whatever stands at the hidden bases, what is shown is the same."""
    rng = np.random.default_rng(seed)
    task = LanguageModeling("bert", mask_fraction=0.3)
    example = fully_masked(task.example(rng.integers(0, 4, 50, dtype=np.uint8), 50, Rates(), rng))
    assert example.masking is not None
    other = np.where(example.masking == VISIBLE, example.bases, rng.integers(0, 4, 50, dtype=np.uint8)).astype(np.uint8)
    one, two = (
        collate([example._replace(bases=b)], tokenizer, context_format=task.context_format)
        for b in (example.bases, other)
    )
    assert one.ids.tolist() == two.ids.tolist()
    asked = one.targets["token"] != IGNORE_INDEX
    assert bool((one.ids[asked] == tokenizer.mask_id).all())


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome in which every base tells the next."""
    file = tmp_path_factory.mktemp("genome") / "turns.fa"
    file.write_text(">turns\n" + "ACGT" * 4000 + "\n" + "".join(f">short{n}\n{'ACGT' * n}\n" for n in (6, 9, 12)))
    return file


def run(folder: Path, *words: str) -> dict:
    assert main(["train", *SMALL, f"hydra.run.dir={folder}", *words]) == 0
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "words",
    [("task.objective=bert",), ("task.objective=span",), ("task.objective=causal", "model.causal=true")],
    ids=["bert", "span", "causal"],
)
def test_a_run_is_examined_and_examined_again(words: tuple[str, ...], fasta: Path, tmp_path: Path):
    settings = (f"data.fasta={fasta}", "trainer.max_steps=40", "optimizer.lr=0.01", "schedule.warmup=2", *words)
    found = run(tmp_path / "run", *settings)
    learned = 1.2 if "task.objective=causal" in words else found["untrained/test/all/bits_per_base"] - 0.3
    assert found["model/test/all/bits_per_base"] < learned < found["untrained/test/all/bits_per_base"]
    bits = 1.9 if "span" in words[0] else 0.5  # the base before a hidden one is mostly hidden as well
    assert found["markov_left/test/all/bits_per_base"] < bits and found["markov_left/test/all/order"] >= 1
    assert ("markov_flanks/test/all/order" in found) == ("causal" not in words[0])
    assert found["model/test/all/loss_base"] == pytest.approx(found["model/test/all/bits_per_base"] * math.log(2))
    assert (tmp_path / "run" / "plots" / "bits_per_base.png").is_file()
    again = ["evaluate", *SMALL[4:], "data.length=64", f"data.fasta={fasta}", f"checkpoint={tmp_path / 'run'}"]
    assert main([*again, f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    told = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert told["model/test/all/bits_per_base"] == pytest.approx(found["model/test/all/bits_per_base"], rel=1e-6)


@pytest.mark.usefixtures("alone")
def test_short_records_are_taken_whole_and_sorted_by_length(fasta: Path, tmp_path: Path):
    short = fasta.parent / "short.fa"
    pieces = [f">s{n}\n{'ACGT' * (5 + n % 11)}\n" for n in range(300)]
    short.write_text(f">long\n{'ACGT' * 200}\n" + "".join(pieces))
    words = (f"data.fasta={short}", "data.min_length=8", "control=null", "trainer.max_steps=8")
    mixed, sorted_ = (
        run(tmp_path / name, *words, f"data.bucket_batches={n}") for name, n in (("mixed", 1), ("sorted", 8))
    )
    assert 0 < sorted_["cost/padding"] < 0.7 * mixed["cost/padding"]


@pytest.mark.usefixtures("alone")
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
def test_mistakes_read_well(words, sentence: str, fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = {word.split("=")[0]: word for word in SMALL} | {word.split("=")[0]: word for word in words}
    assert main(["train", *given.values(), f"data.fasta={fasta}", f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert sentence in capsys.readouterr().err


def test_what_makes_no_sense():
    with pytest.raises(UserError, match=r"task\.span_mean must be at least 1 base, got 0\.5"):
        LanguageModeling(span_mean=0.5)
