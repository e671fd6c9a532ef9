"""The tables of a comparison, each as words to be read and as numbers to be used."""

from collections.abc import Mapping, Sequence
from typing import Any

from genoattn.comparison.report.record import estimates, layers, lengths, measure, of, ranked, ranks, runs, seeds
from genoattn.evaluation.report import Table

MEBI = 2**20


COSTS = (
    "parameters",
    "attention_flops",
    "attention_state_bytes",
    "training_bases_per_second",
    "forward_bases_per_second",
    "seconds_per_step",
    "training_peak_bytes",
    "forward_peak_bytes",
)
"""The keys of a layer's costs at a length."""


def number(value: int | float | None, form: str = ",.0f", scale: int | float = 1) -> str:
    """A cell; a dash where there is no figure."""
    return "–" if value is None else f"{value / scale:{form}}".replace("-", "−")


def interval(found: Mapping[str, Any] | None, form: str = ".3f", low: str = "low", high: str = "high") -> str:
    """A mean with its 95 % interval, as far as they are known."""
    if not found or found.get("mean") is None:
        return "–"
    if found.get(low) is None or found.get(high) is None:
        return number(found["mean"], form)
    dash = " to " if "+" in form else "–"
    return f"{number(found['mean'], form)} [{number(found[low], form)}{dash}{number(found[high], form)}]"


def records(comparison: Mapping) -> list[dict[str, Any]]:
    """A row for every layer and length, as it stands in comparison.csv; None: not known."""
    return [
        _record(comparison, length, layer) for length in lengths(comparison) for layer in ranked(comparison, length)
    ]


def _record(comparison: Mapping, length: int, layer: str) -> dict[str, Any]:
    found = estimates(comparison, length).get(layer) or {}
    finals = runs(comparison, "final", length, layer)
    cost = of(comparison, "costs", length).get(layer) or {}
    context = of(comparison, "context", length).get(layer) or {}
    return {
        "length": length,
        "layer": layer,
        "ranks": " ".join(map(str, ranks(comparison, length, layer))),
        "measure": comparison.get("headline"),
        **{key: found.get(key) for key in ("mean", "low", "high")},
        "n": len(seeds(comparison, length, layer)),
        "seeds": " ".join(map(str, seeds(comparison, length, layer))),
        "learning_rate": of(comparison, "chosen", length).get(layer),
        **{f"mean_{key}": _mean([one.get(key) for one in finals]) for key in ("train_seconds", "steps", "bases")},
        **{key: cost.get(key) for key in COSTS},
        "nominal_context": context.get("nominal"),
        "effective_context": context.get("effective"),
    }


