"""The report of a comparison holds all values of the comparison, in files that need nothing else."""

import csv
import html
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib.image
import pytest

from genoattn.comparison import report
from genoattn.comparison.recommendation import Recommendation
from genoattn.comparison.record import (
    BASELINE_LAYERS,
    Comparison,
    ContextResult,
    Crossover,
    Environment,
    LayerCost,
    LayerResult,
    LengthResult,
    Stage,
    SubgroupEstimate,
    TrainingRun,
)
from genoattn.comparison.report import tables, text
from genoattn.comparison.report.html_page import page
from genoattn.comparison.report.style import look, short_length
from genoattn.comparison.results import edge
from genoattn.comparison.settings import Budget, ComparisonSettings, Cost
from genoattn.comparison.statistics import Difference, Estimate, LayerComparison
from genoattn.errors import UserError

LAYERS = ("full", "window", "linear", "sparse", "hierarchical", "based", "<mine & yours>")
ALL = (*BASELINE_LAYERS, *LAYERS)
LENGTHS = (512, 2048)
RATES = (0.0005, 0.002, 0.008)
PLOTS = {"quality", "tradeoff", "memory", "speed", "context", "lengths", "learning", "sweep"}
PLOTS |= {"by_distance", "by_delta", "by_kind"}
SETTINGS = ComparisonSettings(
    name="mutations",
    task="paired",
    layers=LAYERS,
    lengths=LENGTHS,
    learning_rates=RATES,
    seeds=(0, 1, 2),
    budget=Budget(seconds=180),
    sweep=Budget(seconds=60),
    match_size="parameters",
    extrapolate=(2, 4, 8),
    hypotheses="full wins at 512.\n\nlinear is cheapest.",
)
ENVIRONMENT = Environment(
    *("genoattn compare 'layers=[full,<mine>]'", "2026-01-02T03:04:05", "AMD EPYC 7B13", "Linux", 1),
    {"genoattn": "0.1.0", "torch": "2.9.9"},
)


def around(mean: float, half: float = 0.0213) -> Estimate:
    return Estimate(mean, mean - half, mean + half, 3, (mean - 0.01, mean, mean + 0.01))


def training_run(layer: str, length: int, rate: float, seed: int, stage: Stage) -> TrainingRun:
    place = ALL.index(layer)
    loss = 0.61 - 0.03 * place + 0.05 * abs(math.log(rate / 0.002)) + 0.004 * seed
    curve = tuple(
        (float(bases), loss + 2e5 / (bases + 1e5)) for bases in range(40_000, 900_000 + 30_000 * seed, 60_000)
    )
    folder = f"{stage}/{layer}/{seed}"
    value = 0.31 + 0.07 * place + 0.011 * seed
    return TrainingRun(layer, length, rate, seed, stage, 3000, folder, value, loss, 180.4 + place, 9e5, curve)


def cost(layer: str, length: int) -> LayerCost:
    place = ALL[::-1].index(layer)
    quadratic = 1 + (length / 1500) ** 2 if place == 0 else 1 + place / 5
    return LayerCost(
        layer,
        length,
        parameters=415_000 + 1_731 * place,
        attention_flops=round(7.3e7 * quadratic * length / 512),
        attention_state_bytes=2048 * (place + 1) * length // 512,
        seconds_per_step=2e-5 * length * quadratic,
        training_bases_per_second=30_117.0 / quadratic,
        forward_bases_per_second=91_234.0 / quadratic,
        training_peak_bytes=5e8 + 9.3e5 * length * quadratic,
        forward_peak_bytes=5e8 + 3.1e5 * length * quadratic,
        process_bytes=500_000_000,
    )


def subgroups(place: int) -> tuple[SubgroupEstimate, ...]:
    distances = [
        SubgroupEstimate(
            *("distance", f"{low}–{high}", kind, low, high, 37 + low, around(0.9 - 0.02 * place - 0.1 * number, 0.04))
        )
        for kind in ("snv", "deletion")
        for number, (low, high) in enumerate(pairwise([1, 4, 16, 64, 256]))
    ]
    others = [("delta", name, "") for name in ("none", "4", "2", "1")]
    others += [("kind", kind, kind) for kind in ("snv", "deletion", "insertion")]
    return (
        *distances,
        *(SubgroupEstimate(*names, None, None, 118, around(0.5 + 0.05 * place, 0.03)) for names in others),
    )


