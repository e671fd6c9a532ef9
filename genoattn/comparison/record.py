"""The record of a comparison: typed values, written to comparison.json and read by the report."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from genoattn.comparison.ladder import Ladder
from genoattn.comparison.recommendation import Recommendation
from genoattn.comparison.settings import ComparisonSettings, Cost, Number
from genoattn.comparison.statistics import Estimate, LayerComparison
from genoattn.errors import UserError
from genoattn.files import write_text

FILE = "comparison.json"


BASELINE_LAYERS = ("none", "conv")
"""Layers of every comparison: `none` does not mix positions, `conv` mixes neighbours with fixed weights."""


Stage: TypeAlias = Literal["sweep", "final"]


@dataclass(frozen=True)
class Environment:
    """The command, the machine and the versions that made a comparison."""

    command: str
    date: str
    processor: str
    system: str
    threads: int
    """Threads of a training run."""
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """A training run: a layer at a length, with a learning rate and a seed."""

    layer: str
    length: int
    learning_rate: Number
    seed: int
    stage: Stage
    steps: int
    folder: str
    """Its folder inside the comparison's."""


@dataclass(frozen=True)
class TrainingRun(Run):
    """A finished training run."""

    value: Number | None
    """The primary metric."""
    validation_loss: Number | None
    """The lowest of all validations."""
    train_seconds: Number | None
    bases: Number | None
    """Sample bases seen in training."""
    curve: tuple[tuple[float, float], ...] = ()
    """Bases seen and validation loss, at each validation."""
    by_length: Mapping[int, Number] = field(default_factory=dict)
    """The primary metric, or the accuracy of a ladder, by tested length."""
    learned: bool | None = None
    """False: no better than the runs of `none` at any length, so that the run enters no verdict; None: not judged."""


@dataclass(frozen=True)
class DivergedRun(Run):
    """A training run whose loss became NaN or infinite: it has no score, and the reason is known."""

    at_step: int | None = None


@dataclass(frozen=True)
class LayerCost:
    """Predicted size and measured cost of a layer at one length; peaks are those of the whole process."""

    layer: str
    length: int
    parameters: int | None = None
    attention_flops: int | None = None
    attention_state_bytes: int | None = None
    seconds_per_step: Number | None = None
    training_bases_per_second: Number | None = None
    forward_bases_per_second: Number | None = None
    training_peak_bytes: Number | None = None
    forward_peak_bytes: Number | None = None
    process_bytes: Number | None = None
    """Memory of the process before the first batch."""
    model_flops: int | None = None
    """FLOPs of the whole model forward on one context."""

    @property
    def training_memory(self) -> Number | None:
        """Bytes that training adds to the process."""
        return self._above(self.training_peak_bytes)

    @property
    def forward_memory(self) -> Number | None:
        """Bytes that a forward pass adds to the process."""
        return self._above(self.forward_peak_bytes)

    def _above(self, peak: Number | None) -> Number | None:
        return None if peak is None else max(0, peak - (self.process_bytes or 0))

    @property
    def cost(self) -> Cost:
        """The cost that a recommendation weighs."""
        speed = self.forward_bases_per_second
        return Cost(1e6 / speed if speed else None, self.training_memory)


@dataclass(frozen=True)
class Crossover:
    """The length in bases from which one layer is cheaper than another, at every longer measured length too."""

    cheaper: str
    than: str
    stage: Literal["forward", "training"]
    length: int


@dataclass(frozen=True)
class SubgroupEstimate:
    """The primary metric over a part of the test set, such as the SNVs at distances of 64 to 128 bases."""

    by: str
    """The property that the parts differ in: kind, distance, delta, …"""
    name: str
    kind: str
    """Kind of mutation; empty: all kinds."""
    low: Number | None
    high: Number | None
    """Bounds of a part that is a range, half-open."""
    count: int
    """Events or queries."""
    estimate: Estimate


@dataclass(frozen=True)
class ContextResult:
    """The distance up to which a changed base changes the output, in bases."""

    theoretical: int | None
    """Receptive field of the layers; None: without a bound."""
    effective: int | None
    curve: tuple[tuple[float, ...], ...] = ()
    """Distance, effect and, if known, the bounds of its interval."""


@dataclass(frozen=True)
class LayerResult:
    """The results of one layer at one length."""

    layer: str
    learning_rate: Number | None = None
    """The best of the sweep."""
    learning_rate_edge: Literal["smallest", "largest"] | None = None
    """The end of the sweep that the best learning rate is at: a wider sweep may find a better one."""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    """By metric key, such as model/test/snv/auprc."""
    subgroups: tuple[SubgroupEstimate, ...] = ()
    context: ContextResult | None = None
    by_length: Mapping[int, Estimate] = field(default_factory=dict)
    """The primary metric, or the accuracy of a ladder, by tested length, of all runs; empty if there is one length."""
    not_learned: tuple[int, ...] = ()
    """The seeds whose runs did not learn more than `none`; they enter no verdict."""
    learning_rate_learned: bool = True
    """False: the layer learned at no rate of the sweep, and the middle one was taken."""


