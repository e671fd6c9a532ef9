"""The model knows no padding and, where causal, no future; its stem and its loss are what a slow reading says."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.config.compose import compose
from genoattn.data.targets import IGNORE_INDEX, MUTATION_OUTPUTS, TargetSpec
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.detection.detectors import ModelDetector
from genoattn.models import predictor, recompute
from genoattn.models.block import ConvStem
from genoattn.models.pair_stem import NEIGHBOURS, AlignmentStem
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.loss import loss
from genoattn.training.schedule import WarmupCosine

CONF = Path(__file__).parents[2] / "conf" / "attention"
LAYERS = pytest.mark.parametrize("layer", sorted(path.stem for path in CONF.glob("*.yaml")))
DIRECTIONS = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
DIM, REACH, VOCABULARY = 16, 3, NucleotideTokenizer.vocabulary_size
CLASSES = {"substitution": 1, "insertion": 1, "deletion": 1, "shift": 2 * REACH + 1}


def build(layer: str = "window", max_shift: int | None = REACH, **changed: Any) -> SequenceModel:
    torch.manual_seed(0)
    attention = instantiate(compose("train", [f"attention={layer}"]).attention)
    settings: dict[str, Any] = {"dim": DIM, "block_conv": 3, "alignment_filters": 2, "alignment_kernel": 5} | changed
    return SequenceModel(VOCABULARY, CLASSES, max_shift, attention, **settings).double()


def build_or_skip(layer: str, **changed: Any) -> SequenceModel:
    """A model of a layer of conf/attention, which may refuse a direction in words."""
    try:
        return build(layer, **changed)
    except UserError as refusal:
        pytest.skip(str(refusal))


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Few letters, so that much matches."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 4, shape, dtype=np.uint8))


def joined(answers: dict[str, Tensor]) -> Tensor:
    return torch.cat(list(answers.values()), -1)


def naive_stem(stem: AlignmentStem, ids: Tensor, beside: Tensor, keep: Tensor, kernel: int, causal: bool) -> Tensor:
    """Base by base, diagonal by diagonal, from the stem's parameters."""
    reach, (batch, length) = stem.max_shift, ids.shape
    shifts, before = 2 * reach + 1, kernel - 1 if causal else kernel // 2
    rows = []
    for b in range(batch):
        match = torch.zeros(length, shifts, dtype=torch.float64)
        for i in range(length):
            for shift in range(-reach, reach + 1):
                match[i, reach + shift] = float(keep[b, i] and ids[b, i] == beside[b, reach + i + shift])
        for i in range(length):
            x = stem.reference.weight[int(beside[b, reach + i])] + stem.matches.weight @ match[i]
            if stem.filters:
                taps = [(t, i + t - before) for t in range(kernel) if 0 <= i + t - before < length]
                none = torch.zeros(shifts, dtype=torch.float64)
                smooth = [sum((row[t] * match[at] for t, at in taps), none) for row in stem.smooth]
                weights = [row.exp() / row.exp().sum() for row in smooth]
                x = x + stem.aligned.weight @ torch.cat(weights)
                seen = []
                for which in (0, 1):
                    centre = smooth[which].tolist().index(max(smooth[which].tolist()))
                    for row in (match[i], *weights):
                        for shift in range(centre - NEIGHBOURS, centre + NEIGHBOURS + 1):
                            seen.append(row[shift] if 0 <= shift < shifts else torch.zeros((), dtype=torch.float64))
                x = x + stem.framed.weight @ torch.stack(seen)
            rows.append(x)
    return torch.stack(rows).view(batch, length, -1)


