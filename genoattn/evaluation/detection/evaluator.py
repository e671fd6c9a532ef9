"""The evaluator of a detector: simulated mutations in held-out blocks, then the mutations of each VCF."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from genoattn.data.example import Example
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.errors import UserError, shorten
from genoattn.evaluation.base import TEST, Candidate, EvaluationResult, Evaluator, fixed_windows
from genoattn.evaluation.detection.detectors import CALL_THRESHOLDS, Detector, ModelDetector, aligner, kmer_lookup
from genoattn.evaluation.detection.report import detection_table, distance_tables, plot_curves
from genoattn.evaluation.detection.restored import OUTPUT, restore, restored_table
from genoattn.evaluation.detection.results import (
    DetectionResult,
    choose_thresholds,
    evaluate_detector,
    metrics_of,
    replicates_of,
)
from genoattn.evaluation.detection.testsets import (
    HELD_OUT,
    ORACLE,
    TestSet,
    simulated_test_set,
    variant_test_set,
    without_supersets,
)
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.input_files import describe_counts
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import Genome
from genoattn.genome.simulate import Rates
from genoattn.genome.vcf import read_variants, to_mutations, vcf_stem

RESERVED = (TEST, "simulated", "train", "validation")
"""Names of test sets that no VCF gets: those of simulated mutations and of the splits; nor `test_128`, of a length."""

ENDINGS = (HELD_OUT, ORACLE, f"{ORACLE}{HELD_OUT}")
"""The ends of the names of test sets beside that of a VCF."""

NEAR = 2
"""Bases by which a window may be displaced and counts as placed where it belongs."""

LONGEST_ALIGNED = 8192
"""Bases of the longest windows for the aligner: its time and memory grow with the square of the length."""


@final
class MutationDetectionEvaluator(Evaluator):
    """Thresholds come from simulated mutations in validation blocks; the test sets follow."""

    primary = MetricKey("model", TEST, "all", "auprc")

    def __init__(self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, both_strands: bool):
        assert isinstance(task, MutationDetection)
        self.task, self.test, self.both_strands, self.length = task, test, both_strands, data.length
        simulate = partial(simulated_windows, source=source, data=data, test=test, task=task)
        examples = simulate(TEST, test.windows)
        self.test_sets = [unmasked_test_set(examples, TEST)]
        self.masked = examples if OUTPUT in task.outputs else []
        held_out = source.splits.test if source.trained_on else ()
        for name, path in name_test_sets(source.vcfs).items():
            mutations = _mutations(name, path, source.genome, data.vcf_filter)
            for key, oracle in placements(name, test.placement).items():
                sets = variant_test_set(key, source.genome, task, mutations, data.length, held_out, oracle)
                if not oracle:
                    near = np.mean([bases <= NEAR for bases in sets[0].displaced])
                    print(f"{key}: anchors place {near:.2%} of the windows within {NEAR} bases of the VCF's place")
                self.test_sets += sets
        self._validation_windows = partial(simulate, "validation", test.threshold_windows)

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        results: list[DetectionResult] = []
        calibration: dict[str, Mapping[str, Any]] = {}
        validation_set: TestSet | None = None
        quicker_sets = without_supersets(self.test_sets)
        detectors = [ModelDetector(candidate, self.both_strands, self.test.average_frames) for candidate in candidates]
        for candidate, detector in zip(candidates, detectors, strict=True):
            thresholds = candidate.calibration.get("thresholds")
            if thresholds is None:
                validation_set = validation_set or unmasked_test_set(self._validation_windows(), "validation")
                thresholds = choose_thresholds(validation_set, validation_set.scores(detector))
            calibration[candidate.key] = {"thresholds": dict(thresholds)}
            test_sets = self.test_sets if candidate.key in ("model", "control") else quicker_sets
            results += evaluate_detector(test_sets, detector, thresholds, self.test.resamples)
        for baseline in self._baselines():
            results += evaluate_detector(quicker_sets, baseline, CALL_THRESHOLDS, self.test.resamples)
        restored = [
            restore(candidate, self.masked, self.both_strands, self.test.resamples)
            for candidate in candidates
            if self.masked and candidate.key != "untrained"
        ]
        told = Metrics({row.key: row.accuracy for row in restored}, detectors[0].cost._asdict())
        replicates = replicates_of(results, self.primary)
        more = {row.key: row.replicates.tolist() for row in restored}
        return EvaluationResult(
            metrics=metrics_of(results) + told,
            tables=[
                detection_table(results),
                *distance_tables(results, self.task.context_format.interleaved),
                *([restored_table(restored)] if restored else []),
            ],
            plots={"precision_recall": partial(plot_curves, results)},
            calibration=calibration,
            primary=self.primary,
            replicates=replace(replicates, replicates={**replicates.replicates, **more}),
        )

    def _baselines(self) -> list[Detector]:
        baselines: list[Detector] = []
        if self.task.same_start and self.length > LONGEST_ALIGNED:
            print(f"the aligner is left out: data.length={self.length} is above {LONGEST_ALIGNED} bases")
        elif self.task.same_start:
            baselines.append(aligner(self.task.max_shift))
        return baselines if self.task.side_by_side else [*baselines, kmer_lookup()]


def simulated_windows(
    split: str, count: int, source: DataSource, data: DataSettings, test: TestSettings, task: Task
) -> list[Example]:
    """Windows from a split, with mutations simulated at the rates of the test settings, masked as in training."""
    rates = Rates(test.rate, test.snv, test.mnv, test.insertion, test.deletion, test.longest, test.transitions)
    return fixed_windows(split, count, source, data, test, task, rates)


def unmasked_test_set(examples: Sequence[Example], key: str) -> TestSet:
    """The test set of simulated windows, in which a detector reads every base."""
    return simulated_test_set([example._replace(masking=None) for example in examples], key)


def placements(name: str, placement: str) -> dict[str, bool]:
    """The test sets of a VCF by `test.placement`, and whether the VCF places their windows."""
    if placement == "both":
        return {name: False, f"{name}{ORACLE}": True}
    return {name: placement == "vcf"}


def name_test_sets(vcfs: Sequence[Path]) -> dict[str, Path]:
    """Each VCF by the name of its test set: its base name, after that of its folder where the base name is taken.

    Raises:
        UserError: Two test sets would have one name, and the metrics of one would replace those of the other.
    """
    bases = [vcf_stem(path) for path in vcfs]
    named: dict[str, Path] = {}
    used: dict[str, Path] = {}
    for path, base in zip(vcfs, bases, strict=True):
        parts_of = {base.removesuffix(ending) for ending in ENDINGS} - {base}
        is_taken = (
            base in RESERVED
            or re.fullmatch(rf"{TEST}_\d+", base) is not None
            or bases.count(base) > 1
            or bool(parts_of & {*bases})
        )
        name = f"{path.absolute().parent.name}-{base}" if is_taken else base
        for key in (name, *(f"{name}{ending}" for ending in ENDINGS)):
            if key in used:
                raise UserError(
                    f"data.vcf: {shorten(used[key])} and {shorten(path)} would both be reported as {shorten(key)};"
                    " rename one of the files, or link to it by another name"
                )
            used[key] = path
        named[name] = path
    return named


def _mutations(name: str, path: Path, genome: Genome, vcf_filter: str | None) -> Mapping[int, Sequence[Mutation]]:
    """The mutations of a VCF by record; prints how many rows were left out, and why."""
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    variants = read_variants(path, lengths, vcf_filter)
    skipped = dict(variants.skipped)
    by_record: dict[int, list[Mutation]] = {}
    for contig, rows in variants.by_contig.items():
        if rows:
            record = genome.index(contig)
            usable = to_mutations(rows, genome.fetch(record, 0, lengths[contig]), contig, path)
            by_record[record] = usable.mutations
            skipped["overlapping"] = skipped.get("overlapping", 0) + usable.overlapping
    left_out = describe_counts(skipped)
    if not by_record:
        raise UserError(f"{path} holds no mutation to test{f' ({left_out})' if left_out else ''}")
    total = sum(map(len, by_record.values()))
    ending = f"; left out: {left_out}" if left_out else ""
    print(f"{shorten(name)}: {variants.total:,} records; {total:,} mutations{ending}")
    return by_record
