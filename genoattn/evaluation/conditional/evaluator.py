"""The evaluator of conditional language models: bits per base of strains by length of the context, and surprise."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.conditional import Conditional
from genoattn.errors import UserError
from genoattn.evaluation.base import TEST, Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.baselines.context_mixing import KmerCounts
from genoattn.evaluation.bootstrap import Resamples, interval, resample, resampled_average_precision, resampled_ratio
from genoattn.evaluation.conditional.readers import KINDS, Counts, Mixing, ModelReader, Reader
from genoattn.evaluation.conditional.windows import (
    StrainWindow,
    cut,
    repeated_bases,
    scored_calls,
    simulated_strain,
)
from genoattn.evaluation.metrics import MetricKey, Metrics, Replicates
from genoattn.evaluation.report import Table, panel_in, with_interval
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.simulate import Rates
from genoattn.genome.strains import Strain, open_strain

WARM = 16_384
"""Bases of the validation windows at each length that the baselines learn from."""

COLUMNS = ("context", "model", "bits per base [95 %]", "accuracy", "in repeats", "elsewhere", "SNVs")
SURPRISE = ("AUPRC of surprise, SNVs [95 %]", "indels", "AUPRC, indels [95 %]")


class WindowSet(NamedTuple):
    """The windows of a strain at one length, and the bootstrap resamples of their genomic blocks."""

    strain: str
    length: int
    windows: list[StrainWindow]
    resamples: Resamples

    def subset(self, name: str, usual: int) -> str:
        """The third part of the keys of metrics: the length is added unless it is the usual one."""
        return name if self.length == usual else f"{name}_context_{self.length}"


@final
class ConditionalEvaluator(Evaluator):
    """Windows of held-out blocks: of a simulated strain, of `data.strains`, and of the strains that `data.vcf` spells.

    A window shows as many bases of the relative as of the strain; `test.context` lists the lengths. What a base costs
    a reader is its surprise, -log2 of its probability, which is also its score as a mutation: no label was learned. If
    both strands are read, the surprise of both is added up for that.
    """

    primary = MetricKey("model", TEST, "all", "saved_bits")

    def __init__(self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool):
        assert isinstance(task, Conditional)
        self.test, self.length, self.both = test, data.length, both_strands
        rates = Rates(test.rate, test.snv, test.mnv, test.insertion, test.deletion, test.longest, test.transitions)
        genome, splits = source.genome, source.splits
        repeats, bases = repeated_bases(genome), test.windows * data.length
        lengths = sorted({data.length, *(test.context or ())})
        if lengths[0] <= task.lead:
            raise UserError(f"test.context must be above the {task.lead} bases of task.lead, got {lengths[0]}")
        strains = [simulated_strain(TEST, genome, splits.test, rates, test.seed), *source.strains]
        strains += [open_strain(path, genome, data.cache, data.vcf_filter) for path in source.vcfs]
        _check_names(strains)
        held_out = partial(cut, task=task, repeats=repeats, seed=test.seed)
        warm = simulated_strain("validation", genome, splits.validation, rates, test.seed)
        self.validation = {
            length: held_out(warm, intervals=splits.validation, length=length, bases=WARM) for length in lengths
        }
        self.sets = []
        for strain in strains:
            for length in lengths:
                windows = held_out(strain, intervals=splits.test, length=length, bases=bases)
                if windows and self.validation[length]:
                    blocks = resample([window.example.block for window in windows], test.resamples)
                    self.sets.append(WindowSet(strain.name, length, windows, blocks))
                elif length == data.length:
                    raise UserError(
                        f"{strain.name}: no held-out block holds a window of {length} bases of the strain; choose a"
                        " shorter data.length"
                    )
                else:
                    print(f"{strain.name}: no held-out block holds a window of {length} bases, as test.context has it")
        self._training = [genome.fetch(*part) for part in splits.train or splits.validation]

    @cached_property
    def _counts(self) -> tuple[Counts, KmerCounts]:
        """The Markov model, and the counts of the mixtures: both of the training blocks."""
        return Counts(self._training, self.validation[self.length]), KmerCounts(self._training)

    def baselines(self, length: int) -> list[Reader]:
        """The baselines for windows of one of the lengths, as they are before the first window of a test set."""
        counts, kmers = self._counts
        return [counts, *(Mixing(kind, kmers, self.validation[length]) for kind in KINDS)]

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        models = [ModelReader(candidate.key, candidate.name, candidate.predictor) for candidate in candidates]
        entries: dict[MetricKey, int | float] = {}
        replicates: dict[MetricKey, Sequence[float]] = {}
        rows: dict[str, list[list[str]]] = {}
        for tested in self.sets:
            # An untrained model says as little at every length.
            readers = [model for model in models if model.key != "untrained" or tested.length == self.length]
            for reader in (*readers, *self.baselines(tested.length)):
                result = measure(reader, tested, self.both)
                key = partial(MetricKey, reader.key, tested.strain)
                for (subset, metric), value in result.metrics.items():
                    entries[key(tested.subset(subset, self.length), metric)] = value
                if tested.length == self.length and tested.strain == TEST:
                    replicates[self.primary._replace(candidate=reader.key)] = result.replicates.tolist()
                rows.setdefault(tested.strain, []).append(_row(tested.length, reader.name, result.metrics))
        entries[MetricKey("counts", TEST, "all", "order")] = self._counts[0].choice.order
        title = "A strain given its relative: {}, bits per base by bases of context"
        return EvaluationResult(
            metrics=Metrics(entries),
            tables=[Table(title.format(name), [*COLUMNS, *SURPRISE], lines, 2) for name, lines in rows.items()],
            plots={"bits_by_context": partial(_plot, entries, self.length)},
            primary=self.primary,
            replicates=Replicates(self.primary, replicates),
        )


def _check_names(strains: Sequence[Strain]) -> None:
    """Raises UserError if two strains would be reported under one name."""
    names = [strain.name for strain in strains]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"data.vcf and data.strains: two strains would both be reported as {twice[0]}; rename one of the files"
        )


class Measured(NamedTuple):
    """Metrics of a reader by subset and name, and the bits that it saves per base in each resample."""

    metrics: dict[tuple[str, str], int | float]
    replicates: Float[np.ndarray, "replicates"]


def measure(reader: Reader, tested: WindowSet, both: bool) -> Measured:
    """The metrics of a reader on the windows of a set; `both` adds up the surprise of both strands."""
    bits, right = _surprise(reader, tested.windows)
    score = bits
    if both:
        other, _ = _surprise(reader, tested.windows, turned=True)
        score = [own + turned[::-1] for own, turned in zip(bits, other, strict=True)]
    repeated = [window.repeated for window in tested.windows]
    sums = np.array([(np.nansum(one), np.isfinite(one).sum()) for one in bits]).T
    replicates = resampled_ratio(sums[0], sums[1], tested.resamples)
    low, high = interval(replicates)
    every = np.concatenate(bits)
    metrics: dict[tuple[str, str], int | float] = {
        ("all", "bases"): int(sums[1].sum()),
        ("all", "bits_per_base"): float(np.nanmean(every)),
        ("all", "bits_per_base_low"): low,
        ("all", "bits_per_base_high"): high,
        ("all", "saved_bits"): 2 - float(np.nanmean(every)),
        ("all", "accuracy_base"): float(np.nanmean(np.concatenate(right))),
    }
    for name, chosen in (("repeats", np.concatenate(repeated)), ("elsewhere", ~np.concatenate(repeated))):
        part = every[chosen & np.isfinite(every)]
        metrics[name, "bits_per_base"] = float(part.mean()) if len(part) else math.nan
    for kind in ("snv", "indel"):
        calls = scored_calls(tested.windows, score, tested.resamples.units.tolist(), kind)
        metrics[kind, "events"] = int(calls.truth.sum())
        if calls.truth.any():
            drawn = resampled_average_precision(calls, tested.resamples.weights)
            once = resampled_average_precision(calls, np.ones_like(tested.resamples.weights[:1]))
            metrics[kind, "auprc"] = float(once[0])
            metrics[kind, "auprc_low"], metrics[kind, "auprc_high"] = interval(drawn)
    return Measured(metrics, 2 - replicates)


def _surprise(
    reader: Reader, windows: Sequence[StrainWindow], turned: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Bits of each base of each window, and 1 where the likeliest base is right; NaN where none is predicted."""
    bits, right = [], []
    for window, table in zip(windows, reader.read(windows, turned), strict=True):
        target = (window.turned if turned else window.example).targets["base"].astype(np.int64)
        known, letters = target >= 0, np.maximum(target, 0)
        own = table[np.arange(len(target)), letters].astype(np.float64)
        bits.append(np.where(known, -np.log2(np.maximum(own, 1e-30)), np.nan))
        right.append(np.where(known, table.argmax(1) == letters, np.nan))
    return bits, right