def layer_result(layer: str, length: int) -> LayerResult:
    place = ALL.index(layer)
    curve = tuple(
        (2.0**power, *(math.exp(-power / (2 + place)) * share for share in (1, 0.8, 1.2))) for power in range(10)
    )
    return LayerResult(
        layer,
        rate := 0.008 if layer == "window" else 0.002,
        edge(rate, RATES),
        {"model/test/snv/auprc": around(0.4 + 0.0517 * place)},
        subgroups(place),
        ContextResult(None if place else length, 61 + 20 * place, curve),
        {length * times: around(0.3 + 0.05 * place - 0.02 * times) for times in (1, 2, 4, 8)},
    )


def length_result(length: int, layers: tuple[str, ...] = ALL) -> LengthResult:
    best = layers[::-1]
    means = {layer: 0.3213 + 0.0711 * ALL.index(layer) for layer in best}
    pairs = tuple(
        Difference(a, b, means[a] - means[b], 0.01, 0.2, 0.0123, 0.00001, best.index(b) - best.index(a) > 1)
        for a, b in combinations(best, 2)
    )
    groups = (best[:1], best[1:3], best[2:4], *((name,) for name in best[4:]))
    statistics = LayerComparison({layer: around(mean) for layer, mean in means.items()}, pairs, groups)
    recommendation = Recommendation(best[0], Cost(bytes=2.0**30), 5, best[0], best[:1], unit="bytes", amount=2.0**29)
    baselines = {"untrained": around(0.0612), "kmer_lookup": around(0.9718), "aligner": around(0.5772)}
    results = tuple(layer_result(layer, length) for layer in best)
    return LengthResult(length, results, statistics, (best[0], "linear"), recommendation, baselines)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    runs = [training_run(layer, length, rate, 0, "sweep") for layer in ALL for length in LENGTHS for rate in RATES] + [
        training_run(layer, length, 0.002, seed, "final") for layer in ALL for length in LENGTHS for seed in range(3)
    ]
    return Comparison(
        settings=SETTINGS,
        environment=ENVIRONMENT,
        primary_metric="model/test/all/auprc",
        results=tuple(length_result(length) for length in LENGTHS),
        costs=tuple(cost(layer, length) for length in (*LENGTHS, 8192, 32768) for layer in ALL[::-1]),
        crossovers=(Crossover("linear", "<mine & yours>", "forward", 1342),),
        runs=tuple(runs),
    )


@pytest.fixture(scope="module")
def folder(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    comparison.write(folder)
    report.write(folder, comparison)
    return folder


class Reader(HTMLParser):
    """The open tags, all attributes and the table cells of a page."""

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
    source = (folder / "comparison.html").read_text("utf-8")
    addresses = [value for _, name, value in read(folder).attributes if name in ("src", "href", "srcset", "action")]
    assert addresses and all(value.startswith(("#", "data:image/png;base64,")) for value in addresses)
    assert not re.search(r"url\(|@import|https?:|<script|<link", source)


def test_links_inside_the_page_have_an_end(folder: Path) -> None:
    attributes = read(folder).attributes
    ends = {value for _, name, value in attributes if name == "id"}
    starts = {value[1:] for _, name, value in attributes if name == "href"}
    assert starts == ends and {"answer", "results", "differences", "costs", "hypotheses", "method"} <= ends


def test_every_cell_of_every_table_is_on_the_page(folder: Path, comparison: Comparison) -> None:
    cells = set(read(folder).cells)
    shown = tables.all_tables(comparison)
    assert [*shown][:2] == ["results", "differences"] and len(shown) == 9
    assert not {cell for table in shown.values() for row in table.rows for cell in row} - cells


def test_the_results_are_those_of_the_comparison(comparison: Comparison) -> None:
    table = tables.results(comparison)
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "length": "512",
        "layer": "<mine & yours>",
        "groups": "1",
        "AUPRC [95 %]": "0.890 [0.869–0.911]",
        "seeds": "3",
        "learning rate": "0.002",
        "parameters": "415,000",
        "bases/s training": "26,974",
        "bases/s forward": "81,714",
        "MiB training": "507.0",
        "MiB forward": "169.0",
        "effective context": "221",
    }
    assert [row[1] for row in table.rows[:9]] == [*LAYERS[::-1], "conv", "none"]
    assert [row[2] for row in table.rows[1:4]] == ["2", "2, 3", "3"]
    assert table.rows[11][1:4] == ["aligner (baseline)", "–", "0.577 [0.556–0.599]"]
    assert {len(row) for row in table.rows} == {len(table.columns)} and len(table.rows) == 2 * (9 + 3)


