"""The effective context of models whose receptive field is known."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genoattn.attention.full import FullAttention
from genoattn.attention.hybrid import cycle
from genoattn.attention.linear import LinearAttention
from genoattn.attention.none import NoAttention
from genoattn.attention.window import WindowAttention
from genoattn.cli.main import main
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
    ReceptiveField,
    _changed,
    _positions,
    effect_curve,
    effective_context,
    nearby_effect,
    perturbation_effect,
    steps,
    theoretical_receptive_field,
)
from genoattn.evaluation.effective_context_report import ContextResult
from genoattn.genome.simulate import Rates
from genoattn.models.block import AttentionFactory
from genoattn.models.build import build_model
from genoattn.models.checkpoint import save_model
from genoattn.models.predictor import Predictor
from genoattn.models.sequence_model import SequenceModel

pytestmark = pytest.mark.usefixtures("alone")
LENGTH = 96


def planted(
    attention: AttentionFactory | list[AttentionFactory],
    task: Task | None = None,
    tokenizer: Tokenizer | None = None,
    **settings: int | bool,
) -> Predictor:
    """A model of two blocks in float64 with the weights that a seed draws."""
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
        dim=8,
        **settings,  # type: ignore[arg-type]
    )
    return Predictor(tokenizer, task, model.double())


def windows(task: Task, length: int = LENGTH, count: int = 2) -> list[Example]:
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, 4, task.reference_length(length)).astype(np.uint8) for _ in range(count))
    return [task.example(bases, length, Rates(0.02), rng) for bases in drawn]


def seen_by(parts: Predictor, both_strands: bool = False, length: int = LENGTH) -> Effects:
    return perturbation_effect(parts, windows(parts.task, length), 7, seed=0, both_strands=both_strands)


def farthest(parts: Predictor, spot: int, length: int = 64) -> tuple[int, int]:
    """Bases to the left and right of an answer that change it, by asking for every base alone, one copy each."""
    bases = np.random.default_rng(3).integers(0, 4, length).astype(np.uint8)
    copies = [Example(bases, None, {}, ())]
    for place in range(length):
        other = bases.copy()
        other[place] ^= 1
        copies.append(Example(other, None, {}, ()))
    owner = [
        int(np.searchsorted(parts.tokenizer.encode(one.bases).token_starts, spot, side="right")) - 1 for one in copies
    ]
    answers = [row for _, found in parts.logits(copies) for row in found["token"]]
    told = [row[token] for row, token in zip(answers, owner, strict=True)]
    changed = [place for place in range(length) if not torch.allclose(told[0], told[place + 1], rtol=0, atol=1e-12)]
    return max([spot - place for place in changed] + [0]), max([place - spot for place in changed] + [0])


def reached(seen: Effects) -> tuple[int, int]:
    """The largest distances with any change beyond rounding."""
    sides = (effect_curve(seen.distances, side) for side in (seen.left, seen.right))
    left, right = (int(side.distances[side.change > 1e-12].max(initial=0)) for side in sides)
    return left, right


@pytest.mark.parametrize("queries", ["among", "after", "before"])
def test_a_base_is_changed_where_it_stands_in_the_context(queries: Any) -> None:
    """Of all that a model is given, the token at the place and no other; the separator is never one."""
    task = AssociativeRecall(pairs=1, key=8, value=4, queries=queries)
    (example,) = windows(task, count=1)
    size = 96 + (queries != "among") * (1 + 12)
    separator = {"among": -1, "after": 96, "before": 12}[queries]
    spots = _positions(example, size, steps(size))
    assert spots == [place for place in range(size) if place != separator]
    plain = example._replace(masking=None)
    ids = collate([plain], NucleotideTokenizer()).ids[0]
    for place in spots:
        changed = collate([_changed(plain, place, np.random.default_rng(0))], NucleotideTokenizer()).ids[0]
        assert (ids != changed).nonzero().tolist() == [[place]]


def test_steps_are_powers_of_two_and_half_as_much_again() -> None:
    assert steps(40).tolist() == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert steps(48).tolist()[-2:] == [32, 48]
    assert steps(0).tolist() == [1]


def test_a_window_shows_nothing_beyond_its_nominal_reach_and_something_at_it() -> None:
    parts = planted(partial(WindowAttention, left=8, right=4, heads=2))
    assert theoretical_receptive_field(parts.model, 1, 0, both_strands=False) == (16, 8)
    assert farthest(parts, 32) == (16, 8)
    assert reached(seen_by(parts)) == (16, 8)


def test_what_bounds_is_added_up_over_convolutions_and_kinds() -> None:
    kinds = {"window": partial(WindowAttention, left=8, right=4, heads=2), "none": NoAttention}
    parts = planted(cycle(["window", "none"], kinds), block_conv=5, stem_conv=11)
    assert theoretical_receptive_field(parts.model, 1, 0, both_strands=False) == (5 + 8 + 2 * 2, 5 + 4 + 2 * 2)
    assert farthest(parts, 32) == (17, 13)
    assert reached(seen_by(parts)) == (16, 12)
    assert theoretical_receptive_field(
        planted(cycle(["window", "full"], kinds | {"full": FullAttention})).model, 1, 0, False
    ) == (
        None,
        None,
    )


def test_full_attention_reaches_all() -> None:
    parts = planted(partial(FullAttention, heads=2))
    assert theoretical_receptive_field(parts.model, 1, 0, both_strands=False) == (None, None)
    assert reached(seen_by(parts)) == (64, 64)


@pytest.mark.parametrize("factory", [partial(LinearAttention, heads=2), partial(WindowAttention, left=8, heads=2)])
def test_a_causal_model_shows_nothing_to_the_right(factory: AttentionFactory) -> None:
    parts = planted(factory, LanguageModeling("causal"), causal=True)
    bounds = theoretical_receptive_field(parts.model, 1, 0, both_strands=False)
    assert bounds[1] == 0
    assert reached(seen_by(parts)) == (64 if bounds[0] is None else 16, 0)


def test_no_attention_shows_nothing_at_all() -> None:
    parts = planted(NoAttention)
    seen = seen_by(parts)
    assert theoretical_receptive_field(parts.model, 1, 0, both_strands=False) == (0, 0)
    assert reached(seen) == (0, 0)
    assert effective_context(effect_curve(seen.distances, seen.larger), 0.0, 0.01, seen.noise) == 0


@pytest.mark.parametrize(
    ("tokenizer", "bounds"),
    [(KmerTokenizer(k=3), (4 * 3 + 2, 4 * 3 + 2)), (KmerTokenizer(k=3, overlapping=True), (4, 4 + 2))],
)
def test_words_reach_as_far_as_their_bases(tokenizer: KmerTokenizer, bounds: tuple[int, int]) -> None:
    parts = planted(partial(WindowAttention, left=2, right=2, heads=2), tokenizer=tokenizer)
    assert (
        theoretical_receptive_field(parts.model, tokenizer.max_token_length, tokenizer.overlap, both_strands=False)
        == bounds
    )
    alone = [farthest(parts, spot) for spot in (30, 31, 32)]
    assert tuple(map(max, zip(*alone, strict=True))) == bounds
    left, right = reached(seen_by(parts))
    assert (left, right) == tuple(int(steps(bound)[-1]) for bound in bounds)


def test_learned_words_of_many_lengths_are_compared_base_by_base() -> None:
    tokenizer = BpeTokenizer(vocabulary_size=40, longest=4)
    rng = np.random.default_rng(0)
    tokenizer.train(rng.integers(0, 4, 400).astype(np.uint8) for _ in range(4))
    seen = seen_by(planted(NoAttention, tokenizer=tokenizer))
    assert seen.noise < 1e-12
    assert 0 < reached(seen)[1] <= 2 * tokenizer.max_token_length


def test_stem_and_other_strand_of_a_detector_count() -> None:
    parts = planted(NoAttention, SideBySide(max_shift=4), alignment_kernel=9, alignment_filters=2)
    assert theoretical_receptive_field(parts.model, 1, 0, both_strands=False) == (4, 4)
    assert reached(seen_by(parts)) == (4, 4)
    causal = planted(NoAttention, SideBySide(max_shift=4), alignment_kernel=9, alignment_filters=2, causal=True)
    assert theoretical_receptive_field(causal.model, 1, 0, both_strands=False) == (8, 0)
    assert reached(seen_by(causal)) == (8, 0)
    assert theoretical_receptive_field(causal.model, 1, 0, both_strands=True) == (8, 8)
    assert reached(seen_by(causal, both_strands=True)) == (8, 8)


def test_distances_of_a_pair_run_over_reference_and_separator() -> None:
    parts = planted(partial(WindowAttention, left=40, right=0, heads=2), Paired())
    seen = seen_by(parts, length=32)
    assert seen.distances[-1] == 64 == 2 * 32
    assert reached(seen)[0] == 64  # two blocks of 40 hold the whole context
    short = planted(partial(WindowAttention, left=10, right=0, heads=2), Paired())
    assert reached(seen_by(short, length=32)) == (16, 0)  # 20, of which 16 is the last step


def test_what_is_effective_is_above_a_share_of_the_nearest_and_above_rounding() -> None:
    distances = np.array([1, 2, 4, 8, 16, 32, 64])
    rows = np.array([[4.0, 2, 1, 0.5, 0.1, 0.03, 0.01], [4.0, 2, 1, 0.5, 0.1, 0.03, np.nan]])
    curve = effect_curve(distances, rows)
    assert nearby_effect(curve) == 4.0
    assert effective_context(curve, nearby_effect(curve), 0.01, noise=0.0) == 16
    assert effective_context(curve, nearby_effect(curve), 0.001, noise=0.0) == 64
    assert effective_context(curve, nearby_effect(curve), 0.001, noise=0.02) == 16
    assert effective_context(EffectCurve(distances, np.zeros(7), np.zeros(7), np.zeros(7)), 0.0, 0.01, 0.0) == 0


def test_the_program_leaves_what_a_comparison_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta = tmp_path / "a.fa"
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 12_000))
    fasta.write_text(f">a\n{letters}\n")
    run, folder = tmp_path / "run", tmp_path / "context"
    config = compose("train", ["experiment=smoke", "attention=window", "attention.left=4", "attention.right=4"])
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    parts = build_model(config, instantiate(config.task), instantiate(config.tokenizer))  # type: ignore[arg-type]
    about = {key: plain[key] for key in ("tokenizer", "task", "model", "attention", "reverse_complement", "seed")}
    about |= {"name": "window", "kept": {}, "untrained": {}, "length": 64, "split": "block", "genome": ["another"]}
    save_model(run / "model", parts.model, about)
    asked = [f"checkpoint={run}", f"data.fasta={fasta}", "windows=2"]
    assert main(["context", *asked, f"hydra.run.dir={folder}"]) == 0
    found = json.loads((folder / "context.json").read_text())
    assert found["nominal"] == 9 // 2 + 4
    assert 0 < found["effective"] <= 8 and found["windows"] == 2 and found["threshold"] == 0.01
    assert [row[0] for row in found["curve"]] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert all(row[1] == 0 for row in found["curve"] if row[0] > 8)
    assert (folder / "plots" / "context.png").stat().st_size > 1000
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["model/test/all/theoretical_receptive_field"] == 8
    assert metrics["model/test/all/effective_context"] == found["effective"] and not found["at_least"]
    printed = capsys.readouterr().out
    assert f"The effective context is {found['effective']} bases" in printed
    assert "windows of 64 bases, as in training" in printed
    assert main(["context", f"checkpoint={run}", "threshold=0"]) == 2
    assert "threshold" in capsys.readouterr().err


FLAT = np.ones((3, 4))


@pytest.mark.parametrize(
    ("left", "right", "bounds", "at_least"),
    [
        (FLAT, FLAT, (None, None), True),
        (FLAT, 0 * FLAT, (None, 0), True),
        (FLAT, FLAT, (8, 8), False),
        (FLAT * [1, 1, 1, 0], 0 * FLAT, (None, 0), False),
    ],
    ids=["flat", "flat on one side", "at the bound of the architecture", "falls before the end"],
)
def test_a_curve_that_is_flat_to_its_end_gives_a_lower_bound(left, right, bounds, at_least: bool, tmp_path: Path):
    effects = Effects(np.array([1, 2, 4, 8]), left, right, noise=0.0)
    result = ContextResult("full", 16, 16, ReceptiveField(*bounds), effects, 0.01)
    assert result.at_least == at_least
    text = f"at least {result.effective}" if at_least else f"{result.effective}"
    assert f"The effective context is {text} bases" in result.sentence()
    result.write(tmp_path)
    assert json.loads((tmp_path / "context.json").read_text())["at_least"] == at_least