def _row(length: int, name: str, metrics: dict[tuple[str, str], int | float]) -> list[str]:
    def cell(subset: str, metric: str, digits: int) -> str:
        value = metrics.get((subset, metric), math.nan)
        return "–" if math.isnan(value) else f"{value:.{digits}f}"

    def bounded(subset: str, metric: str, digits: int) -> str:
        values = [metrics.get((subset, f"{metric}{end}"), math.nan) for end in ("", "_low", "_high")]
        return "–" if math.isnan(values[0]) else with_interval(*values, digits=digits)

    numbers = [bounded("all", "bits_per_base", 4), cell("all", "accuracy_base", 4)]
    numbers += [cell("repeats", "bits_per_base", 3), cell("elsewhere", "bits_per_base", 3)]
    for kind in ("snv", "indel"):
        numbers += [f"{metrics[kind, 'events']:,}", bounded(kind, "auprc", 3)]
    return [f"{length:,}", name, *numbers]


def _plot(entries: dict[MetricKey, int | float], usual: int, file: Path) -> None:
    """Bits per base against the bases of context, for every reader and strain."""
    with panel_in(file, 7.0, 4.5) as panel:
        lines = list(dict.fromkeys((key.candidate, key.test_set) for key in entries if key.metric == "bits_per_base"))
        for candidate, strain in lines:
            points = sorted(_points(entries, candidate, strain, usual))
            panel.plot(*zip(*points, strict=True), "o-", label=f"{candidate}, {strain}")
        panel.set_xscale("log", base=2)
        panel.set(xlabel="context (bases of the relative)", ylabel="bits per base of the strain")


def _points(
    entries: dict[MetricKey, int | float], candidate: str, strain: str, usual: int
) -> Iterator[tuple[int, float]]:
    for key, value in entries.items():
        name, _, length = key.subset.partition("_context_")
        if (key.candidate, key.test_set, name, key.metric) == (candidate, strain, "all", "bits_per_base"):
            yield int(length or usual), value
