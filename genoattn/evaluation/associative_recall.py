"""The evaluator of associative recall: exact match of values by distance and strand, beside a search for the key."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, UInt8

from genoattn.data.example import Query
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.associative_recall import AssociativeRecall, visible_context
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.evaluation.base import TEST, Answers, Candidate, EvaluationResult, Evaluator, fixed_windows
from genoattn.evaluation.baselines.exact_match import exact_match
from genoattn.evaluation.bootstrap import interval, resample, resampled_ratio
from genoattn.evaluation.metrics import MetricKey, Metrics, Replicates, Subgroup
from genoattn.evaluation.report import Table, panel_in, with_interval
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.progress import progress

COLUMNS = ("queries", "", "model", "number", "exact match [95 %]", "accuracy per base", "distractor's value")


class Subset(NamedTuple):
    """A subset of the queries: all, those of one strand, or those at distances of `low` to `high` bases."""

    by: str
    """Empty for all queries."""
    name: str
    low: float | None
    high: float | None
    chosen: Bool[np.ndarray, "queries"]

    @property
    def key(self) -> str:
        """The third part of its metrics' keys."""
        return f"{self.by}_{self.name.replace('–', '_')}" if self.by else "all"


class QueryScores(NamedTuple):
    """For each query: all bases right, the share of right bases, and whether the answer is a distractor's value."""

    exact: Float[np.ndarray, "queries"]
    accuracy: Float[np.ndarray, "queries"]
    misled: Float[np.ndarray, "queries"]


class RecallMetrics(NamedTuple):
    """Metrics of one subset of the queries."""

    queries: int
    exact: float
    exact_low: float
    exact_high: float
    accuracy: float
    misled: float | None
    """The share of answers that are a distractor's value; None if the task has no distractors."""


@final
class AssociativeRecallEvaluator(Evaluator):
    """Every query of windows of the test blocks.

    The causal form shows the true bases before the base to predict: an exact match is the same as in step-by-step
    decoding. The baselines are "exact_match", which searches the window for the key, and "chance": the value of the
    needle or of one of its distractors, or random bases if there are no distractors.
    """

    primary = MetricKey("model", TEST, "all", "exact")

    def __init__(self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool):
        assert isinstance(task, AssociativeRecall)
        if both_strands and task.form == "causal":
            raise UserError(
                "reverse_complement must be none or augment with task.form=causal: the next base is of one strand"
            )
        self.task, self.both_strands = task, both_strands
        self.examples = fixed_windows(TEST, test.windows, source, data, test, task, task.rates)
        self.queries = [(example, query) for example in self.examples for query in example.queries]
        self.truth = np.stack([example.bases[query.start : query.stop] for example, query in self.queries])
        self.wrong = np.stack([_distractors(visible_context(example)[0], query) for example, query in self.queries])
        windows = resample([example.block for example in self.examples], test.resamples)
        self.resamples = windows._replace(
            units=np.repeat(windows.units, [len(example.queries) for example in self.examples])
        )

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        searched = np.stack([exact_match(example, query, self.task) for example, query in self.queries])
        predicted = [(candidate.key, candidate.name, self._predicted(candidate)) for candidate in candidates]
        predicted += [("exact_match", "search for the key", searched), ("chance", "chance", self._guessed())]
        answered = [Answers(key, name, self._scores(values)) for key, name, values in predicted]
        entries: dict[MetricKey, int | float] = {}
        replicates: dict[MetricKey, Sequence[float]] = {}
        subgroups: list[Subgroup] = []
        rows: list[list[str]] = []
        for subset in self._subsets():
            for answers in answered:
                key, scores = answers.key, answers.values
                exact, accuracy = (self._replicates(values, subset) for values in (scores.exact, scores.accuracy))
                metrics = self._metrics(scores, subset, exact)
                values = metrics._asdict().items()
                entries |= {
                    MetricKey(key, TEST, subset.key, metric): value for metric, value in values if value is not None
                }
                if subset.by != "distractor_mismatches":  # a run has one value, so the subset is all queries
                    rows.append(_row(subset, answers.name, metrics))
                if not subset.by:
                    replicates[MetricKey(key, TEST, "all", "exact")] = exact.tolist()
                    replicates[MetricKey(key, TEST, "all", "accuracy")] = accuracy.tolist()
                elif key == candidates[0].key:
                    bounds = "", subset.low, subset.high, metrics.queries
                    subgroups.append(Subgroup(subset.by, subset.name, *bounds, metrics.exact, tuple(exact.tolist())))
        metrics = Metrics(entries)
        title = f"Values recalled by attention={candidates[0].name}"
        return EvaluationResult(
            metrics=metrics,
            tables=[Table(title, COLUMNS, rows, texts=3, secondary=["accuracy per base"])],
            plots={"recall": partial(_plot, metrics, answered, list(self._subsets()))},
            primary=self.primary,
            replicates=Replicates(self.primary, replicates, subgroups),
        )

    def _predicted(self, candidate: Candidate) -> UInt8[np.ndarray, "queries value"]:
        """The likeliest bases of a model."""
        ahead = int(self.task.form == "causal")
        predicted, done = [], 0
        with progress(f"{candidate.name} scores", len(self.examples)) as advance:
            for _, logits in candidate.predictor.logits(self.examples, self.both_strands):
                for row in logits["value"].argmax(-1).cpu().numpy().astype(np.uint8):
                    queries = self.examples[done].queries
                    predicted += [row[query.start - ahead : query.stop - ahead] for query in queries]
                    done += 1
                    advance(1)
        return np.stack(predicted)

    def _guessed(self) -> UInt8[np.ndarray, "queries value"]:
        rng = np.random.default_rng(0)
        if not self.task.distractors:
            return rng.integers(0, 4, self.truth.shape, np.uint8)
        values = np.concatenate([self.truth[:, None], self.wrong], 1)
        return values[np.arange(len(values)), rng.integers(values.shape[1], size=len(values))]

    def _scores(self, predicted: UInt8[np.ndarray, "queries value"]) -> QueryScores:
        right = predicted == self.truth
        misled = (predicted[:, None] == self.wrong).all(-1).any(-1)
        return QueryScores(right.all(-1).astype(np.float64), right.mean(-1), misled.astype(np.float64))

    def _subsets(self) -> Iterator[Subset]:
        every = np.ones(len(self.queries), np.bool_)
        mismatches = self.task.distractor_mismatches
        yield Subset("", "all", None, None, every)
        yield Subset("distractor_mismatches", "none" if mismatches is None else str(mismatches), None, None, every)
        reverse = np.array([query.reverse_strand for _, query in self.queries])
        for name, chosen in (("same", ~reverse), ("reverse", reverse)):
            if chosen.any():
                yield Subset("strand", name, None, None, chosen)
        octave = np.array([query.distance.bit_length() - 1 for _, query in self.queries])
        for number in np.unique(octave).tolist():
            low, high = 2**number, 2 ** (number + 1)
            yield Subset("distance", f"{low}–{high}", low, high, octave == number)

    def _replicates(self, values: Float[np.ndarray, "queries"], subset: Subset) -> Float[np.ndarray, "replicates"]:
        """The mean of some values over a subset, in every resample."""
        return resampled_ratio(values * subset.chosen, subset.chosen, self.resamples)

    def _metrics(self, scores: QueryScores, subset: Subset, exact: Float[np.ndarray, "replicates"]) -> RecallMetrics:
        mean, accuracy, misled = (float(values[subset.chosen].mean()) for values in scores)
        queries = int(subset.chosen.sum())
        return RecallMetrics(queries, mean, *interval(exact), accuracy, misled if self.task.distractors else None)


