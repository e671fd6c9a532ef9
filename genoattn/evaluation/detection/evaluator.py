"""The exam of a detector: mutations planted in held-out blocks, and those that nature made."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import final

from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource, build_window_dataset
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.errors import UserError
from genoattn.evaluation.base import Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.detection.detectors import (
    CALL_THRESHOLDS,
    AlignerDetector,
    DetectionResult,
    KmerDetector,
    ModelDetector,
    choose_thresholds,
    evaluate_detector,
    without_supersets,
)
from genoattn.evaluation.detection.report import detection_table, distance_tables, flatten, plot_curves, replicates_of
from genoattn.evaluation.detection.testsets import TestSet, simulated_test_set, variant_test_set
from genoattn.evaluation.settings import TestSettings
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import Genome
from genoattn.genome.simulate import Rates
from genoattn.genome.vcf import read_variants, to_mutations

ALIGNED = 8192
"""Bases of the longest windows that the aligner is put to: it fills a square of them, in time and in memory."""


@final
class MutationDetectionEvaluator(Evaluator):
    """Thresholds come from planted mutations in validation blocks; then the planted test set, then each VCF."""

    def __init__(
        self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, strands: bool, known: bool
    ):
        assert isinstance(task, MutationDetection)
        self.task, self.test, self.strands, self.length = task, test, strands, data.length
        draw = partial(plant, source=source, data=data, test=test, task=task)
        self.tests = [draw("planted", source.splits.test, test.windows)]
        for path in source.vcfs:
            name = path.name.removesuffix(".gz").removesuffix(".vcf").removesuffix(".bcf")
            held_out = source.splits.test if known else ()
            whole, part = variant_test_set(
                name, source.genome, task, _mutations(path, source.genome), data.length, held_out
            )
            self.tests += [whole, part] if part else [whole]
        if not source.vcfs:
            print("no data.vcf: evaluation uses planted mutations only")
        self._calibration = partial(draw, "validation", source.splits.validation, test.threshold_windows)

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        main = candidates[0].name
        validation: TestSet | None = None
        results: list[DetectionResult] = []
        kept: dict[str, dict] = {}
        taken: dict[str, float] = {}
        for one in candidates:
            scorer = ModelDetector(one.name, one.predictor, self.strands, self.test.average_frames)
            cut_offs = one.calibration.get("thresholds")
            if cut_offs is None:
                validation = validation or self._calibration()
                cut_offs = choose_thresholds(validation, scorer)
            kept[one.key] = {"thresholds": dict(cut_offs)}
            tests = self.tests if one.key in ("model", "control") else without_supersets(self.tests)
            results += evaluate_detector(tests, scorer, cut_offs, self.test.resamples)
            taken = taken or scorer.taken
        if self.task.same_start and self.length > ALIGNED:
            print(f"the aligner is left out: data.length={self.length} is above {ALIGNED}, and it fills a square")
        elif self.task.same_start:
            aligner = AlignerDetector(self.task.max_shift)
            results += evaluate_detector(without_supersets(self.tests), aligner, CALL_THRESHOLDS, self.test.resamples)
        if not self.task.side_by_side:
            results += evaluate_detector(
                without_supersets(self.tests), KmerDetector(), CALL_THRESHOLDS, self.test.resamples
            )
        plots = {"precision_recall": partial(plot_curves, results)}
        figures = flatten(results, main) | {f"cost/{key}": value for key, value in taken.items()}
        sheets = [detection_table(results, main), *distance_tables(results, main)]
        return EvaluationResult(figures, sheets, plots, kept, replicates_of(results, main))


def plant(
    name: str,
    intervals: tuple[Interval, ...],
    count: int,
    source: DataSource,
    data: DataSettings,
    test: TestSettings,
    task: Task,
) -> TestSet:
    """A trial of windows with mutations planted at the rates of the test."""
    rates = Rates(test.rate, test.snv, test.mnv, test.insertion, test.deletion, test.longest, test.transitions)
    drawn = build_window_dataset(source, intervals, data, task, test.seed, 1, Curriculum())
    made = (drawn.example(number, CurriculumStage(rates, data.length)) for number in range(count))
    return simulated_test_set(name, [example._replace(masking=None) for example in made])


def _mutations(path: Path, genome: Genome) -> Mapping[int, Sequence[Mutation]]:
    """A VCF's mutations by record; says what was passed over."""
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    variants = read_variants(path, lengths)
    passed_over = dict(variants.skipped)
    by_record: dict[int, list[Mutation]] = {}
    for contig, found in variants.by_contig.items():
        if found:
            record = genome.index(contig)
            kept = to_mutations(found, genome.fetch(record, 0, lengths[contig]), contig, path)
            by_record[record] = kept.mutations
            passed_over["overlapping"] = passed_over.get("overlapping", 0) + kept.overlapping
    left_out = ", ".join(f"{count} {reason}" for reason, count in passed_over.items() if count)
    if not by_record:
        raise UserError(f"{path} holds no mutation to test{f' ({left_out})' if left_out else ''}")
    total = sum(map(len, by_record.values()))
    print(f"{path.name}: {total} mutations{f', passed over: {left_out}' if left_out else ''}")
    return by_record
