"""How well mutations are found in parts of a trial: by how far back in the context a base has its counterpart."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genoattn.data.targets import COLUMNS
from genoattn.evaluation.bootstrap import resampled_average_precision, resamples
from genoattn.evaluation.detection.candidates import KINDS, SIMPLE, gather, kind_of
from genoattn.evaluation.detection.metrics import average_precision, f1_score
from genoattn.evaluation.detection.testsets import Trial

FEWEST = 10
"""Events of a kind without which a part of a trial says nothing of that kind."""


class InRange(NamedTuple):
    """One kind among the events and the untouched bases whose counterpart lies [low, high) back in the context."""

    low: int
    high: int
    kind: str
    """Empty: the mean over SNVs, insertions and deletions, those that the trial holds."""
    events: int
    auprc: float
    f1: float
    draws: Float[np.ndarray, "draws"]
    """AUPRC in resamples of the genome; as many in every range, and the same ones."""


def by_distance(
    trial: Trial, scores: Float[np.ndarray, "bases columns"], cut_offs: Mapping[str, float], count: int
) -> list[InRange]:
    """Figures in ranges between powers of two; none for a trial of windows that were not drawn from the genome.

    Each range has its own untouched bases beside its events, so that mutations are about as rare in one as in another.
    A kind with fewer than `FEWEST` events in a range is left out there, and so is the mean that lacks it.
    """
    if trial.distance is None or not trial.blocks:
        return []
    owners, draws = resamples(trial.blocks, count)
    windows = owners[trial.windows]
    simple = {kind_of(event) for event in trial.events if trial.tested[event.start]} & set(SIMPLE)
    known = trial.distance[trial.tested & (trial.distance > 0)]
    found: list[InRange] = []
    for power in np.unique(np.frexp(known)[1] - 1).tolist():
        low, high = 2**power, 2 ** (power + 1)
        inside = trial.tested & (trial.distance >= low) & (trial.distance < high)
        rows = []
        for kind, scored in gather(scores, trial.events, windows, inside).items():
            events = int(scored.truth.sum())
            if events >= FEWEST:
                precision = average_precision(scored.scores, scored.truth)
                f1 = f1_score(scored, cut_offs[COLUMNS[KINDS[kind]]])
                drawn = resampled_average_precision(scored, draws)
                rows.append(InRange(low, high, kind, events, precision, f1, drawn))
        told = [row for row in rows if row.kind in SIMPLE]
        if simple and {row.kind for row in told} == simple:
            found.append(_mean(told))
        found += rows
    return found


def _mean(rows: list[InRange]) -> InRange:
    low, high = rows[0][:2]
    auprc, f1 = (float(np.mean(column)) for column in zip(*((row.auprc, row.f1) for row in rows), strict=True))
    return InRange(low, high, "", sum(row.events for row in rows), auprc, f1, np.mean([row.draws for row in rows], 0))
