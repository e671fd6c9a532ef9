"""The exam of recall: values asked for in held-out windows, beside a search for the key, by distance and strand."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, final

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float, UInt8

from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.example import Example, Query
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource, build_window_dataset
from genoattn.data.tasks.associative_recall import AssociativeRecall, visible_context
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.evaluation.base import Candidate, EvaluationResult, Evaluator, Replicates, Subgroup
from genoattn.evaluation.baselines.exact_match import exact_match
from genoattn.evaluation.bootstrap import resampled_mean, resamples
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings
from genoattn.files import save_figure
from genoattn.genome.alphabet import reverse_complement

COLUMNS = ("by", "queries", "model", "number", "exact match [95 %]", "accuracy a base", "a rival's value")


class Subset(NamedTuple):
    """Some of the questions: all, those of one strand, or those at distances of `low` to `high` bases."""

    by: str
    name: str
    low: float | None
    high: float | None
    chosen: Bool[np.ndarray, "queries"]

    @property
    def key(self) -> str:
        """Before its figures' names in metrics.json."""
        return f"/{self.by}/{self.name.replace('–', '-')}" if self.by else ""


class RecallMetrics(NamedTuple):
    """What became of each question: all its bases right, the share that are, and whether a rival's value is told."""

    exact: Float[np.ndarray, "queries"]
    accuracy: Float[np.ndarray, "queries"]
    misled: Float[np.ndarray, "queries"]


@final
class AssociativeRecallEvaluator(Evaluator):
    """Windows of the test blocks, every query of each. An interval is the middle 95 % over resampled genomic blocks.

    In the causal form the bases before the one that is asked for are shown: all right is what decoding them one by one
    would tell too. Beside the models stand "lookup", which searches the window for the key, and "chance": the value of
    the needle or of one of its rivals, or bases at random where there are no rivals.
    """

    def __init__(
        self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, strands: bool, known: bool
    ):
        assert isinstance(task, AssociativeRecall)
        if strands and task.form == "causal":
            raise UserError("rc must be none or augment with task.form=causal: what follows is of one strand")
        self.task, self.strands = task, strands
        drawn = build_window_dataset(source, source.splits.test, data, task, test.seed, 1, Curriculum())
        self.examples = [
            drawn.example(number, CurriculumStage(task.rates, data.length)) for number in range(test.windows)
        ]
        self.queries = [query for example in self.examples for query in example.queries]
        self.truth = np.stack([example.bases[one.start : one.stop] for example, one in self._asked()])
        self.wrong = np.stack([_rivals(visible_context(example)[0], one) for example, one in self._asked()])
        blocks, self.draws = resamples([example.block for example in self.examples], test.resamples)
        self.owners = np.repeat(blocks, [len(example.queries) for example in self.examples])

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        marks = {one.name: self._marked(self._told(one)) for one in candidates}
        marks["lookup"] = self._marked(
            np.stack([exact_match(example, one, self.task) for example, one in self._asked()])
        )
        marks["chance"] = self._marked(self._guessed())
        main = candidates[0].name
        figures: dict[str, int | float] = {}
        rows: list[list[str]] = []
        evidence: dict[str, list[float]] = {}
        strata: list[Subgroup] = []
        for part in self._parts():
            for name, mark in marks.items():
                found, draws = self._figures(mark, part.chosen)
                prefix = "test" if name == main else f"{name.partition(' (')[0]}/test"
                figures |= {f"{prefix}{part.key}/{measure}": value for measure, value in found.items()}
                if part.by != "delta":  # there is one, and it is that of all
                    rows.append(_row(part, name, found))
                if not part.by:
                    evidence |= {f"{prefix}/{measure}": values.tolist() for measure, values in draws.items()}
                elif name == main:
                    told = part.by, part.name, "", part.low, part.high, int(part.chosen.sum())
                    strata.append(Subgroup(*told, found["exact"], tuple(draws["exact"].tolist())))
        title = f"Values recalled by attention={main}"
        draw: Callable[[Path], None] = partial(_plot, figures, [*marks], main, [*self._parts()])
        kept = {one.key: {} for one in candidates}
        return EvaluationResult(
            figures, [Table(title, COLUMNS, rows, texts=3)], {"recall": draw}, kept,
            Replicates("test/exact", evidence, strata),
        )  # fmt: skip

    def _asked(self) -> Iterator[tuple[Example, Query]]:
        return ((example, query) for example in self.examples for query in example.queries)

    def _told(self, one: Candidate) -> UInt8[np.ndarray, "queries value"]:
        """The likeliest bases, by a model."""
        ahead = int(self.task.form == "causal")
        told, done = [], 0
        for _, answers in one.predictor.logits(self.examples, self.strands):
            for row in answers["value"].argmax(-1).cpu().numpy().astype(np.uint8):
                told += [row[query.start - ahead : query.stop - ahead] for query in self.examples[done].queries]
                done += 1
        return np.stack(told)

    def _guessed(self) -> UInt8[np.ndarray, "queries value"]:
        rng = np.random.default_rng(0)
        if not self.task.distractors:
            return rng.integers(0, 4, self.truth.shape, np.uint8)
        values = np.concatenate([self.truth[:, None], self.wrong], 1)
        return values[np.arange(len(values)), rng.integers(values.shape[1], size=len(values))]

    def _marked(self, told: UInt8[np.ndarray, "queries value"]) -> RecallMetrics:
        right = told == self.truth
        misled = (told[:, None] == self.wrong).all(-1).any(-1)
        return RecallMetrics(right.all(-1).astype(np.float64), right.mean(-1), misled.astype(np.float64))

    def _parts(self) -> Iterator[Subset]:
        yield Subset("", "all", None, None, np.ones(len(self.queries), np.bool_))
        delta = "none" if self.task.distractor_mismatches is None else str(self.task.distractor_mismatches)
        yield Subset("delta", delta, None, None, np.ones(len(self.queries), np.bool_))
        opposite = np.array([query.reverse_strand for query in self.queries])
        for name, chosen in (("same", ~opposite), ("opposite", opposite)):
            if chosen.any():
                yield Subset("strand", name, None, None, chosen)
        octave = np.array([query.distance.bit_length() - 1 for query in self.queries])
        for number in np.unique(octave).tolist():
            low, high = 2**number, 2 ** (number + 1)
            yield Subset("distance", f"{low}–{high}", low, high, octave == number)

    def _figures(
        self, mark: RecallMetrics, chosen: Bool[np.ndarray, "queries"]
    ) -> tuple[dict[str, int | float], dict[str, Float[np.ndarray, "draws"]]]:
        """Every figure of some of the questions, and what of them has a value in every resample."""
        owners = self.owners[chosen]
        draws = {
            name: resampled_mean(values[chosen], owners, self.draws)
            for name, values in (("exact", mark.exact), ("accuracy", mark.accuracy))
        }
        low, high = _middle(draws["exact"])
        found: dict[str, int | float] = {
            "queries": int(chosen.sum()),
            "exact": float(mark.exact[chosen].mean()),
            "exact_low": low,
            "exact_high": high,
            "accuracy": float(mark.accuracy[chosen].mean()),
        }
        if self.task.distractors:
            found["misled"] = float(mark.misled[chosen].mean())
        return found, draws