@DIRECTIONS
@pytest.mark.parametrize(
    ("length", "reach", "filters", "kernel"), [(70, 3, 3, 5), (6, 12, 2, 9), (9, 0, 2, 3), (9, 3, 0, 5)]
)
def test_the_stem_is_what_the_slow_reading_says(length: int, reach: int, filters: int, kernel: int, causal: bool):
    torch.manual_seed(0)
    stem = AlignmentStem(5, VOCABULARY, reach, filters, kernel, causal).double()
    if filters:
        torch.nn.init.normal_(stem.smooth)
    ids, beside = draw(2, length), draw(2, length + 2 * reach, seed=1)
    keep = torch.ones(2, length, dtype=torch.bool)
    keep[1, length - length // 3 :] = False
    answers = stem(ids, beside, keep), naive_stem(stem, ids, beside, keep, kernel, causal)
    torch.testing.assert_close(*answers)
    pull = torch.randn_like(answers[0])
    quick, slow = (torch.autograd.grad((answer * pull).sum(), list(stem.parameters())) for answer in answers)
    for one, other in zip(quick, slow, strict=True):
        assert reach == 0 or one.abs().sum() > 0  # a softmax over one diagonal is 1 whatever its filter
        torch.testing.assert_close(one, other)


@DIRECTIONS
def test_a_match_is_a_sample_base_like_the_reference_base_so_far_away(causal: bool):
    stem = AlignmentStem(2 * REACH + 1, VOCABULARY, REACH, 0, 3, causal)
    with torch.no_grad():
        stem.matches.weight.copy_(torch.eye(2 * REACH + 1))
        stem.reference.weight.zero_()
    reference, ids = draw(1, 20), draw(1, 20 - 2 * REACH, seed=1)
    shown = stem(ids, reference, None)[0]
    for base in range(20 - 2 * REACH):
        for shift in range(-REACH, REACH + 1):
            assert shown[base, REACH + shift] == (ids[0, base] == reference[0, REACH + base + shift])


@pytest.mark.parametrize("kernel", [3, 9])
@DIRECTIONS
def test_filters_start_by_looking_to_one_side(causal: bool, kernel: int):
    stem = AlignmentStem(5, VOCABULARY, REACH, 9, kernel, causal)
    before, after = stem.sides
    assert (before, after) == ((kernel - 1, 0) if causal else (kernel // 2, kernel // 2))
    for number, row in enumerate(stem.smooth.tolist()):
        left, own, right = row[:before], row[before], row[before + 1 :]
        looks, blind = (left, right) if causal or number % 2 == 0 else (right, left)
        assert own == 0 and all(tap > 0 for tap in looks) and not any(blind)
        assert sum(looks) == pytest.approx(12)


@DIRECTIONS
@LAYERS
def test_padding_is_not_seen(layer: str, causal: bool):
    model = build_or_skip(layer, causal=causal)
    lengths = (11, 7, 1)
    ids, beside = draw(3, 11), draw(3, 11 + 2 * REACH, seed=1)  # what is beyond a length is poison: it would match
    keep = torch.arange(11) < torch.tensor(lengths)[:, None]
    pull = torch.randn(3, 11, sum(CLASSES.values()), dtype=torch.float64)
    together = joined(model(ids, beside, TokenLayout(padding_mask=keep)))
    alone = [
        joined(model(ids[n : n + 1, :length], beside[n : n + 1, : length + 2 * REACH]))[0]
        for n, length in enumerate(lengths)
    ]
    torch.testing.assert_close(together[keep], torch.cat(alone))
    gradients = [
        torch.autograd.grad((answer * pull[keep]).sum(), list(model.parameters()))
        for answer in (together[keep], torch.cat(alone))
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@LAYERS
def test_a_causal_model_knows_no_later_sample_base(layer: str):
    at = 8
    beside = draw(2, 20 + 2 * REACH, seed=1)
    ids, other = draw(2, 20), draw(2, 20)
    other[:, at + 1 :] = (ids[:, at + 1 :] + 1) % 4
    for causal in (True, False):
        model = build_or_skip(layer, causal=causal)
        embedded: list[Tensor] = []
        model.embed.register_forward_hook(lambda _, __, x: embedded.append(x))  # noqa: B023
        answers = joined(model(ids, beside))
        (gradient,) = torch.autograd.grad(answers[:, : at + 1].sum(), embedded[0])
        later = joined(model(other, beside))
        if causal:
            torch.testing.assert_close(answers[:, : at + 1], later[:, : at + 1])
            sizes = gradient.abs().amax((0, 2))
            assert (sizes[at + 1 :] <= 1e-12 * sizes.max()).all() and sizes[at] > 0  # what an FFT rounds
        else:  # the convolution looks one base ahead, in each of two blocks, if nothing else does
            assert (answers[:, at] - later[:, at]).abs().max() > 1e-6 and (gradient[:, at + 2] != 0).any()


@pytest.mark.parametrize(("causal", "seen"), [(False, range(-2, 3)), (True, range(-4, 1))])
def test_a_convolution_sees_its_kernel_and_no_further(causal: bool, seen: range):
    model = build("none", max_shift=None, block_conv=5, depth=1, causal=causal)
    ids = draw(1, 21)
    other = ids.clone()
    other[0, 10] = (ids[0, 10] + 1) % 4
    changed = (joined(model(ids)) - joined(model(other))).abs().amax(-1)[0] > 1e-9
    assert torch.nonzero(changed).flatten().tolist() == [10 - offset for offset in reversed(seen)]


def interleaved(pairs: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, TokenLayout]:
    """Ids and layout of two sequences in turn; the rows lose one base of one sequence and then whole pairs."""
    positions = torch.arange(pairs).repeat_interleave(2).expand(batch, -1)
    tokens = torch.arange(2 * pairs).expand(batch, -1)
    keep = tokens < 2 * pairs - 3 * torch.arange(batch)[:, None]
    return draw(batch, 2 * pairs, seed=seed), TokenLayout(keep, positions, tokens % 2)


@pytest.mark.parametrize("dim", [12, 32], ids=["vectors", "indicators"])  # 19 kinds of tokens and segments
@DIRECTIONS
def test_convolutions_of_an_interleaved_context_are_those_of_each_sequence(dim: int, causal: bool):
    settings = {"dim": dim, "max_shift": None, "segment_count": 2, "stem_conv": 5, "depth": 1, "causal": causal}
    both, alone = build("none", interleaved=True, **settings), build("none", **settings)
    alone.load_state_dict(both.state_dict())
    ids, layout = interleaved(20)
    for parity in (0, 1):
        one = TokenLayout(
            *(field[:, parity::2] for field in (layout.padding_mask, layout.position_ids, layout.segment_ids))
        )
        kept = one.padding_mask
        assert kept is not None
        found = joined(both(ids, layout=layout))[:, parity::2][kept]
        torch.testing.assert_close(found, joined(alone(ids[:, parity::2], layout=one))[kept])


@pytest.mark.parametrize("step", [1, 2])
@DIRECTIONS
def test_a_stem_of_indicators_is_that_of_the_vectors(step: int, causal: bool):
    torch.manual_seed(0)
    stem, vectors = ConvStem(9, 5, causal, step).double(), torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    ids, keep = draw(2, 17).long(), torch.rand(2, 17) < 0.8
    indicators = torch.nn.functional.one_hot(ids, 4).double()
    ways = stem.from_indicators(indicators, vectors, keep), stem(vectors[ids], keep)
    torch.testing.assert_close(*ways)
    pulls = (torch.autograd.grad(way.sin().sum(), [vectors, *stem.parameters()]) for way in ways)
    for one, other in zip(*pulls, strict=True):
        torch.testing.assert_close(one, other)


def test_answers_by_output():
    model = build()
    ids, beside = draw(2, 9), draw(2, 9 + 2 * REACH)
    answers = model(ids, beside)
    assert {name: tuple(answer.shape) for name, answer in answers.items()} == {
        name: (2, 9, classes) for name, classes in CLASSES.items()
    }
    with torch.no_grad():
        model.token_head.weight.zero_()
        model.token_head.bias.copy_(torch.arange(3 + CLASSES["shift"]))
    answers = model(ids, beside)
    assert answers["deletion"][0, 0].tolist() == [2] and answers["shift"][0, 0].tolist() == list(range(3, 10))
    assert build(max_shift=None).alignment_stem is None and build(max_shift=None)(ids)["shift"].shape == (2, 9, 7)
    with pytest.raises(AssertionError, match="shows a reference"):
        model(ids)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dim": 0}, r"model\.dim must be at least 1, got 0"),
        ({"depth": 0}, r"model\.depth must be at least 1, got 0"),
        ({"mlp_ratio": 0}, r"model\.mlp_ratio must be at least 1 / model\.dim, so that the MLP has a channel, got 0"),
        ({"block_conv": -1}, r"model\.block_conv must be at least 0, got -1"),
        ({"block_conv": 4}, r"model\.block_conv must be odd, so that it has a centre, or 0 for none, got 4"),
        ({"alignment_filters": -1}, r"model\.alignment_filters must be .*, got -1"),
        (
            {"alignment_kernel": 4},
            r"model\.alignment_kernel must be odd, so that it has a centre, and at least 3, got 4",
        ),
        (
            {"alignment_kernel": 1},
            r"model\.alignment_kernel must be odd, so that it has a centre, and at least 3, got 1",
        ),
        ({"dim": 18}, r"heads\.count must divide the model's dim of 18, got 4"),
    ],
)
def test_models_that_make_no_sense(wrong: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        build(**wrong)


def test_a_scorer_scores_each_example_as_if_alone(monkeypatch: pytest.MonkeyPatch):
    task, rng = SideBySide(max_shift=REACH), np.random.default_rng(0)
    examples = [
        task.example(rng.integers(0, 4, task.reference_length(length), dtype=np.uint8), length, task.rates, rng)
        for length in (12, 20, 7, 20, 9)
    ]
    model = build()
    monkeypatch.setattr(predictor, "BATCH_BASES", 45)  # two of the longest at once
    scores = ModelDetector(Candidate("model", "window", predictor.Predictor(NucleotideTokenizer(), task, model)))(
        examples
    )
    assert model.training
    for example, found in zip(examples, scores, strict=True):
        assert example.reference_window is not None
        answers = model(torch.from_numpy(example.bases)[None], torch.from_numpy(example.reference_window)[None])
        expected = torch.cat([answers[name] for name in MUTATION_OUTPUTS], -1)[0].sigmoid()
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-9)


@LAYERS
def test_recomputing_changes_no_key_no_answer_and_no_gradient(layer: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recompute, "CHUNK", 16)  # of the 40 tokens
    ids, beside = draw(2, 20), draw(2, 20 + 2 * REACH, seed=1)
    found = []
    for mode in ("none", "mlp", "block"):
        model = build(layer, activation_checkpointing=mode).train()
        answers = joined(model(ids, beside))
        answers.square().sum().backward()
        pulls = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        found.append((list(model.state_dict()), answers.detach(), pulls))
    keys, answers, pulls = found[0]
    for others, again, repeated in found[1:]:
        assert keys == others and pulls.keys() == repeated.keys()
        assert torch.allclose(answers, again, rtol=1e-12)
        assert all(torch.allclose(one, repeated[name], atol=1e-12) for name, one in pulls.items())


@pytest.mark.parametrize("made", [0, 1, 2])
def test_what_is_made_again_is_not_kept(made: int):
    kept = []
    model = build(
        "full", dim=32, block_conv=0, max_shift=None, activation_checkpointing=("none", "mlp", "block")[made]
    ).train()
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.nbytes), lambda one: one):
        model(draw(1, 1000))
    numbers = sum(kept) / 8 / 1000 / 32  # a token, in widths of the model; two blocks
    assert (numbers > 40, 10 < numbers < 35, numbers < 10)[made], numbers


