"""The evaluator of a language model: bits per base of held-out windows, beside Markov models of the same genome."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from genoattn.data.example import VISIBLE, Example
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.language_modeling import fully_masked
from genoattn.errors import UserError
from genoattn.evaluation.base import TEST, Answers, Candidate, EvaluationResult, Evaluator, fixed_windows
from genoattn.evaluation.baselines.markov import Choice, MarkovModel, Reading
from genoattn.evaluation.bootstrap import Resamples, interval, resample, resampled_ratio
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table, panel_in, with_interval
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.progress import tracked
from genoattn.models.predictor import Predictor

ORDER_LEFT, ORDER_FLANKS = 12, 5
"""The highest orders of the Markov models: bases before the base, and bases on each side of it."""

BASE_COLUMNS = ("model", "bits per base [95 %]", "accuracy per base")
TOKEN_COLUMNS = ("nats per token", "accuracy per token", "perplexity per token")


class Tally(NamedTuple):
    """Sums over the targets of one window: nats, right predictions and the number of targets."""

    token_nats: float
    token_right: int
    tokens: int
    base_nats: float
    base_right: int
    bases: int


@final
class LanguageModelEvaluator(Evaluator):
    """Every target base of every window of the test blocks; a masked task hides all of them behind masks.

    Nats per base: a next-token objective divides the nats of a token by the bases that it newly determines, which is
    exact by the chain rule (an overlapping k-mer determines one base, its last). With hidden tokens of one base each,
    the probability of a base is summed over all tokens that own it. With hidden tokens of several bases, the nats of a
    token are divided by its bases. The first token of a window is no target.
    """

    primary = MetricKey("model", TEST, "all", "bits_per_base")

    def __init__(self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool):
        if both_strands:
            raise UserError("reverse_complement must be none or augment with task=pretrain: a token is of one strand")
        self.task, self.resamples = task, test.resamples
        windows = partial(fixed_windows, source=source, data=data, test=test, task=task, rates=task.rates)
        self.tested = [fully_masked(example) for example in windows(TEST, test.windows)]
        self.validation = [fully_masked(example) for example in windows("validation", test.threshold_windows)]
        self.training = [source.genome.fetch(*interval) for interval in source.splits.train]

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        scored = []
        for model in candidates:
            tallies = tracked(_tallies(model.predictor, self.tested), f"{model.name} scores", len(self.tested))
            scored.append(Answers(model.key, model.name, list(tallies)))
        choices: dict[str, Choice] = {}
        for baseline, choice in self._markov_models(candidates[0].predictor):
            choices[baseline.key] = choice
            scored.append(baseline)
        resamples = resample([example.block for example in self.tested], self.resamples)
        entries: dict[MetricKey, int | float] = {}
        rows = []
        for answers in scored:
            metrics = _metrics(answers.values, resamples)
            entries |= {MetricKey(answers.key, TEST, "all", metric): value for metric, value in metrics.items()}
            rows.append(_row(answers.name, metrics))
        entries |= {MetricKey(key, TEST, "all", "order"): choice.order for key, choice in choices.items()}
        bits = {candidate.name: entries[self.primary._replace(candidate=candidate.key)] for candidate in candidates}
        title = f"Bits per base by attention={candidates[0].name}, beside Markov models of the training blocks"
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title, [*BASE_COLUMNS, *TOKEN_COLUMNS], rows)],
            plots={"bits_per_base": partial(_plot, choices, bits)},
            primary=self.primary,
        )

    def _markov_models(self, predictor: Predictor) -> Iterator[tuple[Answers[list[Tally]], Choice]]:
        """Each Markov model at the order that suits the validation blocks best."""
        kinds = [("markov_left", "before", ORDER_LEFT)]
        if self.task.context_format.token_objective != "next":  # the bases after a next token are hidden
            kinds.append(("markov_flanks", "on each side", ORDER_FLANKS))
        for key, side, order in kinds:
            model = MarkovModel(self.training, order, flanks=key == "markov_flanks")
            choice = model.choose([_reading(example, predictor) for example in self.validation])
            tallies = [_markov_tally(model, choice, _reading(example, predictor)) for example in self.tested]
            yield Answers(key, f"Markov, {choice.order} bases {side}", tallies), choice


def _tallies(predictor: Predictor, examples: Sequence[Example]) -> Iterator[Tally]:
    """The tally of each window for a model."""
    done = 0
    for batch, logits_of in predictor.logits(examples):
        for logits, target in zip(logits_of["token"], batch.targets["token"], strict=True):
            labelled = target != IGNORE_INDEX
            own_logits, own_target = logits[labelled].double().cpu(), target[labelled].cpu()
            yield _tally(predictor, examples[done], own_logits, own_target, labelled.cpu().numpy())
            done += 1


def _tally(
    predictor: Predictor, example: Example, logits: Tensor, target: Tensor, labelled: Bool[np.ndarray, "tokens"]
) -> Tally:
    tokenizer, objective = predictor.tokenizer, predictor.task.context_format.token_objective
    logs = logits.log_softmax(-1)
    nats = -logs.gather(-1, target[:, None])[:, 0]
    right = logs.argmax(-1) == target
    whole = float(nats.sum()), int(right.sum()), len(target)
    bases = _target_bases(example, predictor)
    count = int(bases.sum())
    if objective == "next" and tokenizer.overlap:
        return Tally(*whole, whole[0], int(right[:count].sum()), count)
    if objective == "next" or tokenizer.max_token_length > 1:
        return Tally(*whole, whole[0], _right_bases(logs, predictor, target), count)
    hidden = np.zeros(len(labelled), np.bool_)
    hidden[: len(example.bases)] = bases  # an overlapping k-mer is a target where it only reads a hidden base
    own = torch.from_numpy(hidden[: len(labelled)][labelled])
    return Tally(*whole, *_first_letter(logs[own], predictor, target[own]), int(own.sum()))


def _right_bases(logs: Tensor, predictor: Predictor, target: Tensor) -> int:
    """Number of bases of the target tokens that are the most probable ones at their place, summed over all tokens."""
    right = 0
    for column in torch.from_numpy(predictor.tokenizer.token_bases()).long().T:
        letters = torch.stack([(column == letter).double() for letter in range(4)], 1)
        right += int(((logs.exp() @ letters).argmax(-1) == column[target]).sum())
    return right


def _first_letter(logs: Tensor, predictor: Predictor, target: Tensor) -> tuple[float, int]:
    """Nats of the base that each token owns, summed over all tokens that own it, and how many are likeliest."""
    column = torch.from_numpy(predictor.tokenizer.token_bases()[:, 0]).long()
    letters = torch.stack([logs[:, column == letter].logsumexp(-1) for letter in range(4)], 1)
    true = column[target]
    return float(-letters.gather(1, true[:, None]).sum()), int((letters.argmax(-1) == true).sum())


def _target_bases(example: Example, predictor: Predictor) -> Bool[np.ndarray, "length"]:
    """The bases of a window that the model has to predict."""
    tokenizer, length = predictor.tokenizer, len(example.bases)
    starts = tokenizer.encode(example.bases).token_starts
    if predictor.task.context_format.token_objective == "next":
        first = tokenizer.overlap + 1 if tokenizer.overlap else int(starts[1]) if len(starts) > 1 else length
        return np.arange(length) >= first
    hidden = np.zeros(length, np.bool_) if example.masking is None else example.masking != VISIBLE
    if tokenizer.max_token_length == 1:
        return hidden
    owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=length))
    return np.isin(owner, owner[hidden])


def _reading(example: Example, predictor: Predictor) -> Reading:
    """The same window for a Markov model: it may read the bases that the model may read."""
    target = _target_bases(example, predictor)
    causal = predictor.task.context_format.token_objective == "next"
    readable = np.ones(len(target), np.bool_) if causal else ~target
    return Reading(example.bases, readable, target & (example.bases < 4))


def _markov_tally(model: MarkovModel, choice: Choice, reading: Reading) -> Tally:
    probabilities = list(model.probabilities(reading, choice.weight))[choice.order]
    letters = reading.bases[reading.targets]
    nats = float(-np.log(probabilities[np.arange(len(letters)), letters]).sum())
    return Tally(math.nan, 0, 0, nats, int((probabilities.argmax(1) == letters).sum()), len(letters))


def _metrics(tallies: Sequence[Tally], resamples: Resamples) -> dict[str, float]:
    """Sums over windows as rates, with an interval for the bits per base."""
    columns = np.array(tallies, np.float64).T
    token_nats, token_right, tokens, base_nats, base_right, bases = columns.sum(1).tolist()
    nats = interval(resampled_ratio(columns[3], columns[5], resamples))
    metrics = {
        "bits_per_base": base_nats / max(bases, 1) / math.log(2),
        "bits_per_base_low": nats.low / math.log(2),
        "bits_per_base_high": nats.high / math.log(2),
        "loss_base": base_nats / max(bases, 1),
        "accuracy_base": base_right / max(bases, 1),
    }
    if tokens:
        metrics["loss_token"] = token_nats / tokens
        metrics["accuracy_token"] = token_right / tokens
        metrics["perplexity_token"] = math.exp(min(token_nats / tokens, 700))
    return metrics


def _row(name: str, metrics: Mapping[str, float]) -> list[str]:
    bits = (metrics[f"bits_per_base{bound}"] for bound in ("", "_low", "_high"))
    rates = (metrics.get(metric) for metric in ("accuracy_base", "loss_token", "accuracy_token", "perplexity_token"))
    return [name, with_interval(*bits, digits=4), *("–" if rate is None else f"{rate:.4f}" for rate in rates)]


def _plot(choices: Mapping[str, Choice], bits: Mapping[str, float], file: Path) -> None:
    """Bits per base of the Markov models by order, on validation blocks, and of the models on test blocks."""
    with panel_in(file, 6.0, 4.0) as panel:
        for key, choice in choices.items():
            panel.plot(range(len(choice.curve)), choice.curve, "o-", label=f"{key}, validation blocks")
        for number, (name, value) in enumerate(bits.items(), len(choices)):
            panel.axhline(value, color=f"C{number}", ls="--", label=f"{name} ({value:.3f}), test blocks")
        panel.set(xlabel="order of the Markov model (bases)", ylabel="bits per base")
