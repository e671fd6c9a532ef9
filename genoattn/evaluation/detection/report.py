"""Tables and plots of detection results: the first detector in full, the others beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from genoattn.evaluation.bootstrap import interval
from genoattn.evaluation.detection.by_distance import DistanceBin
from genoattn.evaluation.detection.metrics import DetectionMetrics
from genoattn.evaluation.detection.results import DetectionResult
from genoattn.evaluation.detection.scored_calls import HEADLINE_KINDS
from genoattn.evaluation.detection.testsets import PLACED_BY_VCF
from genoattn.evaluation.report import Table, with_interval
from genoattn.files import save_figure

BASE = "AUPRC\nper base"
COLUMNS = ("test set", "kind", "events", "per kb", "AUPRC [95 %]", "AUROC", "precision", "recall", "F1 [95 %]", BASE)

MARKERS = {"aligner": "k*", "kmer_lookup": "kP"}


def detection_table(results: Sequence[DetectionResult]) -> Table:
    """All metrics of the first detector; of the others AUPRC, or F1 if they only call."""
    own, others = _own_and_others(results)
    others_at = {(result.detector, result.test_set): result for result in others}
    columns = {result.detector: f"{result.name}\n{_metric_name(result)}" for result in others}
    rows, numbers = [], []
    for result in own:
        title = f"{result.title} *" if result.oracle else result.title
        for kind, kind_result in result.kinds.items():
            beside = [_beside(others_at.get((detector, result.test_set)), kind) for detector in columns]
            rows.append([title, kind, *_cells(kind_result.metrics), *beside])
    for result in results:
        numbers += [[result.name, result.title, kind, *row.metrics] for kind, row in result.kinds.items()]
    return Table(
        f"Mutations detected by attention={own[0].name}",
        [*COLUMNS, *columns.values()],
        rows,
        texts=2,
        numbers=(["detector", "test set", "kind", *DetectionMetrics._fields], numbers),
        notes=[f"* Windows {PLACED_BY_VCF}."] if any(result.oracle for result in own) else [],
        optional=["AUROC", BASE, "per kb", *(columns[key] for key in columns if key == "untrained")],
        secondary=["precision", "recall"],
    )


def distance_tables(results: Sequence[DetectionResult], interleaved: bool = False) -> list[Table]:
    """AUPRC on the simulated test set by the distance to the counterpart; no table for a single range.

    In an interleaved context the distance is called drift: of two bases at the same place it is 0.
    """
    own, others = _own_and_others([result for result in results if result.simulated and result.by_distance])
    rows = [row for result in own for row in result.by_distance]
    if len({row.low for row in rows}) < 2:
        return []
    others_at = {(result.detector, row.subset): result.metric(row) for result in others for row in result.by_distance}
    distance = "drift" if interleaved else "distance"
    columns = [distance, "kind", "events", "AUPRC [95 %]"]
    columns += [f"{result.name}\n{_metric_name(result)}" for result in others]
    cells = []
    for row in rows:
        values = [others_at.get((result.detector, row.subset)) for result in others]
        beside = ["–" if value is None else f"{value:.3f}" for value in values]
        auprc = with_interval(row.auprc, *interval(row.replicates))
        cells.append([row.name, row.kind or "mean", f"{row.events:,}", auprc, *beside])
    numbers = [[result.name, *row[:-1]] for result in [*own, *others] for row in result.by_distance]
    title = f"AUPRC by {distance} to the counterpart in the context (bases), attention={own[0].name}"
    return [Table(title, columns, cells, texts=2, numbers=(["detector", *DistanceBin._fields[:-1]], numbers))]


def plot_curves(results: Sequence[DetectionResult], file: Path) -> None:
    """Precision against recall on the simulated test set: a panel per kind, a line per model, a point per caller."""
    figure = Figure(figsize=(4.2 * len(HEADLINE_KINDS), 4.3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(HEADLINE_KINDS), sharey=True))
    for panel, kind in zip(panels, HEADLINE_KINDS, strict=True):
        for result in results:
            if not result.simulated or kind not in result.kinds:
                continue
            metrics, _, curve = result.kinds[kind]
            label = f"{result.name} ({'F1 ' if result.calls_only else ''}{result.metric(metrics):.3f})"
            if result.calls_only:
                panel.plot([metrics.recall], [metrics.precision], MARKERS[result.detector], ms=11, label=label)
            elif curve is not None:
                panel.step(curve.recall, curve.precision, label=label)
        panel.set(title=kind, xlabel="recall", xlim=(0, 1.02), ylim=(0, 1.02))
        if panel.lines:
            panel.legend(loc="lower left", fontsize=8)
    panels[0].set_ylabel("precision")
    figure.suptitle("Simulated mutations in test blocks of the genome (no real strain)", fontsize=10)
    save_figure(figure, file)


def _own_and_others(results: Sequence[DetectionResult]) -> tuple[list[DetectionResult], list[DetectionResult]]:
    """The results of the first detector, and those of the others."""
    own = [result for result in results if result.detector == results[0].detector]
    return own, [result for result in results if result.detector != results[0].detector]


def _metric_name(result: DetectionResult) -> str:
    return "F1" if result.calls_only else "AUPRC"


def _beside(result: DetectionResult | None, kind: str) -> str:
    if result is None or kind not in result.kinds:
        return "–"
    return f"{result.metric(result.kinds[kind].metrics):.3f}"


def _cells(metrics: DetectionMetrics) -> tuple[str, ...]:
    return (
        f"{metrics.events:,}",
        f"{1000 * metrics.rate:.3f}",
        with_interval(metrics.auprc, metrics.auprc_low, metrics.auprc_high),
        f"{metrics.auroc:.4f}",
        *(f"{value:.3f}" for value in (metrics.precision, metrics.recall)),
        with_interval(metrics.f1, metrics.f1_low, metrics.f1_high),
        "–" if np.isnan(metrics.base_auprc) else f"{metrics.base_auprc:.3f}",
    )