@LAYERS
def test_a_stream_answers_an_interleaved_context(layer: str):
    settings = {"max_shift": None, "segment_count": 2, "interleaved": True, "stem_conv": 5, "dim": 32}
    model = build(layer, **settings).eval()
    ids, layout = interleaved(40)
    whole, pieces = model(ids, layout=layout), model.forward_chunked(ids, layout=layout, chunk=24)
    torch.testing.assert_close(joined(pieces)[layout.padding_mask], joined(whole)[layout.padding_mask])


@DIRECTIONS
@LAYERS
def test_a_stream_answers_what_forward_does(layer: str, causal: bool):
    model = build_or_skip(layer, causal=causal, stem_conv=7).eval()
    ids, beside = draw(2, 90), draw(2, 90 + 2 * REACH, seed=1)
    keep = torch.arange(90) < torch.tensor([[90], [61]])
    for layout in (TokenLayout(), TokenLayout(keep, torch.arange(90).expand(2, -1) + 5)):
        whole, pieces = model(ids, beside, layout), model.forward_chunked(ids, beside, layout, chunk=24)
        assert whole.keys() == pieces.keys()
        real = slice(None) if layout.padding_mask is None else keep
        for name, answer in whole.items():
            assert torch.allclose(pieces[name][real], answer[real], atol=1e-10)


