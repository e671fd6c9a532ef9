"""A scan gives every mutant the score that it has as a variant of its own, however it is computed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.mutations import Mutation
from genoattn.genome.scorable import Allele
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.models import variant_scan
from genoattn.models.variant_scan import MUTANTS, RegionScanner
from genoattn.models.variant_scoring import VariantScorer
from tests.toy_models import CAUSAL, MASKED, TOKENIZERS, VARIANTS, toy_model

NUMBERS = VARIANTS | {"target": "score", "score": "effect"}
KMERS = {"_target_": f"{TOKENIZERS}.kmer.KmerTokenizer", "k": 2}


@pytest.fixture(scope="module")
def genome(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Genome:
    fasta: Path = tmp_path_factory.mktemp("genome") / "x.fa"
    letters = decode_bases(np.random.default_rng(4).integers(0, 4, 60, np.uint8))
    fasta.write_text(f">x\n{letters[:42]}AAAN{letters[46:]}\n")
    return open_genome([fasta])


def expected(scorer: VariantScorer, genome: Genome, start: int, stop: int) -> np.ndarray:
    """The table by scores of variants."""
    table = np.full((stop - start, 5), 0.0 if scorer.objective else np.nan)
    places, alleles = [], []
    for row, code in enumerate(genome.fetch(0, start, stop).tolist()):
        table[row] = np.nan if code > 3 else table[row]
        for column in range(5):
            if column != code and code < 4:
                places.append((row, column))
                inserted = bytes([column]) if column < 4 else b""
                alleles.append(Allele(0, Mutation(start + row, start + row + 1, inserted)))
    for place, (values, _) in zip(places, scorer.score(genome, alleles), strict=True):
        table[place] = np.log(values[0] / (1 - values[0])) if scorer.classes else values[0]
    return table


def table_of(scanner: RegionScanner, genome: Genome, start: int, stop: int) -> np.ndarray:
    return np.concatenate(list(scanner.scan(genome, 0, start, stop)))


@pytest.mark.parametrize(("layer", "both"), [("linear", False), ("linear", True), ("window", True), ("delta", True)])
def test_continued_states_give_the_scores_of_variants(layer: str, both: bool, genome: Genome) -> None:
    scorer = VariantScorer(toy_model(CAUSAL, layer=layer), length=11, both_strands=both, embeddings=False, batch=3)
    scanner = RegionScanner(scorer)
    assert scanner.streams
    computed = []
    scorer_of = scorer.score
    scorer.score = lambda *args: computed.append(args) or scorer_of(*args)  # type: ignore[method-assign]
    found = table_of(scanner, genome, 42, 48)
    assert not computed
    assert found == pytest.approx(expected(scorer, genome, 42, 48), abs=1e-9, nan_ok=True)
    assert np.isnan(found[3]).all() and np.abs(found[:3]).max() > 0.01


@pytest.mark.parametrize(
    ("task", "tokenizer"),
    [(CAUSAL, None), (CAUSAL, KMERS), (MASKED, None), (MASKED, KMERS), (VARIANTS, None), (NUMBERS, None)],
)
def test_a_whole_record(task: dict, tokenizer: dict | None, genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant_scan, "PIECE", 20)
    loaded = toy_model(task, length=16, **({"tokenizer": tokenizer} if tokenizer else {}))
    scorer = VariantScorer(loaded, embeddings=False, batch=16)
    scanner = RegionScanner(scorer)
    found = table_of(scanner, genome, 0, 60)
    assert found.shape == (60, len(MUTANTS)) and scanner.streams == (task is CAUSAL and tokenizer is None)
    chosen = [0, 8, 30, 44, 59]
    for start in chosen:
        assert found[start : start + 1] == pytest.approx(
            expected(scorer, genome, start, start + 1), abs=1e-9, nan_ok=True
        )
    assert np.isnan(found[:, 4]).all() == (task is MASKED)


def test_a_masked_model_reads_a_window_once(genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, seen = toy_model(MASKED, length=16), []
    scanner = RegionScanner(VariantScorer(loaded, embeddings=False))
    loaded.predictor.model.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    table_of(scanner, genome, 20, 30)
    assert sum(seen) == 10


def test_detectors_are_refused() -> None:
    task = {"_target_": "genoattn.data.tasks.side_by_side.SideBySide"}
    with pytest.raises(UserError, match="trained for SideBySide; a scan needs"):
        RegionScanner(VariantScorer(toy_model(task)))


@pytest.mark.parametrize("layer", ["linear", "window", "delta", "ssd", "conv"])
def test_steps_of_a_model_are_its_features(layer: str) -> None:
    model = toy_model(CAUSAL, layer=layer).predictor.model.double().eval()
    ids = torch.randint(0, 4, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model.features(ids)
        first, state = model.step(ids[:, :17], model.init_state(2))
        other, _ = model.step(3 - ids[:, 17:30], state)  # a continuation that leaves the state as it was
        second, after = model.step(ids[:, 17:18], state)
        third, _ = model.step(ids[:, 18:], after)
    assert torch.allclose(torch.cat([first, second, third], 1), whole, atol=1e-12)
    assert not torch.allclose(other, whole[:, 17:30])
