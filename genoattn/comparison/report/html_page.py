"""The page of a comparison, from report.html.j2."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader

from genoattn.comparison.record import Comparison, LengthResult
from genoattn.comparison.report.style import Plot
from genoattn.comparison.report.tables import all_tables, number, p_value
from genoattn.comparison.report.text import answer, environment, listed, method, missing


class _Picture(NamedTuple):
    data: str
    text: str


class _Cell(NamedTuple):
    mean: str
    p: str
    significant: bool


class _Matrix(NamedTuple):
    title: str
    names: Sequence[str]
    rows: Sequence[tuple[str, Sequence[_Cell | None]]]


def page(comparison: Comparison, plots: Sequence[Plot], pictures: Mapping[str, bytes]) -> str:
    """The whole page; `pictures` are PNG files by the name of the plot."""
    tables, settings = all_tables(comparison), comparison.settings
    results = [result for result in comparison.results if result.statistics]
    matrices = [_matrix(result) for result in results if len(result.estimates) > 1]
    drawn = {plot.name for plot in plots}
    by = [plot.name for plot in plots if plot.name.startswith("by_")]
    sections = {
        "answer": "Answer",
        "results": "Results" if "results" in tables else "",
        "differences": "Differences" if matrices else "",
        "subgroups": "Where layers differ" if by or {"subgroups", "metrics"} & {*tables} else "",
        "costs": "Costs" if "costs" in tables else "",
        "context": "Context and longer sequences" if {"context", "extrapolation"} & {*tables} else "",
        "training": "Training" if {"learning", "sweep"} & drawn or "sweep" in tables else "",
        "hypotheses": "Hypotheses, written before the runs" if settings.hypotheses else "",
        "method": "Method",
        "reproduce": "Reproduce",
    }
    template = Environment(
        loader=PackageLoader("genoattn.comparison", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html.j2")
    return template.render(
        title=title(comparison),
        environment=f"{settings.task} · {environment(comparison)}",
        sections={name: head for name, head in sections.items() if head},
        answers=[(f"{result.length:,} bases", answer(comparison, result)) for result in results],
        missing=missing(comparison),
        metric=comparison.metric,
        matrices=matrices,
        tables=tables,
        by=by,
        pictures={plot.name: _picture(plot, pictures[plot.name]) for plot in plots},
        hypotheses=(settings.hypotheses or "").split("\n\n"),
        method=" ".join(method(comparison)),
        command=comparison.environment.command,
        versions=comparison.environment.versions,
    )


def title(comparison: Comparison) -> str:
    """The title of the page."""
    lengths = listed([f"{length:,}" for length in comparison.settings.lengths])
    return f"{comparison.settings.name}: {listed(comparison.layers)} at {lengths} bases"


def _picture(plot: Plot, png: bytes) -> _Picture:
    return _Picture(base64.b64encode(png).decode(), f"{plot.title}. {plot.caption} {plot.basis}.")


def _matrix(result: LengthResult) -> _Matrix:
    """Differences of all pairs, row minus column."""
    names = list(result.estimates)
    cells: dict[tuple[str, str], _Cell] = {}
    for pair in result.statistics.differences if result.statistics else ():
        p = f"p {p_value(pair.adjusted_p)}"
        cells[pair.first, pair.second] = _Cell(number(pair.mean, "+.3f"), p, pair.significant)
        cells[pair.second, pair.first] = _Cell(number(-pair.mean, "+.3f"), p, pair.significant)
    rows = [(name, [cells.get((name, other)) for other in names]) for name in names]
    return _Matrix(f"{result.length:,} bases", names, rows)
