"""What a run has to say: a table in the terminal, metrics.json, plots, and the same for Weights & Biases."""

import csv
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from genoattn.evaluation import Result, mean_quality
from genoattn.metrics import SIMPLE, Quality

mpl.use("Agg")
WIDTH = 1000
"""Columns a table may take where there is no terminal to say so; it takes what it needs."""
COLUMNS = ("trial", "kind", "events", "per kb", "AUPRC [95 %]", "AUROC", "precision", "recall", "F1 [95 %]", "per base")


def publish(folder: Path, results: Sequence[Result], figures: Mapping[str, object], main: str) -> None:
    """Leave metrics.json, report.md and the curves in a run folder, and print the table."""
    write_metrics(folder / "metrics.json", figures)
    _write(folder / "report.md", markdown(results, main))
    plot_curves(results, folder / "plots" / "precision_recall.png")
    print_table(results, main)


def table(results: Sequence[Result], main: str) -> Table:
    """The main detector's figures in full, the others' beside: AUPRC where they score, F1 where they only call."""
    whole = Table(title=f"Mutations found by attention={main}", title_justify="left")
    for number, column in enumerate(_columns(results, main)):
        whole.add_column(column, justify="left" if number < 2 else "right", overflow="fold")
    before = ""
    for trial, *cells in _rows(results, main):
        if before not in ("", trial):
            whole.add_section()
        whole.add_row("" if trial == before else trial, *cells)
        before = trial
    return whole


def print_table(results: Sequence[Result], main: str) -> None:
    """Print the table, at its full width where the terminal's is unknown."""
    console = Console()
    Console(width=None if console.is_terminal else WIDTH).print(table(results, main))


def markdown(results: Sequence[Result], main: str) -> str:
    """The same table for a page."""
    columns = _columns(results, main)
    lines = [columns, ["---"] * 2 + ["---:"] * (len(columns) - 2), *_rows(results, main)]
    return "".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |\n" for line in lines)


def _columns(results: Sequence[Result], main: str) -> list[str]:
    return [*COLUMNS, *(f"{rival}\n{_figure_name(rival)}" for rival in _rivals(results, main))]


def _rows(results: Sequence[Result], main: str) -> list[list[str]]:
    beside = {(result.detector, result.trial): result.kinds for result in results}
    return [
        [result.trial, kind, *_figures(found)]
        + [_cell(beside.get((rival, result.trial), {}).get(kind), rival) for rival in _rivals(results, main)]
        for result in results
        if result.detector == main
        for kind, found in result.kinds.items()
    ]


def _rivals(results: Sequence[Result], main: str) -> list[str]:
    return list(dict.fromkeys(result.detector for result in results if result.detector != main))


def flat(results: Sequence[Result], main: str) -> dict[str, int | float]:
    """Flat keys for metrics.json: test/… for the planted test set, another trial's name, a rival's name before it."""
    figures: dict[str, int | float] = {}
    for result in results:
        trial = "test" if result.trial == "planted" else result.trial.replace(", held out", "_held_out")
        rival = re.sub(r"\W+", "_", result.detector).strip("_")
        prefix = trial if result.detector == main else f"{rival}/{trial}"
        for kind, found in result.kinds.items():
            figures |= {f"{prefix}/{kind.replace(' ', '_')}/{name}": value for name, value in found._asdict().items()}
        figures[f"{prefix}/auprc"] = mean_quality(result, lambda found: found.auprc)
        figures[f"{prefix}/f1"] = mean_quality(result, lambda found: found.f1)
    return figures


def write_metrics(file: Path, figures: Mapping[str, object]) -> None:
    """Write metrics.json, whole or not at all; what is not a number becomes null."""
    plain = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in figures.items()}
    _write(file, json.dumps(plain, indent=2) + "\n")


def plot_curves(results: Sequence[Result], file: Path) -> None:
    """Precision against recall on the planted test set, a panel a kind, a line a detector (a point for callers)."""
    shown = [result for result in results if result.trial == "planted"]
    figure, panels = plt.subplots(1, len(SIMPLE), figsize=(4.2 * len(SIMPLE), 4), sharey=True, layout="constrained")
    for panel, kind in zip(panels, SIMPLE, strict=True):
        for result in shown:
            if kind not in result.curves:
                continue
            found, curve = result.kinds[kind], result.curves[kind]
            if result.detector == "aligner":
                panel.plot([found.recall], [found.precision], "k*", ms=11, label=f"aligner (F1 {found.f1:.3f})")
            else:
                panel.step(curve.recall, curve.precision, label=f"{result.detector} ({found.auprc:.3f})")
        panel.set(title=kind, xlabel="recall", xlim=(0, 1.02), ylim=(0, 1.02))
        if panel.lines:
            panel.legend(loc="lower left", fontsize=8)
    panels[0].set_ylabel("precision")
    _save(figure, file)


def plot_training(metrics: Path, file: Path) -> None:
    """Loss and curriculum against bases seen, from the run's metrics.csv."""
    with metrics.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    seen = 0.0
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        seen = float(row.get("bases_seen") or seen)
        for name in ("loss", "validation/loss", "curriculum/rate", "curriculum/length"):
            if row.get(name):
                points.setdefault(name, []).append((seen, float(row[name])))
    for name, style in (("loss", "-"), ("validation/loss", "o-")):
        if name in points:
            above.semilogy(*zip(*points[name], strict=True), style, label=name, lw=1)
    above.set_ylabel("loss (nats a base)")
    above.legend()
    if "curriculum/rate" in points:
        below.plot(*zip(*points["curriculum/rate"], strict=True), label="mutations a base")
    below.set_xlabel("bases seen")
    below.set_ylabel("mutations a base", color="C0")
    if "curriculum/length" in points:
        beside = below.twinx()
        beside.plot(*zip(*points["curriculum/length"], strict=True), "C1--", label="length")
        beside.set_ylabel("window (bases)", color="C1")
    _save(figure, file)


def send(loggers: Sequence[Logger], figures: Mapping[str, int | float], results: Sequence[Result], plots: Path) -> None:
    """Give figures, table and plots to Weights & Biases, where it is among the loggers, and end its run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            rows = [
                [result.detector, result.trial, kind, *found]
                for result in results
                for kind, found in result.kinds.items()
            ]
            logger.log_table("report", ["detector", "trial", "kind", *Quality._fields], rows)
            for plot in sorted(plots.glob("*.png")):
                logger.log_image(f"plots/{plot.stem}", [str(plot)])
            logger.experiment.summary.update(dict(figures))
            logger.experiment.finish()


def _figures(found: Quality) -> tuple[str, ...]:
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
    return "F1" if detector == "aligner" else "AUPRC"


def _cell(found: Quality | None, detector: str) -> str:
    return "–" if found is None else f"{found.f1 if detector == 'aligner' else found.auprc:.3f}"


def _write(file: Path, text: str) -> None:
    half = file.with_name(f".{file.name}.part")
    half.write_text(text, "utf-8")
    os.replace(half, file)


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}")
    figure.savefig(half, dpi=120, format="png")
    os.replace(half, file)
    plt.close(figure)