def _mean(values: Sequence[int | float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def results(comparison: Mapping) -> Table:
    """A line a layer and length, the best first, and under them the references."""
    rows, plain = [], []
    asked = len(comparison.get("seeds") or [])
    for record in records(comparison):
        plain.append(list(record.values()))
        cells = _cells(record)
        cells[4] = f"{record['n']} of {asked}" if record["n"] < asked else cells[4]
        rows.append(cells)
    width = len(RESULTS) - 4
    for length in lengths(comparison):
        for name, found in of(comparison, "baselines", length).items():
            at = max((place for place, row in enumerate(rows) if row[0] == f"{length:,}"), default=len(rows) - 1) + 1
            rows.insert(at, [f"{length:,}", f"{name} (reference)", "–", interval(found), *["–"] * width])
    columns = [column.format(measure(comparison)) for column in RESULTS]
    numbers = (list(_record(comparison, 0, "")), plain)
    return Table("Results", columns, rows, texts=2, numbers=numbers)


RESULTS = (
    "length",
    "layer",
    "rank groups",
    "{} [95 %]",
    "seeds",
    "learning rate",
    "parameters",
    "training s",
    "bases/s training",
    "bases/s forward",
    "peak MiB training",
    "peak MiB forward",
    "effective context",
)


def _cells(record: Mapping[str, Any]) -> list[str]:
    return [
        f"{record['length']:,}",
        record["layer"],
        record["ranks"].replace(" ", ", ") or "–",
        interval(record),
        str(record["n"]),
        number(record["learning_rate"], "g"),
        number(record["parameters"]),
        number(record["mean_train_seconds"], ",.1f"),
        number(record["training_bases_per_second"]),
        number(record["forward_bases_per_second"]),
        number(record["training_peak_bytes"], ",.1f", MEBI),
        number(record["forward_peak_bytes"], ",.1f", MEBI),
        number(record["effective_context"]),
    ]


def differences(comparison: Mapping) -> Table:
    """Every pair of layers, whether they are told apart, and how surely."""
    columns = ["length", "layers", "told apart", f"difference in {measure(comparison)} [95 %]", "p", "corrected p"]
    keys = ("first", "second", "mean", "low", "high", "p", "adjusted", "significant")
    rows, plain = [], []
    for length in lengths(comparison):
        for one in of(comparison, "verdicts", length).get("differences") or []:
            apart = "yes" if one.get("significant") else "no"
            chances = [number(one.get(key), ".4f") for key in ("p", "adjusted")]
            name = f"{one['first']} − {one['second']}"
            rows.append([f"{length:,}", name, apart, interval(one, "+.3f"), *chances])
            plain.append([length, *(one.get(key) for key in keys)])
    return Table("Differences", columns, rows, texts=3, numbers=(["length", *keys], plain))


def costs(comparison: Mapping) -> Table:
    """What each layer costs at each length that was measured or predicted."""
    columns = ["length", "layer", "parameters", "GFLOPs of attention", "state KiB", "bases/s training"]
    columns += ["bases/s forward", "s a step", "peak MiB training", "peak MiB forward"]
    forms = ((",.0f", 1), (",.4g", 1e9), (",.1f", 1024), (",.0f", 1), (",.0f", 1), (",.4f", 1))
    forms += ((",.1f", MEBI), (",.1f", MEBI))
    rows, plain = [], []
    for length, found in sorted((comparison.get("costs") or {}).items(), key=lambda item: int(item[0])):
        for layer, cost in found.items():
            cells = [number(cost.get(key), *form) for key, form in zip(COSTS, forms, strict=True)]
            rows.append([f"{int(length):,}", layer, *cells])
            plain.append([int(length), layer, *(cost.get(key) for key in COSTS)])
    return Table("Costs", columns, rows, texts=2, numbers=(["length", "layer", *COSTS], plain))


def every(comparison: Mapping) -> dict[str, Table]:
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


def measures(comparison: Mapping) -> Table:
    """Every figure of the exam, by layer."""
    found = [(length, of(comparison, "measures", length)) for length in lengths(comparison)]
    rows = [
        [f"{length:,}", layer, key.removeprefix("model/").removeprefix("test/"), interval(value)]
        for length, named in found
        for layer, figures in named.items()
        for key, value in figures.items()
    ]
    return Table("Every measure", ["length", "layer", "measure", "mean [95 %]"], rows, texts=3)


def strata(comparison: Mapping) -> Table:
    """The headline over parts of the test set."""
    rows = []
    for length in lengths(comparison):
        for layer, parts in of(comparison, "strata", length).items():
            for one in parts:
                value = interval(one, low="ci_low", high="ci_high")
                count = number(one.get("count"))
                rows.append([f"{length:,}", layer, one["by"], one["name"], one.get("kind") or "all", count, value])
    columns = ["length", "layer", "by", "part", "kind", "n", f"{measure(comparison)} [95 %]"]
    return Table("Parts of the test set", columns, rows, texts=5)


def crossovers(comparison: Mapping) -> Table:
    """The lengths from which one layer is cheaper than another."""
    found = comparison.get("crossovers") or []
    rows = [[one["cheaper"], one["than"], one["what"], number(one.get("length"))] for one in found]
    return Table("Crossovers", ["cheaper", "than", "what", "from length"], rows, texts=3)


def context(comparison: Mapping) -> Table:
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
    return Table("Context in bases", ["length", "layer", "nominal", "effective"], rows, texts=2)


def extrapolation(comparison: Mapping) -> Table:
    """Quality at lengths beyond the trained one."""
    rows = [
        [f"{length:,}", layer, number(one["length"]), interval(one)]
        for length in lengths(comparison)
        for layer, found in of(comparison, "extrapolation", length).items()
        for one in found
    ]
    columns = ["trained length", "layer", "evaluated length", f"{measure(comparison)} [95 %]"]
    return Table("Beyond the trained length", columns, rows, texts=2)


def sweep(comparison: Mapping) -> Table:
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
    return Table("Learning rates", columns, rows, texts=3)
