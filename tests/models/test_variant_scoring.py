"""Scores of variants: by a model whose probabilities are known, by naive windows, and apart from their neighbours."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genoattn.data.example import Example, reverse_complement_example
from genoattn.genome.alphabet import decode_bases, encode_bases, reverse_complement
from genoattn.genome.mutations import Mutation, mutated_sequence
from genoattn.genome.scorable import Allele
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.variant_windows import window_pairs
from genoattn.models.pretrained import PretrainedModel
from genoattn.models.variant_scoring import VariantScorer
from tests.toy_models import CAUSAL, MASKED, SHARES, TOKENIZERS, VARIANTS, memoryless, toy_model

SIDE_BY_SIDE = {"_target_": "genoattn.data.tasks.side_by_side.SideBySide"}
KMERS = {"_target_": f"{TOKENIZERS}.kmer.KmerTokenizer", "k": 2}
BPE = {"_target_": f"{TOKENIZERS}.bpe.BpeTokenizer", "vocabulary_size": 20, "merges": ["A C", "AC G"]}
SNV, MNV = Allele(0, Mutation(70, 71, b"\1")), Allele(0, Mutation(71, 73, b"\0\0"))
INSERTION, DELETION = Allele(0, Mutation(75, 75, b"\1\1\2")), Allele(0, Mutation(70, 74, b""))
EDGE, LONG = Allele(0, Mutation(149, 150, b"")), Allele(0, Mutation(60, 100, b""))
ALL = [SNV, MNV, INSERTION, DELETION, EDGE, LONG]


@pytest.fixture(scope="module")
def record() -> np.ndarray:
    codes = np.random.default_rng(3).integers(0, 4, 150, np.uint8)
    codes[70:76] = encode_bases("ATTGCC")
    return codes


@pytest.fixture(scope="module")
def genome(alone: None, record: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Genome:
    fasta: Path = tmp_path_factory.mktemp("genome") / "x.fa"
    fasta.write_text(f">x\n{decode_bases(record)}\n")
    return open_genome([fasta])


def column(scorer: VariantScorer, scored: list, name: str) -> list[float]:
    number = [field.name for field in scorer.fields].index(name)
    return [values[number] for values, _ in scored]


def test_ratios_of_a_model_that_is_known(genome: Genome, record: np.ndarray) -> None:
    """Bases are independent: the ratio of a substitution is that of its letters; of an indel, of what moves in."""
    scorer = VariantScorer(memoryless(toy_model(CAUSAL)), embeddings=False)
    assert [field.name for field in scorer.fields] == ["GA_LLR"]
    scored = scorer.score(genome, ALL)
    ratios, logs = column(scorer, scored, "GA_LLR"), np.log(SHARES)
    assert ratios[0] == pytest.approx(logs[1] - logs[0]) and ratios[1] == pytest.approx(2 * logs[0] - 2 * logs[3])
    inserted = 2 * logs[1] + logs[2]
    # The window of 32 bases around base 75 is [59, 91); its first base is not predicted.
    left = inserted - logs[record[88:91]].sum()
    right = inserted - logs[record[60:63]].sum()
    assert ratios[2] == pytest.approx((left + right) / 2)
    mutated = mutated_sequence(record, [EDGE.mutation])  # the last base of the record: anchored at the right alone
    assert ratios[4] == pytest.approx(logs[mutated[118:]].sum() - logs[record[119:]].sum())
    assert np.isnan(ratios[5]) and [reason for _, reason in scored] == [""] * 5 + ["too_long"]


@pytest.mark.parametrize("tokenizer", [None, KMERS, {**KMERS, "overlapping": True}])
def test_a_causal_ratio_is_the_difference_of_two_likelihoods(tokenizer: dict | None, genome: Genome) -> None:
    loaded = toy_model(CAUSAL, **({"tokenizer": tokenizer} if tokenizer else {}))
    for both in (False, True):
        scorer = VariantScorer(loaded, length=20, both_strands=both)
        likelihood, expected = PretrainedModel(loaded).likelihood, []
        for _, mutation, _ in ALL[:-1]:
            sums = []
            for pair in window_pairs(genome, 0, mutation, 20):
                turned = [[reverse_complement(window.bases) for window in pair]] if both else []
                for first, second in ([window.bases for window in pair], *turned):
                    sums.append(np.nansum(likelihood(second)) - np.nansum(likelihood(first)))
            expected.append(np.mean(sums))
        assert column(scorer, scorer.score(genome, ALL[:-1]), "GA_LLR") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("tokenizer", [None, KMERS, {**KMERS, "overlapping": True}])
def test_a_masked_ratio_is_that_of_the_masked_bases(tokenizer: dict | None, genome: Genome) -> None:
    loaded = toy_model(MASKED, **({"tokenizer": tokenizer} if tokenizer else {}))
    scorer = VariantScorer(loaded, embeddings=False, both_strands=True)
    scored = scorer.score(genome, [SNV, MNV, INSERTION])
    assert [reason for _, reason in scored] == ["", "", "masked_model_indel"]
    predictor, expected = loaded.predictor, []
    for allele in (SNV, MNV):
        ((first, second),) = window_pairs(genome, 0, allele.mutation, 32)
        masking = (first.bases != second.bases).astype(np.uint8)
        one = Example(first.bases, None, {}, (), masking=masking)
        ratio = 0.0
        for example, other in (
            (one, second.bases),
            (reverse_complement_example(one), reverse_complement(second.bases)),
        ):
            ((_, logits),) = list(predictor.logits([example]))
            p = logits["token"][0].softmax(-1)
            old, new = (predictor.tokenizer.encode(bases).ids.astype(int) for bases in (example.bases, other))
            if tokenizer and tokenizer.get("overlapping"):  # a token owns its first base
                own = np.flatnonzero(example.masking)
                table = torch.stack([p[:, 17 + 4 * n : 21 + 4 * n].sum(1) + p[:, n] for n in range(4)], 1)
                ratio += sum(float(table[n, other[n]].log() - table[n, example.bases[n]].log()) for n in own)
            else:
                places = np.flatnonzero(old != new)
                ratio += sum(float(p[n, new[n]].log() - p[n, old[n]].log()) for n in places)
        expected.append(ratio / 2)
    assert column(scorer, scored, "GA_LLR")[:2] == pytest.approx(expected, abs=1e-9)


def test_a_tokenizer_that_cuts_both_alleles_differently(genome: Genome) -> None:
    scored = VariantScorer(toy_model(MASKED, tokenizer=BPE), embeddings=False).score(genome, [SNV])
    assert scored[0].reason == "other_tokens" and np.isnan(scored[0].values[0])


def test_a_flipped_row_has_the_ratio_of_the_other_direction_turned(genome: Genome) -> None:
    for task in (CAUSAL, MASKED):
        scorer = VariantScorer(toy_model(task))
        (forward, _), (backward, reason) = scorer.score(genome, [MNV, MNV._replace(flipped=True)])
        assert backward[0] == pytest.approx(-forward[0]) and reason == "flipped"
        assert backward[1:] == pytest.approx(forward[1:])


def test_distances_are_those_of_embeddings(genome: Genome) -> None:
    for task in (CAUSAL, SIDE_BY_SIDE, VARIANTS):
        loaded = toy_model(task)
        scorer = VariantScorer(loaded, both_strands=task is CAUSAL)
        scored = scorer.score(genome, [INSERTION])
        model, expected = PretrainedModel(loaded), []
        for first, second in window_pairs(genome, 0, INSERTION.mutation, 32):
            tables = []
            for window in (first, second):
                table = model.embed([window.bases])[0]
                if task is CAUSAL:
                    table = (table + model.embed([reverse_complement(window.bases)])[0][::-1]) / 2
                tables.append((table.mean(0), table[window.start : max(window.stop, window.start + 1)].mean(0)))
            (mean, site), (other_mean, other_site) = tables
            pair = []
            for a, b in ((mean, other_mean), (site, other_site)):
                pair += [1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), np.linalg.norm(a - b)]
            expected.append(pair)
        names = ("GA_COS", "GA_EUC", "GA_COS_SITE", "GA_EUC_SITE")
        found = [column(scorer, scored, name)[0] for name in names]
        assert found == pytest.approx(np.mean(expected, 0), abs=1e-5) and found[3] > 1e-3


def test_classes(genome: Genome, record: np.ndarray) -> None:
    loaded = toy_model(VARIANTS)
    scorer = VariantScorer(loaded, embeddings=False)
    scored = scorer.score(genome, [SNV, DELETION, SNV._replace(flipped=True), LONG])
    assert [field.name for field in scorer.fields] == ["GA_P_benign", "GA_P_not_benign"]
    window = record[54:86]
    alternate = window.copy()
    alternate[16] = 1
    model, site = PretrainedModel(loaded), (16, 17)
    for values, pair in ((scored[0].values, (window, alternate)), (scored[2].values, (alternate, window))):
        assert values == pytest.approx(list(model.classify(*pair, (site, site)).values()))
    assert sum(scored[1].values) == pytest.approx(1) and np.isnan(scored[3].values[0])


@pytest.mark.parametrize("task", [CAUSAL, MASKED, VARIANTS], ids=["causal", "masked", "classes"])
def test_a_score_depends_on_no_other(task: dict, genome: Genome) -> None:
    sizes = [(1, b"\0"), (0, b"\2\1"), (2, b""), (2, b"\1\3"), (3, b"\0")]
    alleles = [Allele(0, Mutation(n, n + sizes[n % 5][0], sizes[n % 5][1])) for n in range(1, 147, 18)]
    together = VariantScorer(toy_model(task), batch=64).score(genome, alleles)
    scorer = VariantScorer(toy_model(task), batch=1)
    for allele, (values, reason) in zip(alleles, together, strict=True):
        ((alone, own),) = scorer.score(genome, [allele])
        assert alone == pytest.approx(values, abs=1e-10, nan_ok=True) and own == reason
        assert [field.text(a) for field, a in zip(scorer.fields, alone, strict=True)] == [
            field.text(b) for field, b in zip(scorer.fields, values, strict=True)
        ]
