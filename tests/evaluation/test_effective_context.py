"""Effective context: models whose receptive field is known, and every base replaced by hand."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genoattn.attention.full import FullAttention
from genoattn.attention.hybrid import cycle
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.none import NoAttention
from genoattn.attention.window import WindowAttention
from genoattn.cli.main import main
from genoattn.cli.values import plain
from genoattn.config.compose import compose
from genoattn.data.batch import collate
from genoattn.data.example import Example
from genoattn.data.tasks.associative_recall import AssociativeRecall
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.language_modeling import LanguageModeling
from genoattn.data.tasks.paired import Paired
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.data.tokenizers.bpe import BpeTokenizer
from genoattn.data.tokenizers.kmer import KmerTokenizer
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.evaluation.effective_context import (
    EffectCurve,
    Effects,
    _changed,
    _positions,
    context_positions,
    effect_curve,
    effective_context,
    nearby_effect,
    perturbation_effect,
    steps,
    theoretical_receptive_field,
)
from genoattn.genome.simulate import Rates
from genoattn.models.block import AttentionFactory
from genoattn.models.build import build_from_card
from genoattn.models.card import ModelCard
from genoattn.models.checkpoint import save_model
from genoattn.models.predictor import Predictor
from genoattn.models.sequence_model import SequenceModel

pytestmark = pytest.mark.usefixtures("alone")
LENGTH = 96
HEADS = HeadOptions(count=2)


def build_predictor(
    attention: AttentionFactory | list[AttentionFactory],
    task: Task | None = None,
    tokenizer: Tokenizer | None = None,
    **settings: int | bool,
) -> Predictor:
    """A model of two blocks in float64 with random weights."""
    torch.manual_seed(1)
    task, tokenizer = task or LanguageModeling(), tokenizer or NucleotideTokenizer()
    sizes = {
        name: output.classes * (tokenizer.max_token_length if output.level == "base" else 1)
        or tokenizer.vocabulary_size
        for name, output in task.outputs.items()
    }
    model = SequenceModel(
        tokenizer.vocabulary_size + (task.segment_count > 1),
        sizes,
        task.max_shift if task.side_by_side else None,
        attention,
        segment_count=task.segment_count,
        interleaved=task.context_format.interleaved,
        dim=8,
        **settings,  # type: ignore[arg-type]
    )
    return Predictor(tokenizer, task, model.double())


def windows(task: Task, length: int = LENGTH, count: int = 2) -> list[Example]:
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, 4, task.reference_length(length)).astype(np.uint8) for _ in range(count))
    return [task.example(bases, length, Rates(0.02), rng) for bases in drawn]


def effects_of(predictor: Predictor, both_strands: bool = False, length: int = LENGTH) -> Effects:
    return perturbation_effect(predictor, windows(predictor.task, length), 7, seed=0, both_strands=both_strands)


def farthest(predictor: Predictor, position: int, length: int = 64) -> tuple[int, int]:
    """Bases to the left and right of an output that change it: every base is replaced, in a copy of its own."""
    bases = np.random.default_rng(3).integers(0, 4, length).astype(np.uint8)
    copies = [Example(bases, None, {}, ())]
    for replaced in range(length):
        other = bases.copy()
        other[replaced] ^= 1
        copies.append(Example(other, None, {}, ()))
    starts = [predictor.tokenizer.encode(copy.bases).token_starts for copy in copies]
    owners = [int(np.searchsorted(start, position, side="right")) - 1 for start in starts]
    outputs = [row for _, logits in predictor.logits(copies) for row in logits["token"]]
    original, *others = [row[owner] for row, owner in zip(outputs, owners, strict=True)]
    changed = [at for at, output in enumerate(others) if not torch.allclose(original, output, rtol=0, atol=1e-12)]
    return max([position - at for at in changed] + [0]), max([at - position for at in changed] + [0])


def reached(effects: Effects) -> tuple[int, int]:
    """The largest distances with any change beyond rounding."""
    sides = (effect_curve(effects.distances, side) for side in (effects.left, effects.right))
    left, right = (int(side.distances[side.change > 1e-12].max(initial=0)) for side in sides)
    return left, right


@pytest.mark.parametrize("queries", ["among", "after", "before"])
def test_one_token_changes_at_the_replaced_position(queries: Any) -> None:
    """The token at the position changes and no other; the separator is never replaced."""
    task = AssociativeRecall(pairs=1, key=8, value=4, queries=queries)
    (example,) = windows(task, count=1)
    size = 96 + (queries != "among") * (1 + 12)
    separator = {"among": -1, "after": 96, "before": 12}[queries]
    places = context_positions(example, interleaved=False)
    positions = _positions(example, places, size, steps(size))
    assert positions == [position for position in range(size) if position != separator]
    plain = example._replace(masking=None)
    ids = collate([plain], NucleotideTokenizer()).ids[0]
    for position in positions:
        changed = collate([_changed(plain, places, position, np.random.default_rng(0))], NucleotideTokenizer()).ids[0]
        assert (ids != changed).nonzero().tolist() == [[position]]


def test_steps_are_powers_of_two_and_half_as_much_again() -> None:
    assert steps(40).tolist() == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert steps(48).tolist()[-2:] == [32, 48]
    assert steps(0).tolist() == [1]


def test_window_attention_reaches_its_theoretical_receptive_field() -> None:
    predictor = build_predictor(partial(WindowAttention, left=8, right=4, heads=HEADS))
    assert theoretical_receptive_field(predictor.model, 1, 0, both_strands=False) == (16, 8)
    assert farthest(predictor, 32) == (16, 8)
    assert reached(effects_of(predictor)) == (16, 8)


def test_receptive_fields_of_convolutions_and_layers_add_up() -> None:
    kinds = {"window": partial(WindowAttention, left=8, right=4, heads=HEADS), "none": NoAttention}
    predictor = build_predictor(cycle(["window", "none"], kinds), block_conv=5, stem_conv=11)
    assert theoretical_receptive_field(predictor.model, 1, 0, both_strands=False) == (5 + 8 + 2 * 2, 5 + 4 + 2 * 2)
    assert farthest(predictor, 32) == (17, 13)
    assert reached(effects_of(predictor)) == (16, 12)
    assert theoretical_receptive_field(
        build_predictor(cycle(["window", "full"], kinds | {"full": FullAttention})).model, 1, 0, False
    ) == (
        None,
        None,
    )


def test_full_attention_reaches_every_base() -> None:
    predictor = build_predictor(partial(FullAttention, heads=HEADS))
    assert theoretical_receptive_field(predictor.model, 1, 0, both_strands=False) == (None, None)
    assert reached(effects_of(predictor)) == (64, 64)


@pytest.mark.parametrize(
    "factory", [partial(LinearAttention, heads=HEADS), partial(WindowAttention, left=8, heads=HEADS)]
)
def test_a_causal_model_has_no_context_to_the_right(factory: AttentionFactory) -> None:
    predictor = build_predictor(factory, LanguageModeling("causal"), causal=True)
    bounds = theoretical_receptive_field(predictor.model, 1, 0, both_strands=False)
    assert bounds[1] == 0
    assert reached(effects_of(predictor)) == (64 if bounds[0] is None else 16, 0)


def test_a_model_without_attention_has_no_context() -> None:
    predictor = build_predictor(NoAttention)
    effects = effects_of(predictor)
    assert theoretical_receptive_field(predictor.model, 1, 0, both_strands=False) == (0, 0)
    assert reached(effects) == (0, 0)
    assert effective_context(effect_curve(effects.distances, effects.larger), 0.0, 0.01, effects.noise) == 0


@pytest.mark.parametrize(
    ("tokenizer", "bounds"),
    [(KmerTokenizer(k=3), (4 * 3 + 2, 4 * 3 + 2)), (KmerTokenizer(k=3, overlapping=True), (4, 4 + 2))],
)
def test_receptive_field_of_kmers_is_counted_in_bases(tokenizer: KmerTokenizer, bounds: tuple[int, int]) -> None:
    predictor = build_predictor(partial(WindowAttention, left=2, right=2, heads=HEADS), tokenizer=tokenizer)
    assert (
        theoretical_receptive_field(predictor.model, tokenizer.max_token_length, tokenizer.overlap, both_strands=False)
        == bounds
    )
    alone = [farthest(predictor, position) for position in (30, 31, 32)]
    assert tuple(map(max, zip(*alone, strict=True))) == bounds
    left, right = reached(effects_of(predictor))
    assert (left, right) == tuple(int(steps(bound)[-1]) for bound in bounds)


def test_bpe_outputs_are_compared_base_by_base() -> None:
    tokenizer = BpeTokenizer(vocabulary_size=40, longest=4)
    rng = np.random.default_rng(0)
    tokenizer.train(rng.integers(0, 4, 400).astype(np.uint8) for _ in range(4))
    effects = effects_of(build_predictor(NoAttention, tokenizer=tokenizer))
    assert effects.noise < 1e-12
    assert 0 < reached(effects)[1] <= 2 * tokenizer.max_token_length


def test_alignment_stem_and_other_strand_of_a_detector_count() -> None:
    predictor = build_predictor(NoAttention, SideBySide(max_shift=4), alignment_kernel=9, alignment_filters=2)
    assert theoretical_receptive_field(predictor.model, 1, 0, both_strands=False) == (4, 4)
    assert reached(effects_of(predictor)) == (4, 4)
    causal = build_predictor(NoAttention, SideBySide(max_shift=4), alignment_kernel=9, alignment_filters=2, causal=True)
    assert theoretical_receptive_field(causal.model, 1, 0, both_strands=False) == (8, 0)
    assert reached(effects_of(causal)) == (8, 0)
    assert theoretical_receptive_field(causal.model, 1, 0, both_strands=True) == (8, 8)
    assert reached(effects_of(causal, both_strands=True)) == (8, 8)


def test_distances_of_a_pair_run_over_reference_and_separator() -> None:
    predictor = build_predictor(partial(WindowAttention, left=40, right=0, heads=HEADS), Paired())
    effects = effects_of(predictor, length=32)
    assert effects.distances[-1] == 64 == 2 * 32
    assert reached(effects)[0] == 64  # two blocks of 40 hold the whole context
    short = build_predictor(partial(WindowAttention, left=10, right=0, heads=HEADS), Paired())
    assert reached(effects_of(short, length=32)) == (16, 0)  # 20, of which 16 is the last step


def test_distances_of_an_interleaved_pair_run_over_both_sequences() -> None:
    layer, task = partial(WindowAttention, left=6, right=4, heads=HEADS), Paired("interleaved")
    predictor = build_predictor(layer, task, block_conv=3, stem_conv=5)
    bounds = (2 * 2 + 2 * (2 + 6), 2 * 2 + 2 * (2 + 4))
    assert theoretical_receptive_field(predictor.model, 1, 0, both_strands=False) == bounds
    (example,) = (one._replace(masking=None) for one in windows(task, 40, 1))
    places, rng = context_positions(example, interleaved=True), np.random.default_rng(0)
    copies = [example, *(_changed(example, places, position, rng) for position in range(places.size))]
    assert theoretical_receptive_field(predictor.model, 1, 0, both_strands=True) == (22, 22)
    for strands, (left, right) in ((False, bounds), (True, (bounds[0], bounds[0]))):
        answers = [torch.cat([*logits.values()], -1) for _, logits in predictor.logits(copies, strands)]
        original, *others = torch.cat(answers)[:, 20]
        changed = [at for at, other in enumerate(others) if not torch.allclose(other, original, rtol=0, atol=1e-12)]
        assert (41 - min(changed), max(changed) - 41) == (left, right)
    assert reached(effects_of(predictor, length=40)) == (16, 16)


def test_effective_context_is_above_the_threshold_and_above_rounding() -> None:
    distances = np.array([1, 2, 4, 8, 16, 32, 64])
    rows = np.array([[4.0, 2, 1, 0.5, 0.1, 0.03, 0.01], [4.0, 2, 1, 0.5, 0.1, 0.03, np.nan]])
    curve = effect_curve(distances, rows)
    assert nearby_effect(curve) == 4.0
    assert effective_context(curve, nearby_effect(curve), 0.01, noise=0.0) == 16
    assert effective_context(curve, nearby_effect(curve), 0.001, noise=0.0) == 64
    assert effective_context(curve, nearby_effect(curve), 0.001, noise=0.02) == 16
    assert effective_context(EffectCurve(distances, np.zeros(7), np.zeros(7), np.zeros(7)), 0.0, 0.01, 0.0) == 0


def test_the_program_writes_context_json_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta = tmp_path / "a.fa"
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 12_000))
    fasta.write_text(f">a\n{letters}\n")
    run, folder = tmp_path / "run", tmp_path / "context"
    words = ["task=side_by_side", "model=small", "heads=default", "attention=window"]
    config = compose("train", ["experiment=smoke", *words, "attention.left=4", "attention.right=4"])
    settings = plain(config)
    keys = ("tokenizer", "task", "model", "attention", "reverse_complement", "seed")
    nodes = {key: settings[key] for key in keys}
    card = ModelCard("window", **nodes, length=64, split="block", min_length=None, genome=("another",))
    save_model(run / "model", build_from_card(card).model, card)
    overrides = [f"checkpoint={run}", f"data.fasta={fasta}", "data.length=64", "windows=2"]
    assert main(["context", *overrides, f"hydra.run.dir={folder}"]) == 0
    context = json.loads((folder / "context.json").read_text())
    assert context["nominal"] == 9 // 2 + 4
    assert 0 < context["effective"] <= 8 and context["windows"] == 2 and context["threshold"] == 0.01
    assert [row[0] for row in context["curve"]] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert all(row[1] == 0 for row in context["curve"] if row[0] > 8)
    assert (folder / "plots" / "context.png").stat().st_size > 1000
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["model/test/all/theoretical_receptive_field"] == 8
    assert "The effective context is" in capsys.readouterr().out
    assert main(["context", f"checkpoint={run}", "relative_threshold=0"]) == 2
    assert "relative_threshold" in capsys.readouterr().err
