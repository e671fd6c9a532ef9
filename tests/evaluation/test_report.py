"""Reports: tables that fit the terminal, Markdown and plots."""

import os
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from genoattn.evaluation.detection import report
from genoattn.evaluation.detection.metrics import DetectionMetrics, PrecisionRecall
from genoattn.evaluation.detection.report import COLUMNS, detection_table, plot_curves
from genoattn.evaluation.detection.results import DetectionResult, KindResult, metrics_of, replicates_of
from genoattn.evaluation.detection.testsets import PLACED_BY_VCF
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table, write_report
from genoattn.training.loggers import plot_training

CURVE = PrecisionRecall(np.array([0.2, 1.0, 1.0]), np.array([1.0, 0.5, 0.0]))


def kind(auprc: float, f1: float = 0.5, curve: PrecisionRecall | None = CURVE) -> KindResult:
    bounds = auprc - 0.01, auprc + 0.01
    metrics = DetectionMetrics(
        1234, 0.0042, auprc, *bounds, 0.9876, 0.61, 0.62, f1, f1 - 0.02, f1 + 0.02, np.nan if curve is None else 0.333
    )
    return KindResult(metrics, np.array([auprc, np.nan]), curve)


def result(detector: str, name: str, test_set: str, **kinds: KindResult) -> DetectionResult:
    title = {"test": "simulated", "N315_held_out": "N315, held out"}.get(test_set, test_set)
    by_kind = {key.replace("_", " "): kinds[key] for key in kinds}
    return DetectionResult(detector, name, test_set, title, test_set == "test", by_kind, (), test_set != "test")


CONTROL = ("control", "none (control)")
RESULTS = [
    result("model", "window", "test", snv=kind(0.911), deletion=kind(0.722), long_deletion=kind(0.533, curve=None)),
    result("model", "window", "N315", snv=kind(0.944)),
    result("model", "window", "N315_held_out", snv=kind(0.955)),
    result(*CONTROL, "test", snv=kind(0.166), deletion=kind(0.177)),
    result(*CONTROL, "N315", snv=kind(0.188)),
    result("untrained", "untrained", "test", snv=kind(0.011), deletion=kind(0.012)),
    result("aligner", "aligner", "test", snv=kind(0.211, f1=0.799), deletion=kind(0.222, f1=0.688)),
]


def rendered(table: Table, width: int) -> list[str]:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=width, file=nowhere)
        console.print(table.render(width))
        return console.export_text().splitlines()


def test_the_wide_table_has_every_row_and_column():
    lines = rendered(detection_table(RESULTS), 200)
    head = "\n".join(lines[:5])
    assert "attention=window" in head and all(word in head for column in COLUMNS for word in column.split())
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [row[:2] for row in rows] == [
        ["simulated", "snv"],
        ["", "deletion"],
        ["", "long deletion"],
        ["N315 *", "snv"],
        ["N315, held out *", "snv"],
    ]
    own = ["1,234", "4.200", "0.911 [0.901–0.921]", "0.9876", "0.610", "0.620", "0.500 [0.480–0.520]", "0.333"]
    assert rows[0] == ["simulated", "snv", *own, "0.166", "0.011", "0.799"]  # AUPRC of models, but F1 of the aligner
    assert [row[-3:] for row in rows[1:]] == [
        ["0.177", "0.012", "0.688"],
        ["–", "–", "–"],
        ["0.188", "–", "–"],
        ["–", "–", "–"],
    ]


@pytest.mark.parametrize("width", [80, 100, 120, 150])
def test_the_narrow_table_fits_and_breaks_no_word(width: int):
    table = detection_table(RESULTS)
    lines = rendered(table, width)
    assert all(cell_len(line.rstrip()) <= width for line in lines)
    text = " ".join(lines)
    words = ["0.911", "[0.901–0.921]", "0.799", "simulated", "deletion", "aligner"]
    assert all(word in text.split() for word in words)
    assert width == 150 or not {"AUROC", "kb", "base"} & set(text.split())


def test_the_terminal_lists_omitted_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "100")
    detection_table(RESULTS).print()
    printed = capsys.readouterr().out
    assert "Left out to fit 100 columns: per kb, AUROC, AUPRC per base" in printed and "report.md has them." in printed
    assert PLACED_BY_VCF in printed