TWO = {"insertion": TargetSpec(1, 2.0), "shift": TargetSpec(3, 0.5)}


def small(targets: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: target.to(torch.int8) for name, target in targets.items()}


def test_the_loss_by_hand():
    logits = {"insertion": torch.tensor([[[0.5], [-1.0], [3.0]]]), "shift": torch.tensor([[[1.0, 0, -1]] * 3])}
    targets = {
        "insertion": torch.tensor([[1, 0, IGNORE_INDEX]]),
        "shift": torch.tensor([[IGNORE_INDEX, 2, IGNORE_INDEX]]),
    }
    found = loss(logits, small(targets), TWO)
    insertion = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(-1.0))) / 2
    shift = math.log(math.exp(1) + 1 + math.exp(-1)) + 1
    assert float(found.terms["insertion"]) == pytest.approx(insertion)
    assert float(found.terms["shift"]) == pytest.approx(shift)
    assert float(found.total) == pytest.approx(2 * insertion + 0.5 * shift)
    half = loss({name: one.bfloat16() for name, one in logits.items()}, small(targets), TWO)
    assert half.total.dtype == torch.float32 and float(half.total) == pytest.approx(float(found.total))


def test_what_is_not_asked_pulls_nothing():
    torch.manual_seed(0)
    logits = {name: torch.randn(2, 6, output.classes, requires_grad=True) for name, output in TWO.items()}
    asked = torch.tensor([[True, True, False, False, True, False], [False] * 5 + [True]])
    targets = {name: torch.where(asked, 1, IGNORE_INDEX).to(torch.int8) for name in TWO}
    loss(logits, targets, TWO).total.backward()
    for one in logits.values():
        assert one.grad is not None
        assert (one.grad[~asked] == 0).all() and (one.grad[asked] != 0).all()


