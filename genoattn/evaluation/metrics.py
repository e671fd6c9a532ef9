"""Metrics of an evaluation and their bootstrap replicates, as metrics.json and bootstrap.json store them."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from genoattn.files import write_json

METRICS_FILE, REPLICATES_FILE = "metrics.json", "bootstrap.json"
COST = "cost/"


class MetricKey(NamedTuple):
    """The name of a metric, written `candidate/test_set/subset/metric`, for example `model/test/snv/auprc`."""

    candidate: str
    """model, control, untrained, pretrained, or a baseline such as aligner."""
    test_set: str
    """test (the held-out test set), the name of a VCF, or that name with `_held_out`."""
    subset: str
    """all, a kind of mutation such as snv, or a range such as distance_64_128."""
    metric: str
    """auprc, f1, exact, bits_per_base, …"""

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def parse(cls, text: str) -> "MetricKey":
        """The key that a text names; ValueError if it has not four parts."""
        candidate, test_set, subset, metric = text.split("/")
        return cls(candidate, test_set, subset, metric)


@dataclass(frozen=True)
class Metrics(Mapping[MetricKey, int | float]):
    """The metrics of a run by `MetricKey`, and its costs by name; NaN stands for an undefined metric."""

    entries: Mapping[MetricKey, int | float] = field(default_factory=dict)
    costs: Mapping[str, int | float] = field(default_factory=dict)
    """Costs such as `parameters` and `train_seconds`; metrics.json writes them as `cost/parameters`."""

    def __getitem__(self, key: MetricKey) -> int | float:
        return self.entries[key]

    def __iter__(self) -> Iterator[MetricKey]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __add__(self, other: "Metrics") -> "Metrics":
        return Metrics({**self.entries, **other.entries}, {**self.costs, **other.costs})

    def select(
        self,
        candidate: str | None = None,
        test_set: str | None = None,
        subset: str | None = None,
        metric: str | None = None,
    ) -> "Metrics":
        """The metrics whose keys have the given parts, without the costs."""
        wanted = (candidate, test_set, subset, metric)
        keys = [key for key in self if all(part in (None, own) for part, own in zip(wanted, key, strict=True))]
        return Metrics({key: self[key] for key in keys})

    def flat(self) -> dict[str, int | float]:
        """Metrics and costs by written key."""
        costs = {f"{COST}{name}": value for name, value in self.costs.items()}
        return {str(key): value for key, value in self.entries.items()} | costs

    def to_json(self) -> dict[str, int | float | None]:
        """Metrics and costs by written key; NaN and the infinities, which JSON does not know, become None."""
        return {key: value if math.isfinite(value) else None for key, value in self.flat().items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, int | float | None]) -> "Metrics":
        """The inverse of `to_json`."""
        values = {text: math.nan if value is None else value for text, value in plain.items()}
        costs = {text.removeprefix(COST): value for text, value in values.items() if text.startswith(COST)}
        return cls({MetricKey.parse(text): values[text] for text in values if not text.startswith(COST)}, costs)

    def write(self, folder: Path) -> None:
        """Write metrics.json into a run folder."""
        write_json(folder / METRICS_FILE, self.to_json(), indent=2)

    @classmethod
    def read(cls, folder: Path) -> "Metrics":
        """Read the metrics.json of a run folder."""
        return cls.from_json(json.loads((folder / METRICS_FILE).read_text("utf-8")))


class Subgroup(NamedTuple):
    """The primary metric over a subset of the events or queries."""

    by: str
    """The grouping: kind, distance, strand, distractor_mismatches."""
    name: str
    """The group, for example 512–1,024."""
    kind: str
    """The kind of mutation; empty if all kinds count."""
    low: float | None
    """The lower bound of a range of bases (included); None if the group is not a range."""
    high: float | None
    """The upper bound of the range (excluded)."""
    count: int
    """The number of events or queries."""
    value: float
    replicates: tuple[float, ...]
    """The metric in every resample."""


@dataclass(frozen=True)
class Replicates:
    """Metrics in bootstrap resamples; replicate r is the same resample in every run with the same test set."""

    primary_metric: MetricKey
    """The metric that ranks runs; higher is better."""
    replicates: Mapping[MetricKey, Sequence[float]]
    """Each metric in every resample; NaN where a resample does not define it."""
    subgroups: Sequence[Subgroup] = ()

    def write(self, folder: Path) -> None:
        """Write bootstrap.json into a run folder."""
        subgroups = [
            {**group._asdict(), "value": _rounded([group.value])[0], "replicates": _rounded(group.replicates)}
            for group in self.subgroups
        ]
        replicates = {str(key): _rounded(values) for key, values in self.replicates.items()}
        plain = {"primary_metric": str(self.primary_metric), "replicates": replicates, "subgroups": subgroups}
        write_json(folder / REPLICATES_FILE, plain)

    @classmethod
    def read(cls, folder: Path) -> "Replicates":
        """Read the bootstrap.json of a run folder."""
        plain = json.loads((folder / REPLICATES_FILE).read_text("utf-8"))
        subgroups = [
            Subgroup(**{**group, "value": _numbers([group["value"]])[0], "replicates": _numbers(group["replicates"])})
            for group in plain["subgroups"]
        ]
        replicates = {MetricKey.parse(text): _numbers(values) for text, values in plain["replicates"].items()}
        return cls(MetricKey.parse(plain["primary_metric"]), replicates, subgroups)


def _rounded(values: Iterable[float]) -> list[float | None]:
    return [round(float(value), 6) if math.isfinite(value) else None for value in values]


def _numbers(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)
