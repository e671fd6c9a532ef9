"""To be said in a sentence."""

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
from genoattn.evaluation.detection.candidates import HEADLINE_KINDS
from genoattn.evaluation.detection.detectors import ModelDetector, evaluate_detector, mean_quality
from genoattn.evaluation.detection.evaluator import plant
from genoattn.evaluation.detection.testsets import thresholds
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.mutations import Mutation, mutated_sequence
from genoattn.models.predictor import Predictor

SIZES = (1, 3, 6)
"""Bases of the indels that are tried."""


class TokenChange(NamedTuple):
    """What one mutation did: how many tokens are new, and the bases from its site to the start of the farthest."""

    tokens: int
    reach: int


def tokenizer_report(
    tokenizer: Tokenizer, windows: Sequence[UInt8[np.ndarray, "_"]], rng: np.random.Generator
) -> tuple[dict[str, int | float], list[Table]]:
    """What windows cost in tokens, and what one mutation in the middle of each changes."""
    encoded = [tokenizer.encode(bases) for bases in windows]
    bases, tokens = sum(map(len, windows)), sum(len(one.ids) for one in encoded)
    single = sum(int((one.ids < len(tokenizer.letters)).sum()) for one in encoded)
    figures: dict[str, int | float] = {
        "tokenizer/vocabulary": tokenizer.vocabulary_size,
        "tokenizer/tokens_per_base": tokens / bases,
        "tokenizer/longest": tokenizer.max_token_length,
        "tokenizer/frames": tokenizer.frame_count,
        "tokenizer/letters": single / bases,
    }
    rows = []
    kinds = ["snv", *(f"{kind} of {size}" for kind in ("insertion", "deletion") for size in SIZES)]
    for kind in kinds:
        found = [changed_tokens(tokenizer, one, mutation) for one in windows if (mutation := _mutation(one, kind, rng))]
        if not found:
            raise UserError(f"no window of data.length={len(windows[0])} has known bases in its middle for {kind}")
        for name, values in zip(("tokens", "reach"), np.array(found).T, strict=True):
            key = f"{kind.replace(' ', '_')}/{name}"
            figures |= {f"{key}_mean": float(values.mean()), f"{key}_max": int(values.max())}
        cells = [(f"{v.mean():.2f}", f"{np.quantile(v, 0.95):.0f}", f"{v.max()}") for v in np.array(found).T]
        rows.append([kind, *cells[0], *cells[1]])
    title = (
        f"{type(tokenizer).__name__}: {tokenizer.vocabulary_size:,} ids, {tokens / bases:.3f} tokens a base,"
        f" {single / bases:.1%} of the bases spelled singly; new tokens, and bases from the site to the last of them"
    )
    heads = ("changed", "tokens, mean", "95 %", "most", "bases to the last, mean", "95 %", "most")
    return figures, [Table(title, heads, rows)]


def _mutation(bases: UInt8[np.ndarray, "_"], kind: str, rng: np.random.Generator) -> Mutation | None:
    """One mutation near the middle of a window, at a place by chance; None where a letter there is unknown."""
    word, _, size = kind.partition(" of ")
    count = int(size or 1)
    at = len(bases) // 2 + int(rng.integers(0, 24))
    if at + count > len(bases) or max(bases[at : at + count]) > 3:
        return None
    if word == "insertion":
        return Mutation(at, at, rng.integers(0, 4, count, np.uint8).tobytes())
    came = b"" if word == "deletion" else bytes([(int(bases[at]) + int(rng.integers(1, 4))) % 4])
    return Mutation(at, at + count, came)


def changed_tokens(tokenizer: Tokenizer, bases: UInt8[np.ndarray, "_"], mutation: Mutation) -> TokenChange:
    """How many tokens of the mutated window are not among those of the window.

    A token is the same if its id is, and the base at which it starts: counted from the left end before the mutation,
    and from the right end after it.
    """
    sample = mutated_sequence(bases, [mutation])
    shift = len(sample) - len(bases)
    one, other = tokenizer.encode(bases), tokenizer.encode(sample)
    known = {*zip(one.token_starts.tolist(), one.ids.tolist(), strict=True)}
    moved = {*zip((one.token_starts + shift).tolist(), one.ids.tolist(), strict=True)}
    end = mutation.start + len(mutation.inserted)
    new = [
        start
        for start, token in zip(other.token_starts.tolist(), other.ids.tolist(), strict=True)
        if (start, token) not in (moved if start >= end else known)
    ]
    return TokenChange(len(new), max((abs(start - mutation.start) for start in new), default=0))


def frame_spread(
    parts: Predictor, source: DataSource, data: DataSettings, test: TestSettings, about: dict
) -> tuple[dict[str, int | float], Table]:
    """How far a detector's scores differ between the frames of its tokens, and what averaging over them gives."""
    made = partial(plant, source=source, data=data, test=test, task=parts.task)
    trial = made("planted", source.splits.test, test.windows)
    count = parts.tokenizer.frame_count
    tables = np.stack(
        [
            np.concatenate(list(parts.probabilities_per_base(trial.examples, MUTATION_OUTPUTS, frame=phase)))
            for phase in range(count)
        ]
    )
    spread = {name: float(tables[:, :, column].std(0).mean()) for column, name in enumerate(MUTATION_OUTPUTS)}
    scorers = [ModelDetector("one frame", parts), ModelDetector("all frames", parts, phases=True)]
    rows, figures = [], {f"frames/{name}_spread": value for name, value in spread.items()}
    for scorer in scorers:
        cut_offs = thresholds(trial, trial.scores(scorer))
        (result,) = evaluate_detector([trial], scorer, cut_offs, test.resamples)
        auprc = mean_quality(result, lambda found: found.auprc)
        figures[f"{scorer.name.replace(' ', '_')}/auprc"] = auprc
        rows.append(
            [scorer.name, *(f"{result.kinds[k].auprc:.3f}" if k in result.kinds else "–" for k in HEADLINE_KINDS)]
        )
    title = f"AUPRC of {about['name']} over {count} frame(s); spread of a score between them: " + ", ".join(
        f"{name} {value:.4f}" for name, value in spread.items()
    )
    return figures, Table(title, ("scores", *HEADLINE_KINDS), rows)
