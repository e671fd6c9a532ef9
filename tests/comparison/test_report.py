"""The report of a comparison says all that the comparison holds, in files that need nothing else."""

import csv
import html
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from genoattn.comparison import report as reports
from genoattn.comparison.report.plot_style import look, short
from genoattn.comparison.report.record import missing, plain

LAYERS = ["full", "window", "linear", "sparse", "hierarchical", "based", "<mine & yours>"]
BASELINES = ["none", "conv"]
LENGTHS = [512, 2048]
RATES = [0.0005, 0.002, 0.008]
PLOTS = {"quality", "tradeoff", "memory", "speed", "context", "extrapolation", "learning", "sweep"}
PLOTS |= {"by_distance", "by_delta", "by_kind"}


def around(mean: float, half: float = 0.0213) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def run(layer: str, place: int, length: int, lr: float, seed: int, stage: str) -> dict[str, Any]:
    loss = 0.61 - 0.03 * place + 0.05 * abs(math.log(lr / 0.002)) + 0.004 * seed
    curve = [[bases, loss + 2e5 / (bases + 1e5)] for bases in range(40_000, 900_000 + 30_000 * seed, 60_000)]
    return {
        "layer": layer, "length": length, "lr": lr, "seed": seed, "stage": stage, "folder": f"{layer}/{lr}/{seed}",
        "value": 0.31 + 0.07 * place + 0.011 * seed, "validation_loss": loss, "train_seconds": 180.4 + place,
        "steps": 3000 + seed, "bases": 900_000, "curve": curve,
    }  # fmt: skip


def cost(place: int, length: int) -> dict[str, float]:
    quadratic = 1 + (length / 1500) ** 2 if place == 0 else 1 + place / 5
    return {
        "parameters": 415_000 + 1_731 * place, "attention_flops": 7.3e7 * quadratic * length / 512,
        "attention_state_bytes": 2048.0 * (place + 1) * length / 512,
        "forward_bases_per_second": 91_234.0 / quadratic, "forward_peak_bytes": 3.1e5 * length * quadratic,
        "training_bases_per_second": 30_117.0 / quadratic, "training_peak_bytes": 9.3e5 * length * quadratic,
        "seconds_per_step": 2e-5 * length * quadratic,
    }  # fmt: skip


def strata(place: int) -> list[dict[str, Any]]:
    edges = [1, 4, 16, 64, 256]
    bands = [
        {"by": "distance", "name": f"{low}–{high}", "kind": kind, "low": low, "high": high, "count": 37 + low,
         "mean": 0.9 - 0.02 * place - 0.1 * number, "ci_low": 0.85 - 0.02 * place - 0.1 * number,
         "ci_high": 0.94 - 0.02 * place - 0.1 * number}
        for kind in ("snv", "deletion") for number, (low, high) in enumerate(pairwise(edges))
    ]  # fmt: skip
    deltas = [
        {"by": "delta", "name": name, "kind": "", "low": None, "high": None, "count": 118, "mean": 0.5 + 0.05 * place,
         "ci_low": 0.47 + 0.05 * place, "ci_high": 0.53 + 0.05 * place} for name in ("none", "4", "2", "1")
    ]  # fmt: skip
    kinds = [
        {"by": "kind", "name": kind, "kind": kind, "low": None, "high": None, "count": 250, "mean": 0.4 + 0.05 * place,
         "ci_low": 0.37 + 0.05 * place, "ci_high": 0.43 + 0.05 * place} for kind in ("snv", "deletion", "insertion")
    ]  # fmt: skip
    return bands + deltas + kinds