def test_the_table_is_printed_whole_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    detection_table(RESULTS).print()
    printed = capsys.readouterr().out
    assert "0.911 [0.901–0.921]" in printed and "none (control)" in printed and "AUROC" in printed
    assert "Left out" not in printed


def test_markup_and_bars_in_cells_are_text(capsys: pytest.CaptureFixture[str]):
    table = Table("[bold]title", ["record", "n"], [["gi|1|[red]x[/red]", "7"]])
    table.print()
    printed = capsys.readouterr().out
    assert "gi|1|[red]x[/red]" in printed and "[bold]title" in printed
    assert table.markdown().splitlines() == ["| record | n |", "| --- | ---: |", "| gi\\|1\\|[red]x[/red] | 7 |"]


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]):
    """Not even from the names of a user's files and classes, which tables repeat."""
    table = Table("\x1b[31mtitle", ["\x07class", "n"], [["x\x1b]0;new title\x07\u202e[/b]", "7"]], notes=["\x1b[2J"])
    table.print()
    printed = capsys.readouterr().out
    for text in (printed, table.markdown()):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        assert "x\\x1b]0;new title\\x07\\u202e[/b]" in text


def test_plots_leave_the_backend_of_the_caller_alone():
    """pyplot would choose a backend, and keep every figure open."""
    package = Path(report.__file__).parents[2]
    assert not [file for file in package.rglob("*.py") if "matplotlib.pyplot" in file.read_text("utf-8")]


def test_real_strains_have_a_caution_in_the_report(tmp_path: Path):
    write_report(tmp_path, [detection_table(RESULTS)], Metrics(), {})
    page = (tmp_path / "report.md").read_text()
    assert "| N315 * | snv |" in page and "| simulated | snv |" in page and f"* Windows {PLACED_BY_VCF}." in page
    assert not detection_table([row for row in RESULTS if row.simulated]).notes


def test_metric_keys_have_four_parts():
    metrics = metrics_of(RESULTS)
    plain = metrics.to_json()
    assert plain["model/test/snv/auprc"] == 0.911 and plain["model/test/long_deletion/auprc"] == 0.533
    assert plain["model/N315/snv/auprc"] == 0.944 and plain["model/N315_held_out/snv/auprc"] == 0.955
    assert plain["control/test/deletion/auprc"] == 0.177 and plain["aligner/test/snv/f1"] == 0.799
    assert plain["model/test/all/auprc"] == pytest.approx((0.911 + 0.722) / 2)  # without the long deletions
    assert plain["aligner/test/all/f1"] == pytest.approx((0.799 + 0.688) / 2)
    assert plain["model/test/long_deletion/base_auprc"] is None
    kinds = sum(len(row.kinds) for row in RESULTS)
    assert len(plain) == kinds * len(DetectionMetrics._fields) + 2 * len(RESULTS)


def test_replicates_are_of_the_simulated_test_set():
    primary = MetricKey("model", "test", "all", "auprc")
    replicates = replicates_of(RESULTS, primary)
    assert {key.test_set for key in replicates.replicates} == {"test"}
    assert replicates.replicates[primary][0] == pytest.approx((0.911 + 0.722) / 2)
    assert [group.name for group in replicates.subgroups] == ["snv", "deletion", "long deletion"]


def check_picture(file: Path) -> None:
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and os.listdir(file.parent) == [file.name]


def test_precision_against_recall_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list = []
    save = report.save_figure
    monkeypatch.setattr(report, "save_figure", lambda figure, file: (drawn.append(figure), save(figure, file)))
    file = tmp_path / "plots" / "curves.png"
    plot_curves(RESULTS, file)  # without any insertion
    check_picture(file)
    (figure,) = drawn
    labels = {panel.get_title(): [line.get_label() for line in panel.lines] for panel in figure.axes}
    assert labels["snv"] == ["window (0.911)", "none (control) (0.166)", "untrained (0.011)", "aligner (F1 0.799)"]
    assert labels["insertion"] == []
    point = figure.axes[0].lines[3]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.62, 0.61)
    assert "Simulated mutations in test blocks" in figure.get_suptitle()


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
