"""How well scores find mutations: per event and per base, by kind, with intervals from resampled windows."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from genoattn.genome.mutate import Event

OUTPUTS = ("substitution", "insertion", "deletion")
"""The columns of a table of scores that every comparison has."""
COLUMNS = (*OUTPUTS, "inversion")
"""All columns in order; the last is there in tasks that ask for inversions."""
KINDS = {"snv": 0, "mnv": 0, "insertion": 1, "deletion": 2, "long insertion": 1, "long deletion": 2}
KINDS |= {"inversion": 3, "duplication": 1, "expansion": 1, "contraction": 2}
"""Every kind that is told apart, and the column that scores it."""
SIMPLE = ("snv", "insertion", "deletion")
"""The kinds by which a detector's thresholds are chosen and its mean quality is told."""
LONG_KINDS = ("long insertion", "long deletion")
EVENT_KINDS = (*LONG_KINDS, "duplication", "expansion", "contraction")
"""The kinds that have no figure per base: what is asked of their bases is asked of those of short indels too."""
STRETCHES = ("inversion", "duplication", "expansion")
"""The kinds that are scored by the mean of a stretch: the highest of so many bases would be high by chance."""
CHUNK = 256
"""Events that are resampled at once."""
LONG = 10
"""An indel of more bases than this is a long one."""


class Scored(NamedTuple):
    """Candidates of one kind: all of its events, and every base that no event of any kind touches."""

    scores: Float[np.ndarray, "candidates"]
    truth: Bool[np.ndarray, "candidates"]
    windows: Int[np.ndarray, "candidates"]


class Quality(NamedTuple):
    """How well one kind is found. Rates are events a base; an interval is the middle 95 % over resampled windows."""

    events: int
    rate: float
    auprc: float
    auprc_low: float
    auprc_high: float
    auroc: float
    precision: float
    recall: float
    f1: float
    f1_low: float
    f1_high: float
    base_auprc: float


def kind_of(event: Event) -> str:
    """The event's kind, long indels apart."""
    return f"long {event.kind}" if event.kind in ("insertion", "deletion") and event.size > LONG else event.kind


def gather(
    scores: Float[np.ndarray, "bases columns"],
    events: Sequence[Event],
    windows: Int[np.ndarray, "bases"],
    tested: Bool[np.ndarray, "bases"],
) -> dict[str, Scored]:
    """Candidates by kind among the bases tested.

    An event scores the maximum over all bases at which it could as well be placed, one of `STRETCHES` the highest mean
    over a stretch of its size there; it is tested if its first base is.
    """
    touched = np.zeros(len(scores), np.bool_)
    found: dict[str, list[tuple[float, int]]] = {}
    for event in events:
        touched[event.first : event.last] = True
        if not tested[event.start]:
            continue
        kind = kind_of(event)
        possible = scores[event.first : event.last, KINDS[kind]]
        best = _best_stretch(possible, event.stop - event.start) if kind in STRETCHES else float(possible.max())
        found.setdefault(kind, []).append((best, int(windows[event.start])))
    quiet = tested & ~touched
    gathered = {}
    for kind in KINDS:  # in this order, whichever came first
        if kind in found:
            best, where = (np.array(column) for column in zip(*found[kind], strict=True))
            negatives = scores[quiet, KINDS[kind]]
            gathered[kind] = Scored(
                np.concatenate([best.astype(scores.dtype), negatives]),
                np.arange(len(best) + len(negatives)) < len(best),
                np.concatenate([where, windows[quiet]]),
            )
    return gathered


def _best_stretch(scores: np.ndarray, size: int) -> float:
    """The highest mean of `size` neighbours."""
    total = np.concatenate([[0.0], np.cumsum(scores)])
    return float((total[size:] - total[:-size]).max() / size)


def best_threshold(scored: Scored) -> float:
    """The score from which on calling an event gives the highest F1."""
    order = np.argsort(-scored.scores, kind="stable")
    scores, hits = scored.scores[order], np.cumsum(scored.truth[order])
    last = np.append(scores[1:] != scores[:-1], True)  # a threshold takes all candidates of one score, or none
    f1 = np.where(last, 2 * hits / (np.arange(1, len(scores) + 1) + hits[-1]), -1)
    return float(scores[f1.argmax()])


def quality(scored: Scored, threshold: float, base_auprc: float, bases: int, resamples: int, seed: int) -> Quality:
    """Every figure of one kind; `resamples` bootstrap draws of the windows give the intervals."""
    scored = scored._replace(windows=np.unique(scored.windows, return_inverse=True)[1])  # those that hold candidates
    scores, truth = torch.from_numpy(scored.scores), torch.from_numpy(scored.truth)
    counts = _counts(scored, threshold)
    precision, recall, f1 = _at_threshold(counts.sum(0)[None])[0]
    draws = _draws(len(counts), resamples, seed)
    drawn = draws @ counts
    held = drawn[:, 0] + drawn[:, 2] > 0  # a resample without any event says nothing, for AUPRC too
    f1_low, f1_high = _middle(np.where(held, _at_threshold(drawn)[:, 2], np.nan))
    auprc_low, auprc_high = _middle(resampled_average_precision(scored, draws))
    return Quality(
        events=int(truth.sum()),
        rate=int(truth.sum()) / bases,
        auprc=average_precision(scored.scores, scored.truth),
        auprc_low=auprc_low,
        auprc_high=auprc_high,
        auroc=float(binary_auroc(scores, truth.long())),
        precision=precision,
        recall=recall,
        f1=f1,
        f1_low=f1_low,
        f1_high=f1_high,
        base_auprc=base_auprc,
    )


