"""The exam of a language model: bits for each base of held-out windows, beside Markov models of the same genome."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, final

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float

from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.example import Example
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource, build_window_dataset
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.language_modeling import fully_masked
from genoattn.errors import UserError
from genoattn.evaluation.base import Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.baselines.markov import Choice, MarkovModel, Reading
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings
from genoattn.files import save_figure
from genoattn.genome.intervals import Interval
from genoattn.models.predictor import Predictor

LEFT, FLANKS = 12, 5
"""The highest orders that are tried: bases before, and bases at each side."""


COLUMNS = ("model", "bits a base [95 %]", "accuracy a base", "nats a token", "accuracy a token", "perplexity a token")


class Tally(NamedTuple):
    """What was asked of one window and what became of it: nats lost, answers right and answers due."""

    token_nats: float
    token_right: int
    tokens: int
    base_nats: float
    base_right: int
    bases: int


@final
class LanguageModelEvaluator(Evaluator):
    """Every asked base of every window of the test blocks, all behind masks where the task hides bases.

    Nats a base are, where each next token is asked for, those of the token over the bases that it newly tells: the
    chain rule, and exact (an overlapping k-mer tells one base, its last). Where tokens are hidden and own one base
    each, they are those of that base, summed over all tokens that own it; where tokens own several, those of the token
    over the bases that it owns. A window's first token is not asked for.
    """

    def __init__(
        self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, strands: bool, known: bool
    ):
        if strands:
            raise UserError("rc must be none or augment with task=pretrain: what it asks of a token is of one strand")
        self.task, self.resamples = task, test.resamples
        draw = partial(_windows, source=source, data=data, seed=test.seed, task=task)
        self.tested = draw(source.splits.test, test.windows)
        self.held_out = draw(source.splits.validation, test.threshold_windows)
        self.training = [source.genome.fetch(*interval) for interval in source.splits.train]

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        parts = candidates[0].predictor
        tested = [_reading(example, parts) for example in self.tested]
        held_out = [_reading(example, parts) for example in self.held_out]
        tallies = {one.name: list(_tallies(one.predictor, self.tested)) for one in candidates}
        rivals: dict[str, Choice] = {}
        for name, order, flanks in (("markov", LEFT, False), ("flanks", FLANKS, True)):
            if flanks and self.task.context_format.token_objective == "next":
                continue  # what follows is not to be read
            model = MarkovModel(self.training, order, flanks)
            rivals[name] = model.choose(held_out)
            shown = f"{name} (k={rivals[name].order}{' a side' if flanks else ''})"
            tallies[shown] = [_markov_tally(model, rivals[name], reading) for reading in tested]
        figures: dict[str, int | float] = {}
        rows = []
        for name, told in tallies.items():
            found = _figures(np.array(told, np.float64), self.resamples)
            key = name.partition(" (")[0]
            prefix = "test" if name == candidates[0].name else key if key in rivals else f"{key}/test"
            figures |= {f"{prefix}/{measure}": value for measure, value in found.items()}
            rows.append(_row(name, found))
        figures |= {f"{name}/k": choice.order for name, choice in rivals.items()}
        bits = {name: figures[f"{key}/bits_per_base"] for name, key in ((one.name, _key(one)) for one in candidates)}
        title = f"Bits a base by attention={candidates[0].name}, and what counts of the same genome give"
        plots = {"bits_per_base": partial(_plot, rivals, bits)}
        return EvaluationResult(figures, [Table(title, COLUMNS, rows)], plots, {one.key: {} for one in candidates})


def _key(one: Candidate) -> str:
    return "test" if one.key == "model" else f"{one.name.partition(' (')[0]}/test"


def _windows(
    intervals: tuple[Interval, ...], count: int, source: DataSource, data: DataSettings, seed: int, task: Task
) -> list[Example]:
    drawn = build_window_dataset(source, intervals, data, task, seed, 1, Curriculum())
    return [fully_masked(drawn.example(number, CurriculumStage(task.rates, data.length))) for number in range(count)]


def _tallies(parts: Predictor, examples: Sequence[Example]) -> Iterator[Tally]:
    """What a model makes of each window."""
    done = 0
    for batch, answers in parts.logits(examples):
        for logits, target in zip(answers["token"], batch.targets["token"], strict=True):
            asked = target != IGNORE_INDEX
            yield _tally(parts, examples[done], logits[asked].double().cpu(), target[asked].cpu(), asked.cpu().numpy())
            done += 1


def _tally(
    parts: Predictor, example: Example, logits: torch.Tensor, target: torch.Tensor, asked: Bool[np.ndarray, "tokens"]
) -> Tally:
    logs = logits.log_softmax(-1)
    nats = -logs.gather(-1, target[:, None])[:, 0]
    right = logs.argmax(-1) == target
    whole = float(nats.sum()), int(right.sum()), len(target)
    told = _told(example, parts)
    if parts.task.context_format.token_objective == "next" and parts.tokenizer.overlap:
        return Tally(*whole, whole[0], int(right[: int(told.sum())].sum()), int(told.sum()))
    owned = _spelled(logs, parts, target)
    if parts.task.context_format.token_objective == "next" or parts.tokenizer.max_token_length > 1:
        return Tally(*whole, whole[0], owned[1], int(told.sum()))
    hidden = np.zeros(len(asked), np.bool_)
    hidden[: len(example.bases)] = told  # an overlapping k-mer is asked for where it only reads a hidden base
    kept = torch.from_numpy(hidden[: len(asked)][asked])
    nats_of_base, right_of_base = _first_letter(logs[kept], parts, target[kept])
    return Tally(*whole, nats_of_base, right_of_base, int(kept.sum()))


def _spelled(logs: torch.Tensor, parts: Predictor, target: torch.Tensor) -> tuple[int, int]:
    """Bases that the tokens asked for own, and how many of them the sums over all tokens get right, place by place."""
    spell = torch.from_numpy(parts.tokenizer.token_bases()).long()
    right = bases = 0
    for column in spell.T:
        likely = logs.exp() @ torch.stack([(column == letter).double() for letter in range(4)], 1)
        true = column[target]
        right += int((likely.argmax(-1) == true).sum())
        bases += int((true >= 0).sum())
    return bases, right


def _first_letter(logs: torch.Tensor, parts: Predictor, target: torch.Tensor) -> tuple[float, int]:
    """Nats of the base that each token owns, summed over all tokens that own it, and how many are likeliest."""
    column = torch.from_numpy(parts.tokenizer.token_bases()[:, 0]).long()
    each = torch.stack([logs[:, column == letter].logsumexp(-1) for letter in range(4)], 1)
    true = column[target]
    return float(-each.gather(1, true[:, None]).sum()), int((each.argmax(-1) == true).sum())


def _told(example: Example, parts: Predictor) -> Bool[np.ndarray, "length"]:
    """Which bases of a window are asked for."""
    tokenizer, length = parts.tokenizer, len(example.bases)
    starts = tokenizer.encode(example.bases).token_starts
    if parts.task.context_format.token_objective == "next":
        first = tokenizer.overlap + 1 if tokenizer.overlap else int(starts[1]) if len(starts) > 1 else length
        return np.arange(length) >= first
    hidden = np.zeros(length, np.bool_) if example.masking is None else example.masking > 0
    if tokenizer.max_token_length == 1:
        return hidden
    owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=length))
    return np.isin(owner, owner[hidden])


def _reading(example: Example, parts: Predictor) -> Reading:
    told = _told(example, parts)
    readable = np.ones(len(told), np.bool_) if parts.task.context_format.token_objective == "next" else ~told
    return Reading(example.bases, readable, told & (example.bases < 4))


def _markov_tally(model: MarkovModel, choice: Choice, reading: Reading) -> Tally:
    likely = list(model.likely(reading, choice.weight))[choice.order]
    letters = reading.bases[reading.asked]
    nats = float(-np.log(likely[np.arange(len(letters)), letters]).sum())
    return Tally(math.nan, 0, 0, nats, int((likely.argmax(1) == letters).sum()), len(letters))


def _figures(tallies: Float[np.ndarray, "windows 6"], resamples: int) -> dict[str, float]:
    """Sums over windows as rates, and the middle 95 % of the bits a base over resampled windows."""
    token_nats, token_right, tokens, base_nats, base_right, bases = tallies.sum(0)
    rng = np.random.default_rng(0)
    count = len(tallies)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples) @ tallies[:, [3, 5]]
    low, high = np.quantile(draws[:, 0] / np.maximum(draws[:, 1], 1) / math.log(2), [0.025, 0.975])
    figures = {
        "bits_per_base": base_nats / max(bases, 1) / math.log(2),
        "bits_per_base_low": float(low),
        "bits_per_base_high": float(high),
        "loss_base": base_nats / max(bases, 1),
        "accuracy_base": base_right / max(bases, 1),
    }
    if tokens:
        figures["loss_token"] = token_nats / tokens
        figures["accuracy_token"] = token_right / tokens
        figures["perplexity_token"] = math.exp(min(token_nats / tokens, 700))
    return {name: float(value) for name, value in figures.items()}


def _row(name: str, found: dict[str, float]) -> list[str]:
    bits = f"{found['bits_per_base']:.4f} [{found['bits_per_base_low']:.4f}–{found['bits_per_base_high']:.4f}]"
    tokens = [
        f"{found[measure]:.4f}" if measure in found else "–"
        for measure in ("loss_token", "accuracy_token", "perplexity_token")
    ]
    return [name, bits, f"{found['accuracy_base']:.4f}", *tokens]


def _plot(rivals: dict[str, Choice], bits: dict[str, float], file: Path) -> None:
    """Bits a base of the Markov models by order, on validation blocks, and of the models on test blocks."""
    figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, choice in rivals.items():
        panel.plot(range(len(choice.curve)), choice.curve, "o-", label=f"{name}, validation blocks")
    for number, (name, value) in enumerate(bits.items()):
        panel.axhline(value, color=f"C{number + len(rivals)}", ls="--", label=f"{name} ({value:.3f}), test blocks")
    panel.set(xlabel="order k of the counts", ylabel="bits a base")
    panel.legend(fontsize=8)
    save_figure(figure, file)
