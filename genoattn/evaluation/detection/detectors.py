"""Puts detectors to their trials: the same windows, the same events and the same thresholds' choice for each."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, final

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torchmetrics.functional.classification import binary_precision_recall_curve

from genoattn.data.example import Example
from genoattn.data.targets import COLUMNS
from genoattn.evaluation.baselines.kmer_chaining import KmerCaller
from genoattn.evaluation.baselines.pairwise_alignment import AlignmentCaller
from genoattn.evaluation.detection.by_distance import DistanceBin, metrics_by_distance
from genoattn.evaluation.detection.candidates import HEADLINE_KINDS, collect_scored_calls
from genoattn.evaluation.detection.metrics import DetectionMetrics
from genoattn.evaluation.detection.testsets import TestSet, measure, replicates, thresholds
from genoattn.models.cost import peak_bytes
from genoattn.models.predictor import Predictor

_Item = TypeVar("_Item")


CALL_THRESHOLDS: dict[str, float] = dict.fromkeys(COLUMNS, 0.5)
"""Thresholds for a detector that scores 0 and 1."""


CALLERS = ("aligner", "lookup")
"""The detectors that call a mutation or none, so that F1 says what they do and AUPRC does not."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision against recall as the threshold falls."""

    precision: Float[np.ndarray, "points"]
    recall: Float[np.ndarray, "points"]


@dataclass(frozen=True)
class DetectionResult:
    """What one detector did in one trial, by kind of mutation."""

    detector: str
    test_set: str
    bases: int
    kinds: dict[str, DetectionMetrics]
    curves: dict[str, PrecisionRecall]
    replicates: dict[str, Float[np.ndarray, "replicates"]] = field(default_factory=dict)
    """By kind, AUPRC in resamples of the genome; empty where windows were not drawn from it."""
    by_distance: Sequence[DistanceBin] = ()
    """The same by distance to the counterpart, where that lies in the context."""


@final
class ModelDetector:
    """A model as a detector: probabilities for every base of each example, in evaluation mode.

    `strands` averages over both strands, `phases` over every frame in which the tokenizer can read the bases.
    """

    def __init__(self, name: str, parts: Predictor, strands: bool = False, phases: bool = False):
        self.name, self.parts, self.strands = name, parts, strands
        self.phases = parts.tokenizer.frame_count if phases else 1
        self.taken: dict[str, float] = {}
        """What scoring took so far: seconds, seconds of all its threads, bases, the process's memory at the peak."""

    def __call__(self, examples: Sequence[Example]) -> list[Float[np.ndarray, "length columns"]]:
        began = time.perf_counter(), time.process_time()
        total: list[np.ndarray] = []
        outputs = [output for output in COLUMNS if output in self.parts.task.outputs]
        for phase in range(self.phases):
            made = self.parts.probabilities_per_base(examples, outputs, self.strands, phase)
            scored = list(_tracked(made, f"  {self.name} scores", len(examples)))
            total = [sum_ + one for sum_, one in zip(total, scored, strict=True)] if total else scored
        now = time.perf_counter(), time.process_time(), sum(len(example.bases) for example in examples)
        spent = dict(
            zip(
                ("score_seconds", "score_cpu_seconds", "scored_bases"),
                np.subtract(now, (*began, 0)).tolist(),
                strict=True,
            )
        )
        self.taken = {key: self.taken.get(key, 0) + value for key, value in spent.items()}
        self.taken["score_peak_bytes"] = peak_bytes(next(self.parts.model.parameters()).device)
        return [one / self.phases for one in total]


@final
class AlignerDetector:
    """The classical aligner as a detector: 1 where it calls a mutation, 0 elsewhere."""

    name = "aligner"

    def __init__(self, reach: int):
        self.reach, self.caller = reach, AlignmentCaller()

    def __call__(self, examples: Sequence[Example]) -> list[Float[np.ndarray, "length columns"]]:
        scored = []
        for example in _tracked(examples, "  the aligner aligns", len(examples)):
            reference = (
                example.reference if example.reference_window is None else example.reference_window[self.reach :]
            )
            assert reference is not None
            calls = self.caller(reference, example.bases)
            scored.append(np.stack(calls, 1).astype(np.float64))
        return scored


@final
class KmerDetector:
    """k-mer look-up as a detector where the reference stands before the sample: 1 where it calls a mutation."""

    name = "lookup"

    def __init__(self) -> None:
        self.caller = KmerCaller()

    def __call__(self, examples: Sequence[Example]) -> list[Float[np.ndarray, "length columns"]]:
        scored = []
        for example in _tracked(examples, "  k-mers are looked up", len(examples)):
            assert example.reference is not None
            scored.append(np.stack(self.caller(example.reference, example.bases), 1).astype(np.float64))
        return scored


def _tracked(items: Iterable[_Item], doing: str, total: int) -> Iterable[_Item]:
    """Items behind a passing progress bar, where there is a terminal to show it."""
    console = Console()
    return track(items, doing, total, console=console, transient=True, disable=not console.is_terminal)


Detector: TypeAlias = ModelDetector | AlignerDetector | KmerDetector


def without_supersets(trials: Sequence[TestSet]) -> list[TestSet]:
    """Trials without the whole of which a part is among them: enough for what only stands beside the main detector."""
    least = {id(trial.events): trial for trial in sorted(trials, key=lambda trial: -int(trial.tested.sum()))}
    return [trial for trial in trials if least[id(trial.events)] is trial]


def evaluate_detector(
    test_sets: Sequence[TestSet], scorer: Detector, thresholds: Mapping[str, float], resamples: int
) -> list[DetectionResult]:
    """One detector in every trial. A part of a trial seen just before takes its scores from the whole."""
    results: list[DetectionResult] = []
    whole: tuple[Sequence, np.ndarray] | None = None
    for trial in test_sets:
        if whole is None or whole[0] is not trial.events:
            whole = trial.events, trial.scores(scorer)
        scores = whole[1]
        kinds = measure(trial, scores, thresholds, resamples)
        curves = {kind: _curve(trial, scores, kind) for kind in HEADLINE_KINDS if kind in kinds}
        draws = replicates(trial, scores, resamples) if trial.blocks else {}
        ranges = metrics_by_distance(trial, scores, thresholds, resamples)
        results.append(DetectionResult(scorer.name, trial.name, int(trial.tested.sum()), kinds, curves, draws, ranges))
    return results


def choose_thresholds(trial: TestSet, scorer: Detector) -> dict[str, float]:
    """The score of best F1 for each output on a validation trial."""
    return thresholds(trial, trial.scores(scorer))


def mean_quality(result: DetectionResult, figure: Callable[[DetectionMetrics], float]) -> float:
    """The mean of a figure over SNVs, insertions and deletions (those that the trial holds)."""
    return float(np.mean([figure(result.kinds[kind]) for kind in HEADLINE_KINDS if kind in result.kinds] or [np.nan]))


def _curve(trial: TestSet, scores: np.ndarray, kind: str) -> PrecisionRecall:
    scored = collect_scored_calls(scores, trial.events, trial.windows, trial.tested)[kind]
    kept = scored.scores >= scored.scores[scored.truth].min()  # below the lowest event recall is 1 already
    precision, recall, _ = binary_precision_recall_curve(
        torch.from_numpy(scored.scores[kept]), torch.from_numpy(scored.truth[kept]).long()
    )
    return PrecisionRecall(precision.numpy(), recall.numpy())
