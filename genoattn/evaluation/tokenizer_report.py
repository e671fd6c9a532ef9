"""The report of a tokenizer: how many tokens a mutation changes, and how much scores depend on the frame of tokens."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.targets import MUTATION_OUTPUTS
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.errors import UserError
from genoattn.evaluation.base import TEST, Candidate
from genoattn.evaluation.detection.detectors import ModelDetector
from genoattn.evaluation.detection.evaluator import simulated_windows, unmasked_test_set
from genoattn.evaluation.detection.results import choose_thresholds, evaluate_detector
from genoattn.evaluation.detection.scored_calls import HEADLINE_KINDS
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.mutations import Mutation, mutated_sequence
from genoattn.models.predictor import Predictor

SIZES = (1, 3, 6)
"""Bases of the indels that are tried."""

COLUMNS = ("mutation", "new tokens,\nmean", "95 %", "most", "bases to the\nlast, mean", "95 %", "most")


class TokenChange(NamedTuple):
    """The effect of one mutation on the tokens of a window."""

    tokens: int
    """New tokens."""
    reach: int
    """Bases from the mutation to the start of the farthest new token."""


class TokenizerReport(NamedTuple):
    """Metrics under the candidate `tokenizer`, or of the detector's frames, and a table."""

    metrics: Metrics
    table: Table


def tokenizer_report(
    tokenizer: Tokenizer, windows: Sequence[UInt8[np.ndarray, "_"]], rng: np.random.Generator
) -> TokenizerReport:
    """Count the tokens of windows, and the tokens that one mutation in the middle of each window changes."""
    encoded = [tokenizer.encode(bases) for bases in windows]
    bases, tokens = sum(map(len, windows)), sum(len(window.ids) for window in encoded)
    single = sum(int((window.ids < len(tokenizer.letters)).sum()) for window in encoded)
    values: dict[tuple[str, str], int | float] = {
        ("all", "vocabulary"): tokenizer.vocabulary_size,
        ("all", "tokens_per_base"): tokens / bases,
        ("all", "longest"): tokenizer.max_token_length,
        ("all", "frames"): tokenizer.frame_count,
        ("all", "single_base_share"): single / bases,
    }
    rows = []
    for kind in ("snv", *(f"{kind} of {size}" for kind in ("insertion", "deletion") for size in SIZES)):
        pairs = [(window, _mutation(window, kind, rng)) for window in windows]
        changes = [changed_tokens(tokenizer, window, mutation) for window, mutation in pairs if mutation]
        if not changes:
            raise UserError(f"no window of data.length={len(windows[0])} has known bases in its middle for {kind}")
        cells = []
        for name, counts in zip(TokenChange._fields, np.array(changes).T, strict=True):
            subset = kind.replace(" of ", "_")
            values |= {(subset, f"{name}_mean"): float(counts.mean()), (subset, f"{name}_max"): int(counts.max())}
            cells += [f"{counts.mean():.2f}", f"{np.quantile(counts, 0.95):.0f}", f"{counts.max()}"]
        rows.append([kind, *cells])
    title = (
        f"{type(tokenizer).__name__}: {tokenizer.vocabulary_size:,} tokens in the vocabulary, {tokens / bases:.3f}"
        f" tokens per base, {single / bases:.1%} of the bases in tokens of one base"
    )
    metrics = {MetricKey("tokenizer", TEST, subset, name): value for (subset, name), value in values.items()}
    return TokenizerReport(Metrics(metrics), Table(title, COLUMNS, rows))


def _mutation(bases: UInt8[np.ndarray, "_"], kind: str, rng: np.random.Generator) -> Mutation | None:
    """A random mutation near the middle of a window; None if a base there is unknown."""
    word, _, size = kind.partition(" of ")
    count = int(size or 1)
    at = len(bases) // 2 + int(rng.integers(0, 24))
    if at + count > len(bases) or max(bases[at : at + count]) > 3:
        return None
    if word == "insertion":
        return Mutation(at, at, rng.integers(0, 4, count, np.uint8).tobytes())
    inserted = b"" if word == "deletion" else bytes([(int(bases[at]) + int(rng.integers(1, 4))) % 4])
    return Mutation(at, at + count, inserted)


def changed_tokens(tokenizer: Tokenizer, bases: UInt8[np.ndarray, "_"], mutation: Mutation) -> TokenChange:
    """The tokens of the mutated window that are not among those of the original window.

    Two tokens are the same if they have the same id and start at the same base, counted from the left end before the
    mutation and from the right end after it.
    """
    sample = mutated_sequence(bases, [mutation])
    shift = len(sample) - len(bases)
    original, mutated = tokenizer.encode(bases), tokenizer.encode(sample)
    before = {*zip(original.token_starts.tolist(), original.ids.tolist(), strict=True)}
    after = {*zip((original.token_starts + shift).tolist(), original.ids.tolist(), strict=True)}
    end = mutation.start + len(mutation.inserted)
    new = [
        start
        for start, token in zip(mutated.token_starts.tolist(), mutated.ids.tolist(), strict=True)
        if (start, token) not in (after if start >= end else before)
    ]
    return TokenChange(len(new), max((abs(start - mutation.start) for start in new), default=0))


def frame_report(
    predictor: Predictor, name: str, source: DataSource, data: DataSettings, test: TestSettings
) -> TokenizerReport:
    """The spread of a detector's scores between the frames of its tokens, and AUPRC with one and with all frames."""
    test_set = unmasked_test_set(simulated_windows(TEST, test.windows, source, data, test, predictor.task), TEST)
    frames = predictor.tokenizer.frame_count
    probabilities = partial(predictor.probabilities_per_base, test_set.examples, MUTATION_OUTPUTS)
    tables = np.stack([np.concatenate(list(probabilities(frame=frame))) for frame in range(frames)])
    spread = {output: float(tables[:, :, column].std(0).mean()) for column, output in enumerate(MUTATION_OUTPUTS)}
    metrics = {MetricKey("all_frames", TEST, output, "spread"): value for output, value in spread.items()}
    rows = []
    for key, title in (("one_frame", "one frame"), ("all_frames", "all frames")):
        detector = ModelDetector(Candidate(key, title, predictor), average_frames=key == "all_frames")
        thresholds = choose_thresholds(test_set, test_set.scores(detector))
        (result,) = evaluate_detector([test_set], detector, thresholds, test.resamples)
        metrics[MetricKey(key, TEST, "all", "auprc")] = result.mean(lambda kind: kind.auprc)
        kinds = [result.kinds.get(kind) for kind in HEADLINE_KINDS]
        rows.append([title, *("–" if kind is None else f"{kind.metrics.auprc:.3f}" for kind in kinds)])
    listed = ", ".join(f"{output} {value:.4f}" for output, value in spread.items())
    title = f"AUPRC of {name} over {frames} frame(s); spread of a score between frames: {listed}"
    return TokenizerReport(Metrics(metrics), Table(title, ("scores", *HEADLINE_KINDS), rows))
