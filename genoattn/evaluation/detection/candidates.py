"""events and untouched bases, scored"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from genoattn.evaluation.bootstrap import ScoredCalls
from genoattn.genome.mutations import Event

KINDS = {"snv": 0, "mnv": 0, "insertion": 1, "deletion": 2, "long insertion": 1, "long deletion": 2}


KINDS |= {"inversion": 3, "duplication": 1, "expansion": 1, "contraction": 2}
"""Every kind that is told apart, and the column that scores it."""


HEADLINE_KINDS = ("snv", "insertion", "deletion")
"""The kinds by which a detector's thresholds are chosen and its mean quality is told."""


LONG_KINDS = ("long insertion", "long deletion")


EVENT_KINDS = (*LONG_KINDS, "duplication", "expansion", "contraction")
"""The kinds that have no figure per base: what is asked of their bases is asked of those of short indels too."""


MEAN_SCORED_KINDS = ("inversion", "duplication", "expansion")
"""The kinds that are scored by the mean of a stretch: the highest of so many bases would be high by chance."""


LONG = 10
"""An indel of more bases than this is a long one."""


def kind_of(event: Event) -> str:
    """The event's kind, long indels apart."""
    return f"long {event.kind}" if event.kind in ("insertion", "deletion") and event.size > LONG else event.kind


def collect_scored_calls(
    scores: Float[np.ndarray, "bases columns"],
    events: Sequence[Event],
    windows: Int[np.ndarray, "bases"],
    tested: Bool[np.ndarray, "bases"],
) -> dict[str, ScoredCalls]:
    """Candidates by kind among the bases tested.

    An event scores the maximum over all bases at which it could as well be placed, one of `STRETCHES` the highest mean
    over a stretch of its size there; it is tested if its first base is.
    """
    touched = np.zeros(len(scores), np.bool_)
    found: dict[str, list[tuple[float, int]]] = {}
    for event in events:
        touched[event.earliest : event.latest] = True
        if not tested[event.start]:
            continue
        kind = kind_of(event)
        possible = scores[event.earliest : event.latest, KINDS[kind]]
        best = _best_stretch(possible, event.stop - event.start) if kind in MEAN_SCORED_KINDS else float(possible.max())
        found.setdefault(kind, []).append((best, int(windows[event.start])))
    quiet = tested & ~touched
    gathered = {}
    for kind in KINDS:  # in this order, whichever came first
        if kind in found:
            best, where = (np.array(column) for column in zip(*found[kind], strict=True))
            negatives = scores[quiet, KINDS[kind]]
            gathered[kind] = ScoredCalls(
                np.concatenate([best.astype(scores.dtype), negatives]),
                np.arange(len(best) + len(negatives)) < len(best),
                np.concatenate([where, windows[quiet]]),
            )
    return gathered


def _best_stretch(scores: np.ndarray, size: int) -> float:
    """The highest mean of `size` neighbours."""
    total = np.concatenate([[0.0], np.cumsum(scores)])
    return float((total[size:] - total[:-size]).max() / size)
