"""The common part of the evaluators of labelled variants: their test set, resampling by group, and rivals of a model.

A rival is a number for each variant: a column of the file, the consequence for a protein, or the likelihood ratio of a
language model that was never shown a label. Its sign is learned on the training variants and nothing else of it, so
that numbers of several folds may be pooled.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.evaluation.base import Answers, Candidate, Evaluator
from genoattn.evaluation.baselines.regression import features
from genoattn.evaluation.bootstrap import BLOCK, Resamples, resample
from genoattn.evaluation.score_metrics import spearman
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.consequence import SEVERITY, Consequences
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.genome.scorable import Allele
from genoattn.models.variant_scoring import VariantScorer

Numbers: TypeAlias = Float[np.ndarray, "variants"]

MIN_GROUPS = 5
"""With fewer groups in the test than this, blocks or single variants are resampled in their place."""

AT_A_TIME = 256
"""Variants whose windows are in memory at a time."""

SIGN_SAMPLE = 256
"""Training variants that show the sign of a likelihood ratio."""


class VariantEvaluator(Evaluator):
    """Only variants of the test split are tested; baselines learn from the training split."""

    def __init__(self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool):
        assert isinstance(task, VariantClassification)
        self.task, self.both_strands, self.resamples, self.source = task, both_strands, test.resamples, source
        self.training, self.tested, self.length = source.labelled["train"], source.labelled["test"], data.length
        if len(task.classes) > 2 and (task.beside.rivals or task.gff):
            raise UserError(
                f"task.rivals and task.gff are numbers, which tell two classes apart, and task.classes has"
                f" {len(task.classes)}"
            )
        self.consequences = Consequences(source.genome, Path(task.gff)) if task.gff else None
        self.window = partial(task.window_around, source.genome, length=data.length)

    @abstractmethod
    def predict(self, candidates: Sequence[Candidate]) -> list[Answers]:
        """The answers of models, baselines and rivals for every variant of the test, in their order."""

    @property
    @abstractmethod
    def training_targets(self) -> Numbers:
        """The class or number of each training variant, which is learned."""

    def features(self) -> tuple[Float[np.ndarray, "training features"], Float[np.ndarray, "tested features"]]:
        """Plain facts of the training and of the tested variants."""
        training, tested = (
            np.stack([features(variant, self.window(variant)) for variant in variants])
            for variants in (self.training, self.tested)
        )
        return training, tested

    def logits(self, candidate: Candidate, output: str) -> Float[np.ndarray, "variants classes"]:
        """The logits of an output for every tested variant, whose windows are made a few at a time."""
        tables = [
            logits[output][:, 0].double().cpu().numpy()
            for first in range(0, len(self.tested), AT_A_TIME)
            for _, logits in candidate.predictor.logits(
                [self.window(variant) for variant in self.tested[first : first + AT_A_TIME]], self.both_strands
            )
        ]
        return np.concatenate(tables)

    def rivals(self) -> list[Answers[Numbers]]:
        """The columns of `task.rivals`, and the consequences by `task.gff`."""
        both = (self.training, self.tested)
        answers = []
        for number, name in enumerate(self.task.beside.rivals):
            columns = [[variant.rivals[number] for variant in variants] for variants in both]
            key = "rival_" + name.replace("/", "_")
            answers.append(Answers(key, name, column_numbers(columns[0], columns[1], self.training_targets)))
        if known := self.consequences:
            training, tested = (
                np.array([SEVERITY.get(known.of(variant.record, variant.mutation), 2) for variant in variants], float)
                for variants in both
            )
            values = oriented(training, tested, self.training_targets)
            answers.append(Answers("consequence", "consequence", values))
        return answers

    def zero_shot(self, candidate: Candidate) -> Answers[Numbers]:
        """The log-likelihood ratio of a language model, the mean of both strands; 0 where it has none."""
        chosen = np.random.default_rng(0).permutation(len(self.training))[:SIGN_SAMPLE]
        sample = self._ratios(candidate, [self.training[number] for number in chosen])
        tested = self._ratios(candidate, self.tested)
        return Answers(candidate.key, candidate.name, oriented(sample, tested, self.training_targets[chosen]))

    def _ratios(self, candidate: Candidate, variants: Sequence[LabelledVariant]) -> Numbers:
        scorer = VariantScorer(candidate.predictor, self.length, both_strands=True, embeddings=False)
        scored = scorer.score(self.source.genome, [Allele(each.record, each.mutation) for each in variants])
        return np.nan_to_num([each.values[0] for each in scored])

    def subsets(self) -> Iterator[tuple[str, Bool[np.ndarray, "variants"]]]:
        """All variants and, if there are both, substitutions of one base and indels."""
        snv = np.array([variant.mutation.kind == "snv" for variant in self.tested])
        yield "all", np.ones(len(snv), np.bool_)
        if snv.any() and not snv.all():
            yield from (("snv", snv), ("indel", ~snv))

    def resampled(self, chosen: Bool[np.ndarray, "variants"]) -> Resamples:
        """Resamples of chosen variants by group or, without groups, by blocks of the genome."""
        variants = [self.tested[number] for number in np.flatnonzero(chosen)]
        if len({variant.group for variant in variants}) >= MIN_GROUPS:
            return resample([variant.group for variant in variants], self.resamples, MIN_GROUPS)
        return resample([(variant.record, variant.mutation.start // BLOCK) for variant in variants], self.resamples)

    def notes(self) -> tuple[str, ...]:
        """A note on the intervals, if the task has groups."""
        groups = len({variant.group for variant in self.tested})
        if self.task.groups is None:
            return ()
        if groups >= MIN_GROUPS:
            return (f"Intervals draw whole groups, of which the test has {groups}.",)
        return (f"Intervals draw blocks or single variants: of groups the test has only {groups}.",)


def column_numbers(training: Sequence[str], tested: Sequence[str], targets: Numbers) -> Numbers:
    """The numbers of a column for tested variants, with the sign that goes with the targets of the training variants.

    Words become ranks: those of their mean target in training. What is missing or new becomes the median.
    """
    try:
        first, second = (np.array([_number(text) for text in column]) for column in (training, tested))
    except ValueError:
        means = {word: targets[[text == word for text in training]].mean() for word in dict.fromkeys(training)}
        rank_of = {word: float(rank) for rank, word in enumerate(sorted(means, key=lambda word: (means[word], word)))}
        return _filled(np.array([rank_of.get(text, np.nan) for text in tested]), np.array(list(rank_of.values())))
    return oriented(_filled(first, first), _filled(second, first), targets)


def _number(text: str) -> float:
    return np.nan if text.strip().lower() in ("", ".", "na", "nan", "null") else float(text)


def oriented(training: Numbers, tested: Numbers, targets: Numbers) -> Numbers:
    """Numbers of tested variants, times −1 if those of the training variants fall with their targets."""
    return -tested if spearman(training, targets) < 0 else tested


def _filled(numbers: Numbers, known: Numbers) -> Numbers:
    known = known[~np.isnan(known)]
    return np.where(np.isnan(numbers), np.median(known) if len(known) else 0.0, numbers)