def _distractors(bases: UInt8[np.ndarray, "length"], query: Query) -> UInt8[np.ndarray, "distractors value"]:
    """The values beside near-duplicates of a query's key, read on its strand."""
    size = query.stop - query.start
    values = [bases[start : start + size] for start in query.distractors]
    turned = [reverse_complement(value) if query.reverse_strand else value for value in values]
    return np.array(turned, np.uint8).reshape(-1, size)


def _row(subset: Subset, name: str, metrics: RecallMetrics) -> list[str]:
    group = [subset.by, subset.name] if subset.by else ["all", ""]
    exact = with_interval(metrics.exact, metrics.exact_low, metrics.exact_high)
    shares = ["–" if share is None else f"{share:.3f}" for share in (metrics.accuracy, metrics.misled)]
    return [*group, name, f"{metrics.queries:,}", exact, *shares]


def _plot(metrics: Metrics, answered: Sequence[Answers[QueryScores]], subsets: Sequence[Subset], file: Path) -> None:
    """Exact match against the distance from needle to query."""
    ranges = [subset for subset in subsets if subset.by == "distance"]
    middles = [math.sqrt(subset.low * subset.high) for subset in ranges if subset.low and subset.high]
    with panel_in(file, 6.0, 4.0) as panel:
        for number, answers in enumerate(answered):
            values, low, high = (
                [metrics[MetricKey(answers.key, TEST, subset.key, metric)] for subset in ranges]
                for metric in ("exact", "exact_low", "exact_high")
            )
            panel.plot(middles, values, ".--" if number else "o-", label=answers.name)
            if not number:
                panel.fill_between(middles, low, high, alpha=0.2)
        panel.set_xscale("log", base=2)
        panel.set(xlabel="bases from needle to query", ylabel="exact match", ylim=(-0.02, 1.02))