def f1_score(scored: Scored, threshold: float) -> float:
    """F1 of calling what scores `threshold` or more; 0 where nothing was called or there is nothing to find."""
    return float(_at_threshold(_counts(scored, threshold).sum(0)[None])[0, 2])


def per_base_auprc(
    scores: Float[np.ndarray, "bases"], truth: Bool[np.ndarray, "bases"], asked: Bool[np.ndarray, "bases"]
) -> float:
    """AUPRC over single bases, those about which nothing is asked left out."""
    return average_precision(scores[asked], truth[asked])


def average_precision(scores: Float[np.ndarray, "candidates"], truth: Bool[np.ndarray, "candidates"]) -> float:
    """AUPRC; NaN without anything to find."""
    if not truth.any():
        return float("nan")
    # What scores below every event comes after the last of them in the ranking and cannot change the figure.
    kept = scores >= scores[truth].min()
    return float(binary_average_precision(torch.from_numpy(scores[kept]), torch.from_numpy(truth[kept]).long()))


def resampled_average_precision(
    scored: Scored, draws: Int[np.ndarray, "resamples windows"]
) -> Float[np.ndarray, "resamples"]:
    """Average precision of each resample, in which window w counts draws[r, w] times; NaN without any event."""
    kept = scored.scores >= scored.scores[scored.truth].min()
    order = np.argsort(-scored.scores[kept], kind="stable")
    scores, truth, windows = (column[kept][order] for column in scored)
    ties = np.searchsorted(-scores, -scores, side="right") - 1  # the last candidate of the same score
    at = ties[truth]
    # A candidate counts at its own event and all that rank after it, so what falls between two events is summed once.
    first = np.searchsorted(at, np.arange(len(scores)))
    times = draws.T.astype(np.float64)
    share = times[windows[truth]]
    hits = np.zeros_like(share)
    np.add.at(hits, first[truth], share)
    ranked = np.concatenate(
        [
            _between(first, windows, low, min(low + CHUNK, len(at)), len(times)) @ times
            for low in range(0, len(at), CHUNK)
        ]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(hits.cumsum(0) / ranked.cumsum(0))
        return (share * precision).sum(0) / share.sum(0)


def resamples(
    blocks: Sequence[Hashable], count: int
) -> tuple[Int[np.ndarray, "windows"], Int[np.ndarray, "draws blocks"]]:
    """The number of each window's block, and how often every block counts in each of `count` bootstrap draws.

    The same blocks in the same order give the same draws, whatever is measured on them.
    """
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    total = len(numbers)
    draws = np.random.default_rng([total, count]).multinomial(total, np.full(total, 1 / total), size=count)
    return np.array([numbers[block] for block in blocks]), draws


def share(
    hits: Float[np.ndarray, "questions"],
    owners: Int[np.ndarray, "questions"],
    draws: Int[np.ndarray, "draws blocks"],
) -> Float[np.ndarray, "draws"]:
    """The mean of `hits` in every draw; `owners` are the blocks of the questions. NaN where a draw holds none."""
    size = draws.shape[1]
    found = np.bincount(owners, weights=hits, minlength=size)
    asked = np.bincount(owners, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (draws @ found) / (draws @ asked)


def _between(
    first: Int[np.ndarray, "candidates"], windows: Int[np.ndarray, "candidates"], low: int, high: int, count: int
) -> Float[np.ndarray, "events windows"]:
    """How many candidates of each window count first at events low … high."""
    begin, end = np.searchsorted(first, [low, high])
    cells = (first[begin:end] - low) * count + windows[begin:end]
    return np.bincount(cells, minlength=(high - low) * count).reshape(high - low, count).astype(np.float64)


def _draws(windows: int, resamples: int, seed: int) -> Int[np.ndarray, "resamples windows"]:
    return np.random.default_rng(seed).multinomial(windows, np.full(windows, 1 / windows), size=resamples)


def _middle(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _counts(scored: Scored, threshold: float) -> Int[np.ndarray, "windows 3"]:
    """True positives, false positives and false negatives of each window."""
    called = scored.scores >= threshold
    cells = (called & scored.truth, called & ~scored.truth, ~called & scored.truth)
    windows = int(scored.windows.max()) + 1
    return np.stack([np.bincount(scored.windows[cell], minlength=windows) for cell in cells], 1)


def _at_threshold(counts: Int[np.ndarray, "rows 3"]) -> Float[np.ndarray, "rows 3"]:
    """Precision, recall and F1 of rows of counts; 0 where nothing was called or there is nothing to find."""
    right, wrong, missed = counts.T.astype(np.float64)
    pairs = ((right, right + wrong), (right, right + missed), (2 * right, 2 * right + wrong + missed))
    return np.stack([np.divide(a, b, out=np.zeros_like(a), where=b > 0) for a, b in pairs], 1)
