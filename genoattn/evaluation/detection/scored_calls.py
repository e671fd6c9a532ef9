"""Events and untouched bases as scored calls: what a precision–recall curve of a detector ranks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from genoattn.evaluation.bootstrap import ScoredCalls
from genoattn.genome.mutations import LONG, Event

KINDS = {
    "snv": 0,
    "mnv": 0,
    "insertion": 1,
    "deletion": 2,
    "long insertion": 1,
    "long deletion": 2,
    "inversion": 3,
    "duplication": 1,
    "expansion": 1,
    "contraction": 2,
}
"""Every kind of mutation, and the column of the scores that detects it."""

HEADLINE_KINDS = ("snv", "insertion", "deletion")
"""The kinds that thresholds are chosen for and that the mean over kinds takes in."""

LONG_KINDS = ("long insertion", "long deletion")

EVENT_KINDS = (*LONG_KINDS, "duplication", "expansion", "contraction")
"""The kinds without a metric per base: per base they are not distinct from short indels."""

MEAN_SCORED_KINDS = ("inversion", "duplication", "expansion")
"""The kinds whose events score the mean of a stretch: the maximum of so many bases would be high by chance."""


def kind_of(event: Event) -> str:
    """The kind of an event, with long indels as kinds of their own."""
    return f"long {event.kind}" if event.kind in ("insertion", "deletion") and event.size > LONG else event.kind


def collect_scored_calls(
    scores: Float[np.ndarray, "bases columns"],
    events: Sequence[Event],
    units: Int[np.ndarray, "bases"],
    tested: Bool[np.ndarray, "bases"],
) -> dict[str, ScoredCalls]:
    """The scored calls of each kind among the tested bases.

    The score of an event is the highest score among its equivalent placements. For `MEAN_SCORED_KINDS` it is the
    highest mean over a stretch of the event's length. An event counts if its first base is tested.
    """
    touched = np.zeros(len(scores), np.bool_)
    events_of: dict[str, list[tuple[float, int]]] = {}
    for event in events:
        touched[event.earliest : event.latest] = True
        if not tested[event.start]:
            continue
        kind = kind_of(event)
        placements = scores[event.earliest : event.latest, KINDS[kind]]
        mean_scored = kind in MEAN_SCORED_KINDS
        score = _highest_mean(placements, event.stop - event.start) if mean_scored else float(placements.max())
        events_of.setdefault(kind, []).append((score, int(units[event.start])))
    quiet = tested & ~touched
    calls = {}
    for kind, column in KINDS.items():
        if kind in events_of:
            event_scores, event_units = (np.array(values) for values in zip(*events_of[kind], strict=True))
            negatives = scores[quiet, column]
            calls[kind] = ScoredCalls(
                np.concatenate([event_scores.astype(scores.dtype), negatives]),
                np.arange(len(event_scores) + len(negatives)) < len(event_scores),
                np.concatenate([event_units, units[quiet]]),
            )
    return calls


def _highest_mean(scores: np.ndarray, size: int) -> float:
    """The highest mean of `size` neighbours."""
    total = np.concatenate([[0.0], np.cumsum(scores)])
    return float((total[size:] - total[:-size]).max() / size)
