"""What a detector found in its trials, as a table, as flat keys and as curves."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from genoattn.evaluation.base import Replicates, Subgroup
from genoattn.evaluation.detection.by_distance import DistanceBin
from genoattn.evaluation.detection.candidates import HEADLINE_KINDS
from genoattn.evaluation.detection.detectors import CALLERS, DetectionResult, mean_quality
from genoattn.evaluation.detection.metrics import DetectionMetrics
from genoattn.evaluation.report import Table
from genoattn.files import save_figure

COLUMNS = ("trial", "kind", "events", "per kb", "AUPRC [95 %]", "AUROC", "precision", "recall", "F1 [95 %]", "per base")


def detection_table(results: Sequence[DetectionResult], main: str) -> Table:
    """The main detector's figures in full, the others' beside: AUPRC where they score, F1 where they only call."""
    numbers = [[one.detector, one.test_set, kind, *found] for one in results for kind, found in one.kinds.items()]
    plain = (["detector", "trial", "kind", *DetectionMetrics._fields], numbers)
    title = f"Mutations found by attention={main}"
    return Table(title, _columns(results, main), _rows(results, main), texts=2, numbers=plain)


def distance_tables(results: Sequence[DetectionResult], main: str) -> list[Table]:
    """AUPRC on the planted test set by how far back the counterpart lies; no table where that is one range alone."""
    rivals = [result for result in _planted(results) if result.detector != main and result.by_distance]
    beside = {(result.detector, *row[:3]): row for result in rivals for row in result.by_distance}
    rows = [row for result in _planted(results) if result.detector == main for row in result.by_distance]
    if len({row.low for row in rows}) < 2:
        return []
    columns = ["distance", "kind", "events", "AUPRC [95 %]"]
    columns += [f"{result.detector}\n{_figure_name(result.detector)}" for result in rivals]
    cells = [
        [_span(row), row.kind or "mean", f"{row.events:,}", _interval(row)]
        + [_cell(beside.get((result.detector, *row[:3])), result.detector) for result in rivals]
        for row in rows
    ]
    numbers = [[result.detector, *row[:-1]] for result in _planted(results) for row in result.by_distance]
    plain = (["detector", *DistanceBin._fields[:-1]], numbers)
    title = f"By distance to the counterpart in the context (bases), attention={main}"
    return [Table(title, columns, cells, texts=2, numbers=plain)]


def _columns(results: Sequence[DetectionResult], main: str) -> list[str]:
    return [*COLUMNS, *(f"{rival}\n{_figure_name(rival)}" for rival in _rivals(results, main))]


def _rows(results: Sequence[DetectionResult], main: str) -> list[list[str]]:
    beside = {(result.detector, result.test_set): result.kinds for result in results}
    return [
        [result.test_set, kind, *_figures(found)]
        + [_cell(beside.get((rival, result.test_set), {}).get(kind), rival) for rival in _rivals(results, main)]
        for result in results
        if result.detector == main
        for kind, found in result.kinds.items()
    ]


def _rivals(results: Sequence[DetectionResult], main: str) -> list[str]:
    return list(dict.fromkeys(result.detector for result in results if result.detector != main))


def flatten(results: Sequence[DetectionResult], main: str) -> dict[str, int | float]:
    """Flat keys for metrics.json: test/… for the planted test set, another trial's name, a rival's name before it."""
    figures: dict[str, int | float] = {}
    for result in results:
        trial = "test" if result.test_set == "planted" else result.test_set.replace(", held out", "_held_out")
        prefix = trial if result.detector == main else f"{_rival(result.detector)}/{trial}"
        for kind, found in result.kinds.items():
            figures |= {f"{prefix}/{kind.replace(' ', '_')}/{name}": value for name, value in found._asdict().items()}
        for row in result.by_distance:
            part = "/".join(filter(None, [prefix, f"distance_{row.low}_{row.high}", row.kind.replace(" ", "_")]))
            figures |= {f"{part}/events": row.events, f"{part}/auprc": row.auprc, f"{part}/f1": row.f1}
        figures[f"{prefix}/auprc"] = mean_quality(result, lambda found: found.auprc)
        figures[f"{prefix}/f1"] = mean_quality(result, lambda found: found.f1)
    return figures


def replicates_of(results: Sequence[DetectionResult], main: str) -> Replicates:
    """AUPRC in resamples of the genome, for every detector put to the planted test set, under the keys of `flat`.

    The strata, kinds and ranges of distance, are the main detector's.
    """
    draws: dict[str, Sequence[float]] = {}
    for result in results:
        if not result.replicates:
            continue
        prefix = "test" if result.detector == main else f"{_rival(result.detector)}/test"
        draws |= {
            f"{prefix}/{kind.replace(' ', '_')}/auprc": values.tolist() for kind, values in result.replicates.items()
        }
        simple = [result.replicates[kind] for kind in HEADLINE_KINDS if kind in result.replicates]
        draws[f"{prefix}/auprc"] = np.mean(simple, axis=0).tolist() if simple else []
    strata = [one for result in _planted(results) if result.detector == main for one in _strata(result)]
    return Replicates("test/auprc", draws, strata)


def _strata(result: DetectionResult) -> list[Subgroup]:
    kinds = [
        Subgroup("kind", kind, kind, None, None, found.events, found.auprc, tuple(result.replicates[kind].tolist()))
        for kind, found in result.kinds.items()
        if kind in result.replicates
    ]
    ranges = [
        Subgroup(
            "distance", _span(row), row.kind, row.low, row.high, row.events, row.auprc, tuple(row.replicates.tolist())
        )
        for row in result.by_distance
    ]
    return kinds + ranges


def plot_curves(results: Sequence[DetectionResult], file: Path) -> None:
    """Precision against recall on the planted test set, a panel a kind, a line a detector (a point for callers)."""
    shown = _planted(results)
    figure, panels = plt.subplots(
        1, len(HEADLINE_KINDS), figsize=(4.2 * len(HEADLINE_KINDS), 4), sharey=True, layout="constrained"
    )
    for panel, kind in zip(panels, HEADLINE_KINDS, strict=True):
        for result in shown:
            if kind not in result.curves:
                continue
            found, curve = result.kinds[kind], result.curves[kind]
            if result.detector in CALLERS:
                mark = ("k*", "kP")[CALLERS.index(result.detector)]
                label = f"{result.detector} (F1 {found.f1:.3f})"
                panel.plot([found.recall], [found.precision], mark, ms=11, label=label)
            else:
                panel.step(curve.recall, curve.precision, label=f"{result.detector} ({found.auprc:.3f})")
        panel.set(title=kind, xlabel="recall", xlim=(0, 1.02), ylim=(0, 1.02))
        if panel.lines:
            panel.legend(loc="lower left", fontsize=8)
    panels[0].set_ylabel("precision")
    save_figure(figure, file)


def _planted(results: Sequence[DetectionResult]) -> list[DetectionResult]:
    return [result for result in results if result.test_set == "planted"]


def _span(row: DistanceBin) -> str:
    return f"{row.low:,}–{row.high:,}"


def _interval(row: DistanceBin) -> str:
    with_any = row.replicates[~np.isnan(row.replicates)]
    low, high = np.quantile(with_any, [0.025, 0.975]) if len(with_any) else (math.nan, math.nan)
    return f"{row.auprc:.3f} [{low:.3f}–{high:.3f}]"


def _rival(detector: str) -> str:
    return re.sub(r"\W+", "_", detector).strip("_")


def _figures(found: DetectionMetrics) -> tuple[str, ...]:
    return (
        f"{found.events:,}",
        f"{1000 * found.rate:.3f}",
        f"{found.auprc:.3f} [{found.auprc_low:.3f}–{found.auprc_high:.3f}]",
        f"{found.auroc:.4f}",
        f"{found.precision:.3f}",
        f"{found.recall:.3f}",
        f"{found.f1:.3f} [{found.f1_low:.3f}–{found.f1_high:.3f}]",
        "–" if math.isnan(found.base_auprc) else f"{found.base_auprc:.3f}",
    )


def _figure_name(detector: str) -> str:
    return "F1" if detector in CALLERS else "AUPRC"


def _cell(found: DetectionMetrics | DistanceBin | None, detector: str) -> str:
    return "–" if found is None else f"{found.f1 if detector in CALLERS else found.auprc:.3f}"
