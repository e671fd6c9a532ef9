"""How well mutations are found in parts of a trial: by how far back in the context a base has its counterpart."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genoattn.data.targets import COLUMNS
from genoattn.evaluation.bootstrap import resampled_average_precision, resamples
from genoattn.evaluation.detection.candidates import HEADLINE_KINDS, KINDS, collect_scored_calls, kind_of
from genoattn.evaluation.detection.metrics import average_precision, f1_score
from genoattn.evaluation.detection.testsets import TestSet

MIN_EVENTS = 10
"""Events of a kind without which a part of a trial says nothing of that kind."""


class DistanceBin(NamedTuple):
    """One kind among the events and the untouched bases whose counterpart lies [low, high) back in the context."""

    low: int
    high: int
    kind: str
    """Empty: the mean over SNVs, insertions and deletions, those that the trial holds."""
    events: int
    auprc: float
    f1: float
    replicates: Float[np.ndarray, "replicates"]
    """AUPRC in resamples of the genome; as many in every range, and the same ones."""


def metrics_by_distance(
    test_set: TestSet, scores: Float[np.ndarray, "bases columns"], thresholds: Mapping[str, float], count: int
) -> list[DistanceBin]:
    """Figures in ranges between powers of two; none for a trial of windows that were not drawn from the genome.

    Each range has its own untouched bases beside its events, so that mutations are about as rare in one as in another.
    A kind with fewer than `FEWEST` events in a range is left out there, and so is the mean that lacks it.
    """
    if test_set.distance is None or not test_set.blocks:
        return []
    owners, draws = resamples(test_set.blocks, count)
    windows = owners[test_set.windows]
    simple = {kind_of(event) for event in test_set.events if test_set.tested[event.start]} & set(HEADLINE_KINDS)
    known = test_set.distance[test_set.tested & (test_set.distance > 0)]
    found: list[DistanceBin] = []
    for power in np.unique(np.frexp(known)[1] - 1).tolist():
        low, high = 2**power, 2 ** (power + 1)
        inside = test_set.tested & (test_set.distance >= low) & (test_set.distance < high)
        rows = []
        for kind, scored in collect_scored_calls(scores, test_set.events, windows, inside).items():
            events = int(scored.truth.sum())
            if events >= MIN_EVENTS:
                precision = average_precision(scored.scores, scored.truth)
                f1 = f1_score(scored, thresholds[COLUMNS[KINDS[kind]]])
                drawn = resampled_average_precision(scored, draws)
                rows.append(DistanceBin(low, high, kind, events, precision, f1, drawn))
        told = [row for row in rows if row.kind in HEADLINE_KINDS]
        if simple and {row.kind for row in told} == simple:
            found.append(_mean(told))
        found += rows
    return found


def _mean(rows: list[DistanceBin]) -> DistanceBin:
    low, high = rows[0][:2]
    auprc, f1 = (float(np.mean(column)) for column in zip(*((row.auprc, row.f1) for row in rows), strict=True))
    return DistanceBin(
        low, high, "", sum(row.events for row in rows), auprc, f1, np.mean([row.replicates for row in rows], 0)
    )