def verdict(every: list[str]) -> dict[str, Any]:
    found = {
        name: {
            **around(0.3213 + 0.0711 * place),
            "seeds": 3,
            "values": [0.31 + 0.0711 * place + 0.011 * s for s in range(3)],
        }
        for place, name in enumerate(every)
    }
    pairs = [
        {"first": a, "second": b, **around(0.0711 * (one - two)), "p": 0.0123, "adjusted": 0.0456,
         "significant": two - one > 1}
        for one, a in enumerate(every) for two, b in enumerate(every) if one < two
    ]  # fmt: skip
    best = every[::-1]
    return {
        "estimates": found, "differences": pairs,
        "groups": [best[:1], best[1:3], best[2:4], *([name] for name in best[4:])],
        "words": f"{best[0]} is best; {best[1]} and {best[2]} are not told apart", "front": [best[0], "linear"],
        "recommendation": {"layer": best[0], "why": f"{best[0]}: the best within 1 GiB"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    every = [*BASELINES, *LAYERS]

    def by_length(make) -> dict[str, Any]:
        return {str(length): {name: make(place, length) for place, name in enumerate(every)} for length in LENGTHS}

    def decay(place: int) -> list:
        return [[2**power, *(math.exp(-power / (2 + place)) * part for part in (1, 0.8, 1.2))] for power in range(10)]

    return {
        "title": "Which layer finds mutations", "command": "python -m genoattn compare 'layers=[full,<mine>]'",
        "made": "2026-01-02T03:04:05", "versions": {"genoattn": "0.1.0", "torch": "2.9.9"}, "machine": "2 cores",
        "task": "paired, E. coli", "headline": "test/auprc", "measure": "AUPRC",
        "budget": {"steps": None, "seconds": 180, "bases": None}, "sweep": {"seconds": 60}, "lengths": LENGTHS,
        "layers": LAYERS, "baseline_layers": BASELINES, "seeds": [0, 1, 2], "learning_rates": RATES,
        "match": "parameters", "expectations": "full wins at 512.\n\nlinear is cheapest.",
        "runs": [run(name, place, length, rate, 0, "sweep") for place, name in enumerate(every)
                 for length in LENGTHS for rate in RATES]
              + [run(name, place, length, 0.002, seed, "final") for place, name in enumerate(every)
                 for length in LENGTHS for seed in range(3)],
        "chosen": {str(length): dict.fromkeys(every, 0.002) for length in LENGTHS},
        "verdicts": {str(length): verdict(every) for length in LENGTHS},
        "measures": by_length(lambda place, _: {"test/snv/auprc": around(0.4 + 0.0517 * place)}),
        "strata": by_length(lambda place, _: strata(place)),
        "costs": {str(at): {name: cost(place, at) for place, name in enumerate(every[::-1])}
                  for at in (512, 2048, 8192, 32768)},
        "crossovers": [{"cheaper": "linear", "than": "<mine & yours>", "what": "to read", "length": 1342}],
        "context": by_length(lambda place, length: {"nominal": None if place else length, "effective": 61 + 20 * place,
                                                    "curve": decay(place)}),
        "extrapolation": by_length(lambda place, length: [
            {"length": length * times, **around(0.3 + 0.05 * place - 0.02 * times)} for times in (2, 4, 8)]),
        "baselines": {str(length): {"untrained": around(0.0612), "lookup": around(0.2718), "aligner": around(0.5772)}
                      for length in LENGTHS},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(whole: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    reports.write(folder, whole)
    return folder


class Reader(HTMLParser):
    """Tags that are open, every attribute, and the cells of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += data


def read(folder: Path) -> Reader:
    reader = Reader()
    reader.feed((folder / "comparison.html").read_text("utf-8"))
    assert reader.open == []
    return reader


def test_the_page_needs_no_network(folder: Path) -> None:
    text = (folder / "comparison.html").read_text("utf-8")
    addresses = [value for _, name, value in read(folder).attributes if name in ("src", "href", "srcset", "action")]
    assert addresses and all(value.startswith(("#", "data:image/png;base64,")) for value in addresses)
    assert not re.search(r"url\(|@import|https?:|<script|<link", text)


def test_links_inside_the_page_have_an_end(folder: Path) -> None:
    found = read(folder).attributes
    ends = {value for _, name, value in found if name == "id"}
    starts = {value[1:] for _, name, value in found if name == "href"}
    assert starts == ends and {"answer", "results", "differences", "costs", "method"} <= ends


def test_every_cell_of_every_table_is_on_the_page(folder: Path, whole: dict[str, Any]) -> None:
    cells = set(read(folder).cells)
    sheets = reports.tables(whole)
    assert [sheet.title for sheet in sheets][:2] == ["Results", "Differences"] and len(sheets) == 9
    assert not {cell for sheet in sheets for row in sheet.rows for cell in row} - cells


def test_the_results_are_those_of_the_comparison(whole: dict[str, Any]) -> None:
    (sheet,) = reports.sheets(whole)
    first = dict(zip(sheet.columns, sheet.rows[0], strict=True))
    assert first == {
        "length": "512", "layer": "<mine & yours>", "rank groups": "1", "AUPRC [95 %]": "0.890 [0.869–0.911]",
        "seeds": "3", "learning rate": "0.002", "parameters": "415,000", "training s": "188.4",
        "bases/s training": "26,974", "bases/s forward": "81,714", "peak MiB training": "507.0",
        "peak MiB forward": "169.0", "effective context": "221",
    }  # fmt: skip
    assert [row[1] for row in sheet.rows[:9]] == [*LAYERS[::-1], "conv", "none"]
    assert [row[2] for row in sheet.rows[1:4]] == ["2", "2, 3", "3"]
    assert sheet.rows[11][1:4] == ["aligner (reference)", "–", "0.577 [0.556–0.599]"]
    assert {len(row) for row in sheet.rows} == {len(sheet.columns)} and len(sheet.rows) == 2 * (9 + 3)


def test_the_answer_comes_first_in_words(folder: Path) -> None:
    text = (folder / "comparison.html").read_text("utf-8")
    said = "Recommended: <mine & yours>: the best within 1 GiB."
    assert text.index("<main>") < text.index(html.escape(said)) < text.index("<table")
    assert html.escape("based, hierarchical (not told apart)") in text


def test_names_are_escaped(folder: Path) -> None:
    text = (folder / "comparison.html").read_text("utf-8")
    assert "<mine" not in text and "&lt;mine &amp; yours&gt;" in text


def test_every_picture_is_described(folder: Path) -> None:
    words = [value for tag, name, value in read(folder).attributes if (tag, name) == ("img", "alt")]
    assert len(words) == len(PLOTS)
    assert all(re.search(r"n = \d", one) and "seed" in one and "interval" in one for one in words)


def test_pictures_are_whole(folder: Path) -> None:
    files = {file.stem: file for file in (folder / "plots").iterdir()}
    assert {file.suffix for file in files.values()} == {".png"} and set(files) == PLOTS
    for file in files.values():
        pixels = matplotlib.image.imread(file)
        assert pixels.shape[0] > 200 and pixels.shape[1] > 600 and pixels.std() > 0.01


def test_csv_parses_back(folder: Path, whole: dict[str, Any]) -> None:
    with (folder / "comparison.csv").open(newline="") as lines:
        rows = {(row["length"], row["layer"]): row for row in csv.DictReader(lines)}
    assert len(rows) == len(LENGTHS) * (len(LAYERS) + len(BASELINES))
    for (length, layer), row in rows.items():
        found = whole["verdicts"][length]["estimates"][layer]
        assert [float(row[key]) for key in ("mean", "low", "high")] == [found[key] for key in ("mean", "low", "high")]
        assert (row["n"], row["seeds"], row["learning_rate"]) == ("3", "0 1 2", "0.002")
        cost = whole["costs"][length][layer]
        assert {key: float(row[key]) for key in cost} == cost


def test_json_holds_what_was_given(folder: Path, whole: dict[str, Any]) -> None:
    held = json.loads((folder / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert held == json.loads(json.dumps(whole))


@pytest.mark.parametrize("given", [{}, {"layers": ["full"], "lengths": [512], "seeds": [0]}])
def test_an_empty_comparison_is_a_page_too(tmp_path: Path, given: dict[str, Any]) -> None:
    reports.write(tmp_path, given)
    assert "There is no verdict" in (tmp_path / "comparison.html").read_text("utf-8")
    assert not (tmp_path / "plots").exists()
    read(tmp_path)


SECTIONS = ("verdicts", "measures", "strata", "costs", "crossovers", "context", "extrapolation", "baselines", "chosen")
SECTIONS += ("runs", "expectations", "versions", "command", "budget", "sweep", "match", "machine", "measure", "made")


def small(whole: dict[str, Any]) -> dict[str, Any]:
    """One length and three layers of it."""
    held = {**plain(whole), "lengths": [512], "layers": ["full", "window", "linear"], "baseline_layers": []}
    return {**held, "strata": None, "verdicts": {"512": verdict(["full", "window", "linear"])}}


def test_the_same_comparison_gives_the_same_files(whole: dict[str, Any], tmp_path: Path) -> None:
    written = []
    given = {**small(whole), "costs": None, "extrapolation": None}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        reports.write(tmp_path / name, given)
        files = sorted((tmp_path / name).rglob("*.*"))
        written.append({file.relative_to(tmp_path / name): file.read_bytes() for file in files})
    assert written[0] == written[1] and len(written[0]) == 3 + 4


@pytest.mark.parametrize("lacking", SECTIONS)
@pytest.mark.parametrize("null", [True, False])
def test_a_section_may_be_missing(whole: dict[str, Any], lacking: str, null: bool) -> None:
    held = small(whole)
    given = {**held, lacking: None} if null else {key: value for key, value in held.items() if key != lacking}
    assert reports.page(plain(given), [], {}).startswith("<!DOCTYPE html>")
    assert reports.figures(given) is not None and len(reports.sheets(given)) == 1


@pytest.mark.parametrize("lacking", ["verdicts", "costs", "context", "runs"])
def test_plots_of_what_is_missing_are_left_out(whole: dict[str, Any], lacking: str) -> None:
    held = {**small(whole), lacking: None}
    left = {"verdicts": {"quality", "tradeoff"}, "costs": {"tradeoff", "memory", "speed"}, "context": {"context"}}
    left["runs"] = {"learning", "sweep"}
    there = {plot.name for plot in reports.draw(plain(held))}
    assert there == PLOTS - {"by_distance", "by_delta", "by_kind"} - left[lacking]


def test_what_is_no_number_is_missing(whole: dict[str, Any], tmp_path: Path) -> None:
    held = small(whole)
    held["verdicts"]["512"]["estimates"]["full"] = {"mean": math.nan, "low": math.nan, "high": math.nan, "values": []}
    rows = [[0, 0.0], [1, math.nan], [2, 0.0]]  # and of two columns, where no interval is known
    held["context"]["512"]["full"] = {"nominal": None, "effective": None, "curve": rows}
    held["costs"]["512"]["full"]["training_peak_bytes"] = math.nan
    held["extrapolation"]["512"]["full"][0]["mean"] = None
    held["baselines"]["512"]["lookup"] = None
    held["measures"]["512"]["full"]["test/snv/auprc"] = None
    held["verdicts"]["512"]["recommendation"] = None
    held["runs"][0]["validation_loss"] = math.nan
    reports.write(tmp_path, held)
    text = (tmp_path / "comparison.html").read_text("utf-8")
    assert "nan" not in re.sub(r'src="[^"]*"', "", text)
    json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)
    (sheet,) = reports.sheets(held)
    assert next(row for row in sheet.rows if row[1] == "full")[3] == "–"


def test_missing_runs_are_said(whole: dict[str, Any]) -> None:
    held = small(whole)
    held["runs"] = [
        one
        for one in held["runs"]
        if (one["layer"], one["stage"]) != ("full", "final")
        and (one["layer"], one["seed"]) != ("window", 1)
        and (one["layer"], one["lr"]) != ("window", 0.0005)
    ]
    said = [
        "full at 512 bases: no final run left a figure.",
        "window at 512 bases: no figure for seed 1.",
        "window at 512 bases: learning rate 0.0005 was not tried.",
        "final/window/1: this run ended badly.",
    ]
    held["failed"] = ["final/window/1"]
    assert missing(held) == said
    text = reports.page(plain(held), [], {})
    assert all(sentence in text for sentence in said)
    assert "2 of 3" in [row[4] for row in reports.sheets(held)[0].rows]


def test_no_two_layers_look_alike(whole: dict[str, Any]) -> None:
    looks = [look(whole, layer) for layer in [*BASELINES, *LAYERS]]
    assert len({one["color"] for one in looks}) == len({one["marker"] for one in looks}) == len(looks)
    named = {**whole, "layers": [*BASELINES, *LAYERS]}  # baselines that were named as layers too
    assert [look(named, layer) for layer in [*BASELINES, *LAYERS]] == looks


@pytest.mark.parametrize(
    ("value", "said"), [(512, "512"), (2048, "2,048"), (2**17, "128Ki"), (2**20, "1Mi"), (3e6, "3M"), (1.5, "1.5")]
)
def test_lengths_are_short(value: int | float, said: str) -> None:
    assert short(value) == said


def test_figures_are_flat_numbers(whole: dict[str, Any]) -> None:
    figures = reports.figures(whole)
    assert figures["512/full/mean"] == 0.3213 + 2 * 0.0711 and figures["2048/linear/n"] == 3
    assert all(isinstance(value, int | float) for value in figures.values())