def _rivals(bases: UInt8[np.ndarray, "length"], query: Query) -> UInt8[np.ndarray, "rivals value"]:
    """The values that stand beside near-duplicates of a query's key, read on its strand."""
    size = query.stop - query.start
    read = [bases[start : start + size] for start in query.distractors]
    turned = [reverse_complement(value) if query.reverse_strand else value for value in read]
    return np.array(turned, np.uint8).reshape(-1, size)


def _middle(draws: Float[np.ndarray, "draws"]) -> tuple[float, float]:
    known = draws[~np.isnan(draws)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _row(part: Subset, name: str, found: dict[str, int | float]) -> list[str]:
    return [
        part.by or "all",
        part.name,
        name,
        f"{found['queries']:,}",
        f"{found['exact']:.3f} [{found['exact_low']:.3f}–{found['exact_high']:.3f}]",
        f"{found['accuracy']:.3f}",
        f"{found['misled']:.3f}" if "misled" in found else "–",
    ]


def _plot(
    figures: dict[str, int | float], names: Sequence[str], main: str, parts: Sequence[Subset], file: Path
) -> None:
    """Exact match against the distance from needle to query."""
    ranges = [part for part in parts if part.by == "distance"]
    middles = [math.sqrt(part.low * part.high) for part in ranges if part.low and part.high]
    figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in names:
        prefix = "test" if name == main else f"{name.partition(' (')[0]}/test"
        values, low, high = (
            [figures[f"{prefix}{part.key}/{measure}"] for part in ranges]
            for measure in ("exact", "exact_low", "exact_high")
        )
        panel.plot(middles, values, "o-" if name == main else ".--", label=name)
        if name == main:
            panel.fill_between(middles, low, high, alpha=0.2)
    panel.set_xscale("log", base=2)
    panel.set(xlabel="bases from needle to query", ylabel="exact match", ylim=(-0.02, 1.02))
    panel.legend(fontsize=8)
    save_figure(figure, file)
