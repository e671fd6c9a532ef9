"""The page of a comparison, from report.html.j2."""

import base64
from collections.abc import Mapping, Sequence

from genoattn.comparison.record import Comparison
from genoattn.comparison.report.ladder_text import growth, ladder_method
from genoattn.comparison.report.style import Plot
from genoattn.comparison.report.tables import all_tables, number, p_value
from genoattn.comparison.report.text import answer, environment, listed, method, missing
from genoattn.evaluation.page import render


def page(comparison: Comparison, plots: Sequence[Plot], pictures: Mapping[str, bytes]) -> str:
    """The whole page; `pictures` are PNG files by the name of the plot."""
    tables, settings = all_tables(comparison), comparison.settings
    results = [result for result in comparison.results if result.statistics]
    matrices = [result for result in results if len(result.estimates) > 1]
    by = [plot.name for plot in plots if plot.name.startswith("by_")]
    sections = {
        "answer": "Answer",
        "results": "Results" if "results" in tables else "",
        "ladder": "Ladder" if "ladder" in tables else "",
        "differences": "Differences" if matrices else "",
        "subgroups": "Where layers differ" if by or {"subgroups", "metrics"} & {*tables} else "",
        "costs": "Costs" if "costs" in tables else "",
        "context": "Context and longer sequences" if {"context", "lengths"} & {*tables} else "",
        "training": "Training" if {"learning", "sweep"} & {*pictures} or "sweep" in tables else "",
        "hypotheses": "Hypotheses, written before the runs" if settings.hypotheses else "",
        "method": "Method",
        "reproduce": "Reproduce",
    }
    return render(
        "genoattn.comparison",
        "report/report.html.j2",
        {"number": number, "p_value": p_value},
        title=title(comparison),
        subtitle=f"{settings.task} · {environment(comparison)}",
        sections={name: head for name, head in sections.items() if head},
        answers=[(f"{result.length:,} bases", answer(comparison, result)) for result in results],
        missing=missing(comparison),
        metric=comparison.metric,
        growth=growth(comparison.ladder) if comparison.ladder else "",
        matrices=matrices,
        tables=tables,
        by=by,
        plots={plot.name: (plot, base64.b64encode(pictures[plot.name]).decode()) for plot in plots},
        hypotheses=(settings.hypotheses or "").split("\n\n"),
        method=" ".join([*method(comparison), *ladder_method(comparison)]),
        made=comparison.environment,
    )


def title(comparison: Comparison) -> str:
    """The title of the page."""
    lengths = listed([f"{length:,}" for length in comparison.settings.lengths])
    return f"{comparison.settings.name}: {listed(comparison.layers)} at {lengths} bases"