@dataclass(frozen=True)
class LengthResult:
    """The results of all layers at one training length."""

    length: int
    layers: tuple[LayerResult, ...]
    """Best layer first."""
    statistics: LayerComparison | None = None
    """None: no layer has a score."""
    pareto_front: tuple[str, ...] = ()
    """Layers that no other beats in quality and time to read, cheapest first."""
    recommendation: Recommendation | None = None
    baselines: Mapping[str, Estimate] = field(default_factory=dict)
    """The primary metric of candidates beside the layers, such as kmer_lookup or untrained."""

    @property
    def estimates(self) -> Mapping[str, Estimate]:
        """The primary metric by layer, best first."""
        return self.statistics.estimates if self.statistics else {}

    def ranks(self, layer: str) -> list[int]:
        """Numbers of the groups without a significant difference that hold a layer; 1 is the best group."""
        return [
            number
            for number, group in enumerate(self.statistics.groups if self.statistics else (), 1)
            if layer in group
        ]


@dataclass(frozen=True)
class Comparison:
    """A comparison of attention layers: its settings, its runs and its results."""

    settings: ComparisonSettings
    environment: Environment
    primary_metric: str = ""
    """The metric key that ranks the layers, such as model/test/all/auprc; empty: no run left a score."""
    results: tuple[LengthResult, ...] = ()
    costs: tuple[LayerCost, ...] = ()
    crossovers: tuple[Crossover, ...] = ()
    runs: tuple[TrainingRun, ...] = ()
    failed: tuple[str, ...] = ()
    """Folders of runs that failed."""
    diverged: tuple[DivergedRun, ...] = ()
    ladder: Ladder | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers and variants, baseline layers last."""
        named = dict.fromkeys([*self.settings.layers, *self.settings.variants])
        return (*(name for name in named if name not in BASELINE_LAYERS), *BASELINE_LAYERS)

    @property
    def layer_results(self) -> list[tuple[LengthResult, LayerResult]]:
        """The results of every layer at each length, the best layer of a length first."""
        return [(result, layer) for result in self.results for layer in result.layers]

    @property
    def learning_rates(self) -> Mapping[tuple[str, int], Number | None]:
        """The best learning rate by layer and length."""
        return {(layer.layer, result.length): layer.learning_rate for result, layer in self.layer_results}

    @property
    def metric(self) -> str:
        """The name of the primary metric for headings."""
        name = self.primary_metric.rpartition("/")[2]
        name = {"auprc": "AUPRC", "exact": "exact match", "restored": "accuracy of restoring", "": "quality"}.get(
            name, name
        )
        return f"{name}, mean of the ladder" if self.ladder else name

    def cost(self, layer: str, length: int) -> LayerCost:
        """The cost of a layer at a length; without values if it is not known."""
        known = (cost for cost in self.costs if (cost.layer, cost.length) == (layer, length))
        return next(known, LayerCost(layer, length))

    def runs_of(self, stage: Stage, length: int, layer: str) -> list[TrainingRun]:
        """The finished runs of a layer at a length."""
        return [run for run in self.runs if (run.stage, run.length, run.layer) == (stage, length, layer)]

    def diverged_of(self, stage: Stage, length: int, layer: str) -> list[DivergedRun]:
        """The diverged runs of a layer at a length."""
        return [run for run in self.diverged if (run.stage, run.length, run.layer) == (stage, length, layer)]

    def seeds_of(self, length: int, layer: str) -> list[int]:
        """The seeds of a layer's final runs that have a score."""
        return sorted({run.seed for run in self.runs_of("final", length, layer) if run.value is not None})

    def write(self, folder: Path) -> None:
        """Write comparison.json into a folder."""
        write_text(folder / FILE, _JSON.dump_json(self, indent=1).decode() + "\n")

    @staticmethod
    def read(folder: Path) -> "Comparison":
        """The comparison of a folder, from comparison.json or comparison.json.gz.

        Raises:
            UserError: There is no such file, or another version of genoattn wrote it.
        """
        file = next((file for name in (FILE, f"{FILE}.gz") if (file := folder / name).is_file()), None)
        if file is None:
            raise UserError(f"{folder} holds no {FILE}; expected the folder of a comparison")
        content = file.read_bytes()
        try:
            return _JSON.validate_json(gzip.decompress(content) if file.suffix == ".gz" else content)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise UserError(
                f"{file}: {place or 'the file'} cannot be read; another version of genoattn wrote it"
            ) from None


_JSON = TypeAdapter(Comparison)