def test_the_answer_comes_first_and_names_baselines_that_are_ahead(folder: Path) -> None:
    source = html.unescape((folder / "comparison.html").read_text("utf-8"))
    sentence = "Recommended: <mine & yours> (0.890): the best of 5 layers within 1,024 MiB of memory in training, at"
    assert source.index("<main>") < source.index(sentence) < source.index("<table")
    assert "The baseline kmer_lookup scores 0.972, above the best layer, <mine & yours> (0.890)." in source
    assert "The baseline aligner scores" not in source
    assert "based and hierarchical do not differ significantly" in source


def test_a_best_learning_rate_at_the_edge_of_the_sweep_is_reported(
    folder: Path, comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "The best learning rate of window, 0.008, is the largest tried: a wider sweep may find a better one."
    assert sentence in (folder / "comparison.html").read_text("utf-8")
    report.print_results(comparison)
    assert f"512 bases: {sentence}" in capsys.readouterr().out
    table = tables.results(comparison)
    assert {row[1] for row in table.rows if row[5].endswith("(edge)")} == {"window"}
    at_edge = {layer.layer: layer.learning_rate_edge for layer in Comparison.read(folder).results[0].layers}
    assert at_edge == dict.fromkeys(ALL) | {"window": "largest"}
    assert edge(0.0005, RATES) == "smallest" and edge(0.008, (0.008,)) is None


def test_names_are_escaped(folder: Path) -> None:
    source = (folder / "comparison.html").read_text("utf-8")
    assert "<mine" not in source and "&lt;mine &amp; yours&gt;" in source


def test_every_picture_is_described_once_and_all_are_equally_wide(folder: Path) -> None:
    words = [value for tag, name, value in read(folder).attributes if (tag, name) == ("img", "alt")]
    assert len(words) == len(PLOTS)
    assert all(re.search(r"n = \d", words_) and "seed" in words_ and "interval" in words_ for words_ in words)
    pictures = {file.stem: matplotlib.image.imread(file) for file in (folder / "plots").iterdir()}
    assert set(pictures) == PLOTS
    assert all(pixels.shape[0] > 200 and pixels.std() > 0.01 for pixels in pictures.values())
    assert len({pixels.shape[1] for pixels in pictures.values()}) == 1


def test_counts_and_small_p_values_read_well(folder: Path) -> None:
    source = (folder / "comparison.html").read_text("utf-8")
    assert "AMD EPYC 7B13, Linux, 1 thread a run" in source
    assert "p &lt; 0.0001" in source and "p 0.0000" not in source
    assert (text.plural(2, "length"), text.plural([0], "seed")) == ("2 lengths", "seed 0")


def test_memory_is_that_above_the_process(comparison: Comparison) -> None:
    plot = next(plot for plot in report.draw(comparison) if plot.name == "memory")
    heights = [y for axis in plot.figure.axes for line in axis.lines for y in line.get_ydata()]
    assert min(heights) == pytest.approx(3.1e5 * 512 * 1.2 / 2**20, rel=0.3)  # 500 MB of the process are not drawn
    plot.figure.canvas.draw()
    labels = [label.get_text() for axis in plot.figure.axes for label in axis.get_yticklabels()]
    assert labels and not any("10^" in label or "times" in label for label in labels)


def test_csv_parses_back(folder: Path, comparison: Comparison) -> None:
    with (folder / "comparison.csv").open(newline="") as lines:
        rows = {(int(row["length"]), row["layer"]): row for row in csv.DictReader(lines)}
    assert len(rows) == len(LENGTHS) * len(ALL)
    for (length, layer), row in rows.items():
        estimate = comparison.results[LENGTHS.index(length)].estimates[layer]
        assert [float(row[key]) for key in ("mean", "low", "high")] == [estimate.mean, estimate.low, estimate.high]
        assert (row["seeds"], row["steps"]) == ("3", "3000")
        assert float(row["training_memory_bytes"]) == comparison.cost(layer, length).training_memory


def test_json_is_read_back(folder: Path, comparison: Comparison, tmp_path: Path) -> None:
    assert Comparison.read(folder) == comparison
    json.loads((folder / "comparison.json").read_text(), parse_constant=pytest.fail)
    with pytest.raises(UserError, match=r"holds no comparison\.json; expected the folder of a comparison"):
        Comparison.read(tmp_path)
    (tmp_path / "comparison.json").write_text('{"verdicts": {}}')
    with pytest.raises(UserError, match=r"comparison\.json: settings cannot be read; another version of genoattn"):
        Comparison.read(tmp_path)


def small(comparison: Comparison) -> Comparison:
    """One length and three layers of it."""
    settings = replace(SETTINGS, layers=("full", "window", "linear"), lengths=(512,))
    return replace(comparison, settings=settings, results=(length_result(512, ("full", "window", "linear")),))


def test_an_empty_comparison_is_a_page_too(tmp_path: Path) -> None:
    report.write(tmp_path, Comparison(SETTINGS, ENVIRONMENT))
    assert "There is no result" in (tmp_path / "comparison.html").read_text("utf-8")
    assert not (tmp_path / "plots").exists()
    read(tmp_path)


def test_the_record_is_json_without_infinity(comparison: Comparison, tmp_path: Path) -> None:
    runs = tuple(replace(run, train_seconds=math.inf, validation_loss=math.nan) for run in comparison.runs[:1])
    replace(comparison, runs=runs).write(tmp_path)
    json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)
    [run] = Comparison.read(tmp_path).runs
    assert run.train_seconds is None and run.validation_loss is None


