"""Detection metrics by distance: how far back in the context a base has its counterpart in the reference."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genoattn.data.targets import COLUMNS
from genoattn.evaluation.bootstrap import resampled_average_precision
from genoattn.evaluation.detection.metrics import average_precision, f1_score
from genoattn.evaluation.detection.scored_calls import HEADLINE_KINDS, KINDS, collect_scored_calls, kind_of
from genoattn.evaluation.detection.testsets import TestSet

MIN_EVENTS = 10
"""A range with fewer events of a kind has no metrics of that kind."""


class DistanceBin(NamedTuple):
    """Metrics of one kind over the events and untouched bases with a counterpart [low, high) bases back."""

    low: int
    high: int
    kind: str
    """Empty: the mean over SNVs, insertions and deletions, as far as the test set holds them."""
    events: int
    auprc: float
    f1: float
    replicates: Float[np.ndarray, "replicates"]
    """AUPRC in every resample; the resamples are the same in every range."""

    @property
    def name(self) -> str:
        """The range for a reader."""
        return f"{self.low:,}–{self.high:,}"

    @property
    def subset(self) -> str:
        """The third part of its metrics' keys."""
        kind = f"_{self.kind.replace(' ', '_')}" if self.kind else ""
        return f"distance_{self.low}_{self.high}{kind}"


def metrics_by_distance(
    test_set: TestSet, scores: Float[np.ndarray, "bases columns"], thresholds: Mapping[str, float], count: int
) -> list[DistanceBin]:
    """Metrics at distance 0 and in ranges between powers of two, in `count` resamples.

    None for real strains or unknown distances.

    Each range has its own untouched bases beside its events, so that mutations are about equally rare in every range.
    A kind with fewer than `MIN_EVENTS` events in a range is left out there, and the mean that needs it too.
    """
    if test_set.distance is None or not test_set.simulated:
        return []
    resamples = test_set.resamples(count)
    kinds = {kind_of(event) for event in test_set.events if test_set.tested[event.start]} & set(HEADLINE_KINDS)
    distances = test_set.distance[test_set.tested & (test_set.distance >= 0)]
    bins: list[DistanceBin] = []
    for power in np.unique(np.frexp(distances)[1] - 1).tolist():
        low, high = (2**power, 2 ** (power + 1)) if power >= 0 else (0, 1)
        inside = test_set.tested & (test_set.distance >= low) & (test_set.distance < high)
        rows = []
        for kind, scored in collect_scored_calls(scores, test_set.events, resamples.units, inside).items():
            events = int(scored.truth.sum())
            if events >= MIN_EVENTS:
                auprc = average_precision(scored.scores, scored.truth)
                f1 = f1_score(scored, thresholds[COLUMNS[KINDS[kind]]])
                replicates = resampled_average_precision(scored, resamples.weights)
                rows.append(DistanceBin(low, high, kind, events, auprc, f1, replicates))
        headline = [row for row in rows if row.kind in HEADLINE_KINDS]
        if kinds and {row.kind for row in headline} == kinds:
            bins.append(_mean(headline))
        bins += rows
    return bins


def _mean(rows: list[DistanceBin]) -> DistanceBin:
    auprc, f1 = (float(np.mean(column)) for column in zip(*((row.auprc, row.f1) for row in rows), strict=True))
    replicates = np.mean([row.replicates for row in rows], 0)
    return DistanceBin(rows[0].low, rows[0].high, "", sum(row.events for row in rows), auprc, f1, replicates)
