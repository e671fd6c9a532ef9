"""Scores of variants by a saved model: likelihood ratios, distances of embeddings, classes and numbers."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar, final

import numpy as np

from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.genome.scorable import FLIPPED, Allele
from genoattn.genome.sequence_store import Genome
from genoattn.genome.variant_windows import Window, WindowPair, window_pairs
from genoattn.models.build import LoadedModel
from genoattn.models.predictor import Predictor
from genoattn.models.variant_readings import OTHER_TOKENS, Reader, Reading

LLR, PREFIX, NUMBER = "GA_LLR", "GA_P_", "GA_SCORE"
NUMBER_MEANING = "Predicted number, in standard deviations of the training variants from their mean"
NAN = float("nan")
T = TypeVar("T")
R = TypeVar("R")

DISTANCES = {
    "GA_COS": (11, "Cosine distance of the mean embeddings of the two windows"),
    "GA_EUC": (6, "Euclidean distance of the mean embeddings of the two windows"),
    "GA_COS_SITE": (11, "Cosine distance of the embeddings of the two alleles, each the mean of its bases"),
    "GA_EUC_SITE": (6, "Euclidean distance of the embeddings of the two alleles, each the mean of its bases"),
}
"""Decimals and meaning of the distances, by name."""


class ScoreField(NamedTuple):
    """A score of every variant."""

    name: str
    decimals: int
    """Decimals that do not depend on which variants are computed together."""
    meaning: str

    def text(self, value: float) -> str:
        """A value as files have it: six digits at most; "" for NaN."""
        return "" if np.isnan(value) else f"{round(value, self.decimals) + 0.0:.6g}"


class Scored(NamedTuple):
    """The scores of a variant, NaN where it has none, and the reason (a key of `REASONS`) for that; "" for none."""

    values: tuple[float, ...]
    reason: str = ""


@final
class VariantScorer:
    """Scores variants with a saved model, in float64.

    The log-likelihood ratio of a causal model is log P(window with the variant) - log P(window of the reference), the
    mean of windows anchored at the left and at the right (see `window_pairs`). That of a masked model is the sum of
    log P(alternate base) - log P(reference base) with all substituted bases masked (Meier et al. 2021).

    Attributes:
        fields: The scores, in the order of `Scored.values`.
    """

    def __init__(
        self,
        loaded: LoadedModel | Predictor,
        length: int | None = None,
        both_strands: bool | None = None,
        embeddings: bool = True,
        batch: int = 8,
    ):
        """Score with a model, whose weights become float64.

        Args:
            loaded: The model; of a predictor without a card, `length` and `both_strands` must be given.
            length: Bases of a window; None: as in training.
            both_strands: True to average with the scores of the reverse strand; None: as in training.
            embeddings: False leaves out the distances of embeddings.
            batch: Windows that are computed together.
        """
        if isinstance(loaded, Predictor):
            assert length is not None and both_strands is not None, "a predictor does not say how it was trained"
            predictor = loaded
        else:
            predictor, card = loaded.predictor, loaded.card
            length = length or card.length
            both_strands = card.scores_both_strands if both_strands is None else both_strands
        self.length, self.embeddings, self.batch = length, embeddings, batch
        self.reader = Reader(predictor, both_strands)
        self.task, self.objective = predictor.task, predictor.task.context_format.token_objective
        labelled = self.task if isinstance(self.task, VariantClassification) else None
        self.classes = tuple(labelled.classes) if labelled and labelled.target == "class" else ()
        self.number = labelled is not None and labelled.target == "score"
        fields = [ScoreField(LLR, 5, self._meaning())] if self.objective else []
        if embeddings or not (self.objective or labelled):
            self.embeddings = True
            fields += [ScoreField(name, *rest) for name, rest in DISTANCES.items()]
        fields += [
            ScoreField(name, 6, f"Probability of the class {label!r}")
            for name, label in zip(_names(self.classes), self.classes, strict=True)
        ]
        fields += [ScoreField(NUMBER, 5, NUMBER_MEANING)] * self.number
        self.fields = tuple(fields)

    def _meaning(self) -> str:
        if self.objective == "next":
            return "log P(window with ALT) - log P(window with REF), natural logarithm"
        return "log P(ALT) - log P(REF) with the substituted bases masked, natural logarithm"

    def score(self, genome: Genome, alleles: Sequence[Allele]) -> list[Scored]:
        """Scores of variants, each as if it were alone.

        Args:
            genome: The genome.
            alleles: The variants; a flipped one is scored from the bases that it brings to those of the genome.

        Returns:
            Values and a reason for each variant.
        """
        pairs = [
            [pair.swapped() if flipped else pair for pair in window_pairs(genome, record, mutation, self.length)]
            for record, mutation, flipped in alleles
        ]
        readings = self._readings(pairs) if self.embeddings or self.objective == "next" else {}
        masked = self._masked(pairs) if self.objective == "hidden" else [(NAN, "")] * len(alleles)
        classes = self._class_table(genome, alleles, pairs)
        scored = []
        for allele, own, (ratio, reason), probabilities in zip(alleles, pairs, masked, classes, strict=True):
            if not own:
                scored.append(Scored((NAN,) * len(self.fields), "too_long"))
                continue
            read = [[readings[_key(window)] for window in pair] for pair in own] if readings else []
            values = []
            if self.objective:
                ratio = _mean([b.likelihood - a.likelihood for a, b in read]) if self.objective == "next" else ratio
                values.append(ratio)
            if self.embeddings:
                values += [_mean(column) for column in zip(*(distances(a, b) for a, b in read), strict=True)]
            scored.append(Scored((*values, *probabilities), reason or (FLIPPED if allele.flipped else "")))
        return scored

    def _readings(self, pairs: Sequence[Sequence[WindowPair]]) -> dict[tuple, Reading]:
        """The reading of every window; equal windows are read once."""
        windows = {_key(window): window for own in pairs for pair in own for window in pair}
        read = self._in_batches(list(windows.values()), lambda window: len(window.bases), self.reader.read)
        return dict(zip(windows, read, strict=True))

    def _masked(self, pairs: Sequence[Sequence[WindowPair]]) -> list[tuple[float, str]]:
        """The ratio of each substitution, by masking; others have a reason."""
        chosen = [n for n, own in enumerate(pairs) if own and _is_substitution(own[0])]
        # Substitutions of the same bases by others are read off one window.
        together: dict[tuple[bytes, bytes], list[int]] = {}
        for number in chosen:
            first, second = (window.bases for window in pairs[number][0])
            together.setdefault((first.tobytes(), (first != second).tobytes()), []).append(number)
        groups = list(together.values())
        ratios = self._in_batches(
            [[pairs[number][0] for number in group] for group in groups],
            lambda group: len(group[0].first.bases),
            self.reader.masked_ratios,
        )
        results = [(NAN, "masked_model_indel")] * len(pairs)
        for group, own in zip(groups, ratios, strict=True):
            for number, ratio in zip(group, own, strict=True):
                results[number] = (NAN, OTHER_TOKENS) if ratio is None else (ratio, "")
        return results

    def _class_table(
        self, genome: Genome, alleles: Sequence[Allele], pairs: Sequence[Sequence[WindowPair]]
    ) -> list[tuple[float, ...]]:
        """Probabilities of the classes, or the number, by windows as in training."""
        if not isinstance(self.task, VariantClassification):
            return [()] * len(alleles)
        examples = []
        for (record, mutation, flipped), own in zip(alleles, pairs, strict=True):
            if own:
                example = self.task.window_around(genome, LabelledVariant(record, mutation, 0), self.length)
                assert example.reference is not None and example.allele_spans is not None
                if flipped:
                    turned = {"bases": example.reference, "reference": example.bases}
                    example = example._replace(**turned, allele_spans=example.allele_spans[::-1])
                examples.append(example)
        found = iter(self._in_batches(examples, lambda example: len(example.bases), self.reader.label_answers))
        return [next(found) if own else () for own in pairs]

    def _in_batches(
        self, items: Sequence[T], length: Callable[[T], int], compute: Callable[[Sequence[T]], Sequence[R]]
    ) -> list[R]:
        """A result for each item, computed with items of the same length, so that none is padded."""
        results: dict[int, R] = {}
        for numbers in _groups([length(item) for item in items], self.batch):
            results.update(zip(numbers, compute([items[number] for number in numbers]), strict=True))
        return [results[number] for number in range(len(items))]


def distances(first: Reading, second: Reading) -> tuple[float, float, float, float]:
    """The distances of two windows, in the order of `DISTANCES`."""
    means = _cosine(first.mean, second.mean), float(np.linalg.norm(first.mean - second.mean))
    return *means, _cosine(first.site, second.site), float(np.linalg.norm(first.site - second.site))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """1 - cos, as half of the squared distance of unit vectors: small values keep their digits."""
    first, second = (vector / max(float(np.linalg.norm(vector)), 1e-300) for vector in (a, b))
    return float(((first - second) ** 2).sum()) / 2


def _key(window: Window) -> tuple[bytes, int, int]:
    return window.bases.tobytes(), window.start, window.stop


def _is_substitution(pair: WindowPair) -> bool:
    first, second = pair
    return (first.start, first.stop) == (second.start, second.stop)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _names(classes: Sequence[str]) -> Iterator[str]:
    """Names of fields from names of classes; a number is added to names that are equal without their signs."""
    names: list[str] = []
    for label in classes:
        name = PREFIX + re.sub(r"[^0-9A-Za-z]+", "_", label)
        names.append(name if name not in names else f"{name}_{len(names)}")
    yield from names


def _groups(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """The numbers of items of equal length, `size` at a time."""
    by_length: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        by_length.setdefault(length, []).append(number)
    for numbers in by_length.values():
        for first in range(0, len(numbers), size):
            yield numbers[first : first + size]
