"""The table says all there is to say, metrics.json is plain, and plots are pictures."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from genoattn.evaluation.detection import report as findings
from genoattn.evaluation.detection.detectors import DetectionResult, PrecisionRecall
from genoattn.evaluation.detection.metrics import DetectionMetrics
from genoattn.evaluation.detection.report import COLUMNS, detection_table, flatten, plot_curves
from genoattn.evaluation.report import write_metrics
from genoattn.training.loggers import plot_training


def quality(auprc: float, f1: float = 0.5) -> DetectionMetrics:
    return DetectionMetrics(
        1234, 0.0042, auprc, auprc - 0.01, auprc + 0.01, 0.9876, 0.61, 0.62, f1, f1 - 0.02, f1 + 0.02, 0.333
    )


def result(detector: str, trial: str, **kinds: DetectionMetrics) -> DetectionResult:
    curve = PrecisionRecall(np.array([0.2, 1.0, 1.0]), np.array([1.0, 0.5, 0.0]))
    named = {kind.replace("_", " "): found for kind, found in kinds.items()}
    return DetectionResult(detector, trial, 1000, named, {kind: curve for kind in named if " " not in kind})


RESULTS = [
    result("window", "planted", snv=quality(0.911), deletion=quality(0.722), long_deletion=quality(0.533)),
    result("window", "N315", snv=quality(0.944)),
    result("window", "N315, held out", snv=quality(0.955)),
    result("none (control)", "planted", snv=quality(0.166), deletion=quality(0.177)),
    result("none (control)", "N315", snv=quality(0.188)),
    result("aligner", "planted", snv=quality(0.211, f1=0.799), deletion=quality(0.222, f1=0.688)),
]


def rendered(results: list[DetectionResult]) -> list[str]:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=200, file=nowhere)
        console.print(detection_table(results, "window")._table())
        return console.export_text().splitlines()


def test_the_table_holds_every_row_and_column():
    lines = rendered(RESULTS)
    head = "\n".join(lines[:5])
    assert "attention=window" in head and all(name in head for name in (*COLUMNS, "none (control)", "aligner"))
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [row[:2] for row in rows] == [
        ["planted", "snv"],
        ["", "deletion"],
        ["", "long deletion"],
        ["N315", "snv"],
        ["N315, held out", "snv"],
    ]
    whole = ["1,234", "4.200", "0.911 [0.901–0.921]", "0.9876", "0.610", "0.620", "0.500 [0.480–0.520]", "0.333"]
    assert rows[0] == ["planted", "snv", *whole, "0.166", "0.799"]  # a rival's AUPRC, but the aligner's F1
    assert [row[-2:] for row in rows[1:]] == [["0.177", "0.688"], ["–", "–"], ["0.188", "–"], ["–", "–"]]


def test_the_table_is_printed_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    detection_table(RESULTS, "window").print()
    shown = capsys.readouterr().out
    assert "0.911 [0.901–0.921]" in shown and "none (control)" in shown and "N315, held out" in shown


def test_flat_keys():
    figures = flatten(RESULTS, "window")
    assert figures["test/snv/auprc"] == 0.911 and figures["test/long_deletion/auprc"] == 0.533
    assert figures["N315/snv/auprc"] == 0.944 and figures["N315_held_out/snv/auprc"] == 0.955
    assert figures["none_control/test/deletion/auprc"] == 0.177 and figures["aligner/test/snv/f1"] == 0.799
    assert figures["test/auprc"] == pytest.approx((0.911 + 0.722) / 2)  # long deletions are no part of the mean
    assert figures["aligner/test/f1"] == pytest.approx((0.799 + 0.688) / 2)
    kinds = sum(len(one.kinds) for one in RESULTS)
    assert len(figures) == kinds * len(DetectionMetrics._fields) + 2 * len(RESULTS)


def test_metrics_are_plain_json(tmp_path: Path):
    file = tmp_path / "metrics.json"
    write_metrics(file, {"a": 0.5, "b": float("nan"), "c": np.float64("nan"), "d": 3, "e": "text"})
    plain = {"a": 0.5, "b": None, "c": None, "d": 3, "e": "text"}
    assert json.loads(file.read_text(), parse_constant=pytest.fail) == plain
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_metrics_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "metrics.json"
    write_metrics(file, {"a": 1})

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_metrics(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}


def check_picture(file: Path) -> None:
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and os.listdir(file.parent) == [file.name]


def test_precision_against_recall_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list = []
    save = findings.save_figure
    monkeypatch.setattr(findings, "save_figure", lambda figure, file: (drawn.append(figure), save(figure, file)))
    file = tmp_path / "plots" / "curves.png"
    plot_curves(RESULTS, file)  # without any insertion
    check_picture(file)
    (figure,) = drawn
    labels = {panel.get_title(): [line.get_label() for line in panel.lines] for panel in figure.axes}
    assert labels["snv"] == ["window (0.911)", "none (control) (0.166)", "aligner (F1 0.799)"]
    assert labels["deletion"] == ["window (0.722)", "none (control) (0.177)", "aligner (F1 0.688)"]
    assert labels["insertion"] == []
    point = figure.axes[0].lines[2]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.62, 0.61)


HEAD = "bases_seen,loss,validation/loss,curriculum/rate,curriculum/length,step\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "1000,0.9,,0.1,64,0\n,,0.8,,,1\n2000,0.7,,0.05,128,1\n",
        "bases_seen,loss,step\n1000,0.9,0\n",
    ],
)
def test_training_is_drawn(tmp_path: Path, text: str):
    metrics, file = tmp_path / "metrics.csv", tmp_path / "plots" / "training.png"
    metrics.write_text(text)
    plot_training(metrics, file)
    check_picture(file)
