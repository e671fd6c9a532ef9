"""What an exam leaves for comparisons: its figures in resamples of the genome, and the same by stratum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from genoattn.report import write_json

FILE = "evidence.json"
"""Its name in a run folder."""


class Stratum(NamedTuple):
    """A figure over a part of the questions: those of one kind, or at distances of `low` to `high` bases."""

    by: str
    """What the parts differ in: distance, kind, delta, strand, length."""
    name: str
    """Of the part, such as 512–1024."""
    kind: str
    """The kind of mutation; empty: all."""
    low: float | None
    """Of a part that is a range, half-open; None: it is none."""
    high: float | None
    count: int
    """Questions: events, or queries."""
    value: float
    draws: tuple[float, ...]
    """The figure in every resample."""


@dataclass(frozen=True)
class Evidence:
    """Figures in resamples of genomic blocks; draw r is the same resample in every run with the same test set."""

    headline: str
    """The key of the figure by which runs are ranked, higher being better, such as test/auprc."""
    draws: Mapping[str, Sequence[float]]
    """By the key of a figure (the headline's at least), its value in every resample; NaN where it has none."""
    strata: Sequence[Stratum] = ()

    def write(self, folder: Path) -> None:
        """Leave evidence.json in a run folder."""
        strata = [
            {**one._asdict(), "value": _plain(one.value), "draws": [_plain(draw) for draw in one.draws]}
            for one in self.strata
        ]
        draws = {key: [_plain(draw) for draw in values] for key, values in self.draws.items()}
        write_json(folder / FILE, {"headline": self.headline, "draws": draws, "strata": strata})


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
