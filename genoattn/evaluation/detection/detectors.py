"""Detectors: models and classical baselines, all of which give every base of an example a score per output."""

import time
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, final

import numpy as np
from jaxtyping import Float

from genoattn.data.example import Example
from genoattn.data.targets import COLUMNS
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.baselines.kmer_chaining import KmerCaller
from genoattn.evaluation.baselines.pairwise_alignment import AlignmentCaller
from genoattn.genome.progress import tracked
from genoattn.models.cost import peak_bytes, reset_peak

CALL_THRESHOLDS: dict[str, float] = dict.fromkeys(COLUMNS, 0.5)
"""Thresholds of a detector that scores 0 and 1."""

CALLERS = ("aligner", "kmer_lookup")
"""The detectors that call a mutation or not, without a score: their metric is F1 instead of AUPRC."""


class ScoringCost(NamedTuple):
    """The cost of scoring every test set, as metrics.json names it."""

    score_seconds: float = 0.0
    score_cpu_seconds: float = 0.0
    """Processor time of all threads."""
    scored_bases: float = 0.0
    score_peak_bytes: float = 0.0
    """The memory of the process at its peak."""


@final
class ModelDetector:
    """A model as a detector: the probabilities of every base, in evaluation mode.

    `both_strands` averages over both strands, `average_frames` over every frame in which the tokenizer can read.
    """

    def __init__(self, candidate: Candidate, both_strands: bool = False, average_frames: bool = False):
        self.key, self.name, self.predictor = candidate.key, candidate.name, candidate.predictor
        self.both_strands = both_strands
        self.frames = self.predictor.tokenizer.frame_count if average_frames else 1
        self.cost = ScoringCost()

    def __call__(self, examples: Sequence[Example]) -> list[Float[np.ndarray, "length columns"]]:
        reset_peak(self.predictor.device)
        seconds, cpu_seconds = time.perf_counter(), time.process_time()
        total: list[np.ndarray] = []
        outputs = [output for output in COLUMNS if output in self.predictor.task.outputs]
        for frame in range(self.frames):
            scores = self.predictor.probabilities_per_base(examples, outputs, self.both_strands, frame)
            scores = list(tracked(scores, f"{self.name} scores", len(examples)))
            total = [before + new for before, new in zip(total, scores, strict=True)] if total else scores
        bases = sum(len(example.bases) for example in examples)
        self.cost = ScoringCost(
            self.cost.score_seconds + time.perf_counter() - seconds,
            self.cost.score_cpu_seconds + time.process_time() - cpu_seconds,
            self.cost.scored_bases + bases,
            max(self.cost.score_peak_bytes, peak_bytes(self.predictor.device)),
        )
        return [scores / self.frames for scores in total]


@final
class CallingDetector:
    """A classical caller as a detector: 1 where it calls a mutation, else 0."""

    def __init__(self, key: str, name: str, doing: str, caller: AlignmentCaller | KmerCaller, max_shift: int = 0):
        self.key, self.name, self.doing, self.caller, self.max_shift = key, name, doing, caller, max_shift

    def __call__(self, examples: Sequence[Example]) -> list[Float[np.ndarray, "length columns"]]:
        scored = []
        for example in tracked(examples, self.doing, len(examples)):
            beside = example.reference_window
            reference = example.reference if beside is None else beside[self.max_shift :]
            assert reference is not None
            scored.append(np.stack(self.caller(reference, example.bases), 1).astype(np.float64))
        return scored


def aligner(max_shift: int) -> CallingDetector:
    """Pairwise alignment with a reference window that begins `max_shift` bases before the sample."""
    return CallingDetector("aligner", "aligner", "the aligner aligns", AlignmentCaller(), max_shift)


def kmer_lookup() -> CallingDetector:
    """k-mer look-up for samples of either strand."""
    return CallingDetector("kmer_lookup", "k-mer look-up", "k-mers are looked up", KmerCaller())


Detector: TypeAlias = ModelDetector | CallingDetector
