"""The page of a run, made from what a program left; and --quiet."""

import html
import os
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from omegaconf import DictConfig

from genoattn.cli import detect
from genoattn.cli.console import announce
from genoattn.cli.main import main
from genoattn.cli.values import output_folder
from genoattn.errors import UserError
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import Table, read_report, write_report
from genoattn.files import save_figure, write_text

pytestmark = pytest.mark.usefixtures("alone")
NAME = "<script>alert(1)</script>"
TABLES = [
    Table("Records", ["record", "bases"], [[NAME, "12"], ["a|b", ""], ["", "3"]], notes=["A note.", "Another one."]),
    Table("Kinds", ["set", "kind", "number"], [["one", "snv", "1"], ["one", "mnv", "2"]], texts=2),
]


def program(config: DictConfig) -> None:
    """Stands in for a program: leaves a report, a plot and files beside `out`, and prints."""
    folder, out = output_folder(), Path(config.out)
    print(f"reading {config.reference}")
    if config.threshold == 1:
        raise UserError("threshold=1 calls nothing")
    write_report(folder, TABLES, Metrics(costs={}), {"curve": lambda file: save_figure(Figure((1, 1)), file)})
    write_text(out, "calls")
    write_text(out.with_name("calls.blocks.bed"), "")
    announce(f"3 mutations in {out}")


@pytest.fixture(autouse=True)
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "main", program)
    (tmp_path / "calls.old").touch()
    os.utime(tmp_path / "calls.old", (0, 0))
    monkeypatch.chdir(tmp_path)


def words(out: str = "calls.vcf") -> list[str]:
    return ["detect", f"reference='{NAME[:8]}.fa'", "sample=b c.fa", f"out={out}", "threshold=0.75"]


class Reader(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_the_run_and_needs_no_network(tmp_path: Path) -> None:
    assert main([*words(), "hydra.run.dir=run"]) == 0
    source = (tmp_path / "run" / "run.html").read_text()
    page = Reader(source)
    assert (
        "script" not in {tag for tag, _ in page.tags} and NAME in page.text and not re.search(r"https?:|<link", source)
    )
    command = shlex.join(["genoattn", *words(), "hydra.run.dir=run"])
    assert (
        f"<pre><code>{html.escape(command).replace('&#x27;', '&#39;').replace('&quot;', '&#34;')}</code></pre>"
        in source
    )
    assert all(cell in page.text for table in TABLES for row in table.rows for cell in row)
    assert "A note.Another one." in page.text
    assert "<tr><td>threshold</td><td>0.5</td><td>0.75</td></tr>" in source and "<td>track</td>" not in source
    assert "<tr><td>out</td><td>must be given</td><td>calls.vcf</td></tr>" in source
    pictures = [named["src"] or "" for tag, named in page.tags if tag == "img"]
    assert len(pictures) == 1 and pictures[0].startswith("data:image/png;base64,iVBOR")
    links = {named["href"] or "" for tag, named in page.tags if tag == "a"}
    files = {link for link in links if not link.startswith("#")}
    inside = {"report.md", "metrics.json", "plots/", "detect.log"}
    assert files == inside | {"../calls.vcf", "../calls.blocks.bed"}
    assert all((tmp_path / "run" / link).exists() for link in files)
    assert {link[1:] for link in links - files} == {named["id"] for tag, named in page.tags if tag == "section"}
    assert "reading <script>.fa\n" in page.text and "3 mutations in calls.vcf\nrun folder: " in page.text


def test_a_run_of_a_sweep_has_its_own_page(tmp_path: Path) -> None:
    assert main([*words()[:-1], "-m", "threshold=0.2,0.3", "hydra.sweep.dir=sweep"]) == 0
    for number, value in enumerate(("0.2", "0.3")):
        source = (tmp_path / "sweep" / str(number) / "run.html").read_text()
        assert f"<td>0.5</td><td>{value}</td>" in source and "-m threshold=0.2,0.3" in source


def test_quiet_prints_what_was_written_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(), "hydra.run.dir=loud"]) == 0
    loud = capsys.readouterr().out
    assert main([*words(), "--quiet", "hydra.run.dir=quiet"]) == 0
    assert capsys.readouterr().out == f"3 mutations in calls.vcf\nrun folder: {tmp_path}/quiet\n"
    assert (tmp_path / "loud" / "detect.log").read_text() == loud
    assert (tmp_path / "quiet" / "detect.log").read_text() == loud.replace("/loud", "/quiet")
    assert main([*words()[:-1], "threshold=1", "-q", "hydra.run.dir=wrong"]) == 2
    assert capsys.readouterr() == ("", "threshold=1 calls nothing\n")
    assert not (tmp_path / "wrong" / "run.html").exists()


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    for tables in ([], TABLES[:1], TABLES, TABLES[::-1]):
        write_report(tmp_path, tables, Metrics(costs={}), {})
        read = read_report((tmp_path / "report.md").read_text())
        assert [(list(table.columns), table.rows, table.texts, list(table.notes)) for table in read] == [
            (list(table.columns), table.rows, table.texts, list(table.notes)) for table in tables
        ]
        assert [table.title for table in read] == [table.title if len(tables) > 1 else "" for table in tables]