def test_the_same_comparison_gives_the_same_files(comparison: Comparison, tmp_path: Path) -> None:
    written = []
    bare = replace(small(comparison), costs=(), crossovers=())
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        report.write(tmp_path / name, bare)
        files = sorted((tmp_path / name).rglob("*.*"))
        written.append({file.relative_to(tmp_path / name): file.read_bytes() for file in files})
    assert written[0] == written[1] and len(written[0]) == 2 + 8


@pytest.mark.parametrize(
    ("lacking", "plots"),
    [
        ("costs", {"tradeoff", "memory", "speed"}),
        ("runs", {"learning", "sweep"}),
        ("results", PLOTS - {"memory", "speed", "learning", "sweep"}),
    ],
)
def test_plots_without_data_are_left_out(comparison: Comparison, lacking: str, plots: set[str]) -> None:
    rest = replace(small(comparison), **{lacking: ()})
    assert {plot.name for plot in report.draw(rest)} == PLOTS - plots
    assert page(rest, [], {}).startswith("\n<!DOCTYPE html>") or page(rest, [], {}).startswith("<!DOCTYPE html>")


def test_unknown_values_are_dashes(comparison: Comparison, tmp_path: Path) -> None:
    first = small(comparison)
    bare = LayerResult("sparse")
    result = replace(first.results[0], layers=(*first.results[0].layers, bare), recommendation=None, baselines={})
    unknown = replace(first, results=(result,), costs=(LayerCost("full", 512),), runs=())
    report.write(tmp_path, unknown)
    source = (tmp_path / "comparison.html").read_text("utf-8")
    assert "nan" not in re.sub(r'src="[^"]*"', "", source)
    assert tables.results(unknown).rows[-1][2:4] == ["–", "–"]


def test_missing_runs_are_reported(comparison: Comparison) -> None:
    gaps = small(comparison)
    runs = tuple(
        run
        for run in gaps.runs
        if (run.layer, run.stage) != ("full", "final")
        and (run.layer, run.seed) != ("window", 1)
        and (run.layer, run.learning_rate) != ("window", 0.0005)
    )
    gaps = replace(gaps, runs=runs, failed=("final/window/1",))
    sentences = [
        "full at 512 bases: no final run has a score.",
        "window at 512 bases: no score for seed 1.",
        "window at 512 bases: learning rate 0.0005 not tried.",
        "final/window/1: this run failed.",
    ]
    assert text.missing(gaps) == sentences
    source = page(gaps, [], {})
    assert all(sentence in source for sentence in sentences)
    assert "2 of 3" in [row[4] for row in tables.results(gaps).rows]


def test_no_two_layers_look_alike_and_a_layer_looks_the_same_everywhere(comparison: Comparison) -> None:
    looks = {layer: look(comparison, layer) for layer in ALL}
    assert len({style["color"] for style in looks.values()}) == len(looks)
    assert len({style["marker"] for style in looks.values()}) == len(looks)
    other = replace(comparison, settings=replace(SETTINGS, layers=("linear", "<mine & yours>")))
    assert all(look(other, layer) == looks[layer] for layer in other.layers)


@pytest.mark.parametrize(
    ("value", "label"), [(512, "512"), (2048, "2,048"), (2**17, "128Ki"), (2**20, "1Mi"), (3e6, "3M"), (1.5, "1.5")]
)
def test_lengths_are_short(value: int | float, label: str) -> None:
    assert short_length(value) == label


def test_metrics_for_loggers_are_flat_numbers(comparison: Comparison) -> None:
    metrics = report.metrics(comparison)
    assert metrics["512/full/mean"] == 0.3213 + 2 * 0.0711 and metrics["2048/linear/seeds"] == 3
    assert all(isinstance(value, int | float) for value in metrics.values())
