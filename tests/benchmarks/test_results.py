"""The pages of results/ hold the data beside them."""

import gzip
import json
import subprocess

import pytest

from benchmarks.studies import capacity, render
from genoattn.comparison.record import Comparison

LIMIT = 2.8e6
"""Most bytes of results/ in all."""
COMPARISONS = sorted(file.parent.name for file in render.RESULTS.glob("*/comparison.json.gz"))


@pytest.fixture(scope="module")
def rendered() -> dict[str, render.Study]:
    return {name: render.render(name) for name in render.studies()}


@pytest.mark.parametrize("name", render.studies())
def test_a_page_is_made_from_its_data(name: str, rendered: dict[str, render.Study]) -> None:
    """If this fails: python -m benchmarks.studies.render."""
    assert (render.RESULTS / name / "README.md").read_text("utf-8") == rendered[name].page


def test_the_overview_has_a_row_for_each_study(rendered: dict[str, render.Study]) -> None:
    folders = {folder.name for folder in render.RESULTS.iterdir() if folder.is_dir()}
    assert folders == {*rendered}
    assert (render.RESULTS / "README.md").read_text("utf-8") == render.overview([*rendered.values()])


def test_results_are_small() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "."],
        cwd=render.RESULTS,
        capture_output=True,
        text=True,
        check=False,
    )
    files = [render.RESULTS / name for name in listed.stdout.split("\0") if name] or render.RESULTS.rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) <= LIMIT


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_agrees_with_the_metrics_of_every_run(name: str) -> None:
    comparison = Comparison.read(render.RESULTS / name)
    lines = gzip.decompress((render.RESULTS / name / "runs.jsonl.gz").read_bytes()).splitlines()
    runs = {record["folder"]: record for record in map(json.loads, lines)}
    assert comparison.runs and not comparison.failed
    for run in comparison.runs:
        metrics = runs[run.folder]["metrics"]
        if comparison.primary_metric.startswith("model/ladder/"):  # the mean over its lengths
            name = comparison.primary_metric.removeprefix("model/ladder")
            tests = [f"test_{length}" for length in comparison.ladder.lengths[:-1]] + ["test"]  # type: ignore[union-attr]
            assert sum(metrics[f"model/{test}{name}"] for test in tests) / len(tests) == pytest.approx(run.value)
        else:
            assert metrics[comparison.primary_metric] == run.value
    for result in comparison.results:
        for layer, estimate in result.estimates.items():
            final = comparison.runs_of("final", result.length, layer)
            assert estimate.values == tuple(run.value for run in final) and estimate.seeds == len(final)


def test_a_struck_row(rendered: dict[str, render.Study]) -> None:
    assert "| ~~`based`~~ | ~~741,640~~ |" in rendered["recall"].page
    assert rendered["memory"].page.count("~~`hybrid`~~") == 2


def test_keys_count_as_told_apart_if_all_fewer_are() -> None:
    shares = dict.fromkeys(map(str, capacity.KEYS), 0.7)
    assert capacity.told_apart(shares) == "1,024 or more"
    assert capacity.told_apart(shares | {"64": 0.6}) == "32"
    assert capacity.told_apart(shares | {"8": 0.3}) == "fewer than 8"
