"""The finer tables of a comparison: other measures, strata, context, extrapolation, the sweep."""

from collections.abc import Mapping

from genoattn.comparison.content import layers, lengths, measure, of, runs
from genoattn.comparison.tables import costs, differences, interval, number, results
from genoattn.report import Sheet


def every(comparison: Mapping) -> dict[str, Sheet]:
    """All tables that have a row, by name."""
    made = {
        "results": results,
        "differences": differences,
        "measures": measures,
        "strata": strata,
        "costs": costs,
        "crossovers": crossovers,
        "context": context,
        "extrapolation": extrapolation,
        "sweep": sweep,
    }
    sheets = {name: make(comparison) for name, make in made.items()}
    return {name: sheet for name, sheet in sheets.items() if sheet.rows}


def measures(comparison: Mapping) -> Sheet:
    """Every figure of the exam, by layer."""
    found = [(length, of(comparison, "measures", length)) for length in lengths(comparison)]
    rows = [
        [f"{length:,}", layer, key.removeprefix("test/"), interval(value)]
        for length, named in found
        for layer, figures in named.items()
        for key, value in figures.items()
    ]
    return Sheet("Every measure", ["length", "layer", "measure", "mean [95 %]"], rows, texts=3)


def strata(comparison: Mapping) -> Sheet:
    """The headline over parts of the test set."""
    rows = []
    for length in lengths(comparison):
        for layer, parts in of(comparison, "strata", length).items():
            for one in parts:
                value = interval(one, low="ci_low", high="ci_high")
                count = number(one.get("count"))
                rows.append([f"{length:,}", layer, one["by"], one["name"], one.get("kind") or "all", count, value])
    columns = ["length", "layer", "by", "part", "kind", "n", f"{measure(comparison)} [95 %]"]
    return Sheet("Parts of the test set", columns, rows, texts=5)


def crossovers(comparison: Mapping) -> Sheet:
    """The lengths from which one layer is cheaper than another."""
    found = comparison.get("crossovers") or []
    rows = [[one["cheaper"], one["than"], one["what"], number(one.get("length"))] for one in found]
    return Sheet("Crossovers", ["cheaper", "than", "what", "from length"], rows, texts=3)


def context(comparison: Mapping) -> Sheet:
    """How far a changed base is felt: as the layers are built (any: no bound), and as measured."""
    rows = [
        [
            f"{length:,}",
            layer,
            "any" if found.get("nominal") is None else number(found["nominal"]),
            number(found.get("effective")),
        ]
        for length in lengths(comparison)
        for layer, found in of(comparison, "context", length).items()
    ]
    return Sheet("Context in bases", ["length", "layer", "nominal", "effective"], rows, texts=2)


def extrapolation(comparison: Mapping) -> Sheet:
    """Quality at lengths beyond the trained one."""
    rows = [
        [f"{length:,}", layer, number(one["length"]), interval(one)]
        for length in lengths(comparison)
        for layer, found in of(comparison, "extrapolation", length).items()
        for one in found
    ]
    columns = ["trained length", "layer", "evaluated length", f"{measure(comparison)} [95 %]"]
    return Sheet("Beyond the trained length", columns, rows, texts=2)


def sweep(comparison: Mapping) -> Sheet:
    """Validation loss of every learning rate that was tried."""
    rows = []
    for length in lengths(comparison):
        for layer in layers(comparison):
            best = of(comparison, "chosen", length).get(layer)
            for one in sorted(
                runs(comparison, "sweep", length, layer), key=lambda run: (run["lr"], run.get("seed", 0))
            ):
                chosen = "yes" if one["lr"] == best else "no"
                loss = number(one.get("validation_loss"), ".4f")
                rows.append([f"{length:,}", layer, chosen, f"{one['lr']:g}", str(one.get("seed", "–")), loss])
    columns = ["length", "layer", "chosen", "learning rate", "seed", "validation loss"]
    return Sheet("Learning rates", columns, rows, texts=3)