def test_an_output_of_which_nothing_is_asked_costs_nothing():
    logits = {name: torch.randn(2, 4, output.classes, requires_grad=True) for name, output in TWO.items()}
    targets = {name: torch.full((2, 4), IGNORE_INDEX, dtype=torch.int8) for name in TWO}
    found = loss(logits, targets, TWO)
    found.total.backward()
    assert [one.item() for one in (found.total, *found.terms.values())] == [0, 0, 0]
    assert all(one.grad is not None and (one.grad == 0).all() for one in logits.values())


def test_the_learning_rate_rises_and_falls():
    schedule = WarmupCosine(warmup=4, final=0.1)
    factors = [schedule(step, 24) for step in range(26)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[14] == pytest.approx(0.55)  # half way down
    assert factors[24] == factors[25] == pytest.approx(0.1)
    assert factors[4:25] == sorted(factors[4:25], reverse=True)
    assert WarmupCosine(warmup=0)(0, 10) == 1
    assert WarmupCosine(warmup=50)(9, 10) == pytest.approx(10 / 51)  # a run that ends while it warms up
    for wrong, words in (
        ({"warmup": -1}, r"schedule\.warmup .* got -1"),
        ({"final": 2.0}, r"schedule\.final .* got 2"),
    ):
        with pytest.raises(UserError, match=words):
            WarmupCosine(**wrong)
