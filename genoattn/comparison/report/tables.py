"""The tables of a comparison, each as text and as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple

from genoattn.comparison.ladder import Crossing, LadderRow, median
from genoattn.comparison.record import Comparison, DivergedRun, LayerResult, LengthResult
from genoattn.comparison.settings import Number
from genoattn.comparison.statistics import Difference, Estimate
from genoattn.evaluation.report import Table

MEBI = 2**20


COSTS = (
    ("parameters", ",.0f", 1),
    ("GFLOP of attention", ",.4g", 1e9),
    ("state KiB", ",.1f", 1024),
    ("s a step", ",.4f", 1),
    ("bases/s training", ",.0f", 1),
    ("bases/s forward", ",.0f", 1),
    ("peak MiB training", ",.0f", MEBI),
    ("peak MiB forward", ",.0f", MEBI),
    ("MiB before", ",.0f", MEBI),
    ("GFLOP of the model", ",.4g", 1e9),
)
"""Heading, format and unit of the fields of `LayerCost`, in their order."""


def number(value: Number | None, form: str = ",.0f", unit: Number = 1, none: str = "–") -> str:
    """A number as a cell; `none` if it is not known."""
    return none if value is None else f"{value / unit:{form}}".replace("-", "−")


def interval(estimate: Estimate | Difference | None, form: str = ".3f") -> str:
    """A mean with its 95 % interval as a cell."""
    if estimate is None:
        return "–"
    dash = " to " if "+" in form else "–"
    low, high = number(estimate.low, form), number(estimate.high, form)
    return f"{number(estimate.mean, form)} [{low}{dash}{high}]"


def p_value(p: float) -> str:
    """A p-value as a cell."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


SUMMARY = (
    *("length", "layer", "groups", "metric", "mean", "low", "high", "seeds", "learning_rate", "steps"),
    *("train_seconds", "parameters", "attention_flops", "attention_state_bytes", "seconds_per_step"),
    *("training_bases_per_second", "forward_bases_per_second", "training_memory_bytes", "forward_memory_bytes"),
    *("theoretical_context", "effective_context", "seeds_not_learned"),
)


def summary(comparison: Comparison) -> tuple[Sequence[str], list[list[object]]]:
    """Columns and rows of comparison.csv: a row for every layer and length, the best first; None: not known."""
    return SUMMARY, [_summary(comparison, result, layer) for result, layer in comparison.layer_results]


def _summary(comparison: Comparison, result: LengthResult, layer: LayerResult) -> list[object]:
    length, name = result.length, layer.layer
    estimate, cost, context = result.estimates.get(name), comparison.cost(name, length), layer.context
    final = comparison.runs_of("final", length, name)
    seconds = [run.train_seconds for run in final if run.train_seconds is not None]
    return [
        *(length, name, " ".join(map(str, result.ranks(name))), comparison.primary_metric),
        *((estimate.mean, estimate.low, estimate.high) if estimate else (None, None, None)),
        *(len(comparison.seeds_of(length, name)), layer.learning_rate, final[0].steps if final else None),
        *(sum(seconds) / len(seconds) if seconds else None, *astuple(cost)[2:8]),
        *(cost.training_memory, cost.forward_memory),
        *((context.theoretical, context.effective) if context else (None, None)),
        len(layer.not_learned),
    ]


def results(comparison: Comparison) -> Table:
    """A row for each layer and length, the best first, then the baselines of the length."""
    columns = ["length", "layer", "groups", f"{comparison.metric} [95 %]", "seeds", "learning rate", "parameters"]
    columns += ["bases/s training", "bases/s forward", "MiB training", "MiB forward", "effective context"]
    rows, wanted = [], len(comparison.settings.seeds)
    for result in comparison.results:
        length = f"{result.length:,}"
        for layer in result.layers:
            name, cost = layer.layer, comparison.cost(layer.layer, result.length)
            seeds = len(comparison.seeds_of(result.length, name))
            score, missed = result.estimates.get(name), len(layer.not_learned)
            cells = [length, name, ", ".join(map(str, result.ranks(name))) or "–"]
            cells += ["did not learn" if score is None and missed else interval(score)]
            cells += [f"{seeds} of {wanted}" if seeds < wanted else str(seeds)]
            cells[-1] += f" ({missed} did not learn)" * bool(missed)
            mark = " (edge)" * bool(layer.learning_rate_edge) + " (none learned)" * (not layer.learning_rate_learned)
            cells += [number(layer.learning_rate, "g") + mark]
            cells += map(number, (cost.parameters, cost.training_bases_per_second, cost.forward_bases_per_second))
            cells += [number(memory, ",.1f", MEBI) for memory in (cost.training_memory, cost.forward_memory)]
            rows.append([*cells, number(layer.context.effective if layer.context else None)])
        for name, estimate in result.baselines.items():
            rows.append([length, f"{name} (baseline)", "–", interval(estimate), *["–"] * (len(columns) - 4)])
    return Table("Results", columns, rows, texts=2, numbers=summary(comparison))


def differences(comparison: Comparison) -> Table:
    """Every pair of layers."""
    columns = ["length", "layers", "significant", f"difference in {comparison.metric} [95 %]", "p", "corrected p"]
    names = ["length", "first", "second", "mean", "low", "high", "p", "adjusted_p", "significant"]
    rows, numbers = [], []
    for result in comparison.results:
        for pair in result.statistics.differences if result.statistics else ():
            words = [f"{result.length:,}", f"{pair.first} − {pair.second}", "yes" if pair.significant else "no"]
            rows.append([*words, interval(pair, "+.3f"), p_value(pair.p), p_value(pair.adjusted_p)])
            numbers.append([result.length, *astuple(pair)])
    return Table("Differences", columns, rows, texts=3, numbers=(names, numbers))


def metrics(comparison: Comparison) -> Table:
    """Every resampled metric, by layer."""
    rows = [
        [f"{result.length:,}", layer.layer, key.partition("/")[2], interval(estimate)]
        for result, layer in comparison.layer_results
        for key, estimate in layer.metrics.items()
    ]
    return Table("All metrics", ["length", "layer", "metric", "mean [95 %]"], rows, texts=3)


def subgroups(comparison: Comparison) -> Table:
    """The primary metric over parts of the test set."""
    rows = []
    for result, layer in comparison.layer_results:
        for group in layer.subgroups:
            words = [f"{result.length:,}", layer.layer, group.by, group.name, group.kind or "all"]
            rows.append([*words, number(group.count), interval(group.estimate)])
    columns = ["length", "layer", "by", "subgroup", "kind", "n", f"{comparison.metric} [95 %]"]
    return Table("Subgroups of the test set", columns, rows, texts=5)


def costs(comparison: Comparison) -> Table:
    """The cost of every layer at each length; peaks are those of the whole process."""
    rows, numbers = [], []
    for cost in sorted(comparison.costs, key=lambda cost: cost.length):
        values = astuple(cost)[2:]
        cells = [number(value, form, unit) for value, (_, form, unit) in zip(values, COSTS, strict=True)]
        rows.append([f"{cost.length:,}", cost.layer, *cells])
        numbers.append([cost.length, cost.layer, *values])
    columns = ["length", "layer", *(name for name, _, _ in COSTS)]
    return Table("Costs", columns, rows, texts=2, numbers=(columns, numbers))


def crossovers(comparison: Comparison) -> Table:
    """The lengths from which one layer is cheaper than another."""
    rows = [[row.cheaper, row.than, row.stage, number(row.length)] for row in comparison.crossovers]
    return Table("Crossovers of cost", ["cheaper", "than", "pass", "from length"], rows, texts=3)


def context(comparison: Comparison) -> Table:
    """The distances at which a changed base is felt."""
    rows = [
        [
            f"{result.length:,}",
            layer.layer,
            number(distances.theoretical, none="unbounded"),
            number(distances.effective),
        ]
        for result, layer in comparison.layer_results
        if (distances := layer.context)
    ]
    return Table("Context in bases", ["length", "layer", "receptive field", "effective context"], rows, texts=2)


def lengths(comparison: Comparison) -> Table:
    """Quality by length of the test windows, and AUPRC by kind of mutation where there is one."""
    rows, subsets = [], ("snv", "insertion", "deletion")
    for result, layer in comparison.layer_results:
        for length, estimate in layer.by_length.items():
            test_set = "test" if length == result.length else f"test_{length}"
            kinds = [interval(layer.metrics.get(f"model/{test_set}/{subset}/auprc")) for subset in subsets]
            rows.append([f"{result.length:,}", layer.layer, number(length), interval(estimate), *kinds])
    name = comparison.ladder.metric if comparison.ladder else comparison.metric
    columns = ["trained length", "layer", "tested length", f"{name} [95 %]", *(f"AUPRC, {kind}" for kind in subsets)]
    return Table("By length of the test windows", columns, rows, texts=2)


def ladder(comparison: Comparison) -> Table:
    """The measures of a ladder, the layer with the longest n50 first; a range over seeds in brackets."""
    steps = comparison.ladder
    columns = ["layer", "groups", "n90", "n50", "tokens to learn", "s to learn", "state KiB", "TFLOP", "s of training"]
    if steps is None:
        return Table("Ladder", columns, [])
    columns += [f"{steps.metric} at {length:,}" for length in steps.lengths]
    by_layer = {layer.layer: layer.by_length for result, layer in comparison.layer_results}
    rows = []
    for row in sorted(steps.rows, key=longest_first):
        curve = by_layer.get(row.layer, {})
        rows.append(
            [
                row.layer,
                ", ".join(map(str, comparison.results[-1].ranks(row.layer))) or "–",
                *(crossings(own) for own in (row.solved["n90"], row.solved["n50"], row.tokens_to_learn)),
                *(crossings(row.seconds_to_learn), number(row.state_bytes, ",.1f", 1024)),
                *(number(row.flops, ",.3g", 1e12), number(row.seconds)),
                *(number(curve[length].mean, ".3f") if length in curve else "–" for length in steps.lengths),
            ]
        )
    tokens = max((row.tokens for row in steps.rows if row.tokens), default=None)
    return Table(f"Ladder: {number(tokens)} tokens of training each", columns, rows, texts=2)


def longest_first(row: LadderRow) -> tuple[float, float]:
    """A key that sorts layers by n50, then by n90, the longest first."""
    middle = [median(row.solved[name]) for name in ("n50", "n90")]
    first, second = (-crossing.rank if crossing else 0.0 for crossing in middle)
    return first, second


def crossings(values: Sequence[Crossing]) -> str:
    """The median of the seeds, and the lowest and the highest if they differ."""
    if (middle := median(values)) is None:
        return "–"
    ranked = [str(crossing) for crossing in sorted(values, key=lambda crossing: (crossing.rank, crossing.value))]
    return str(middle) if ranked[0] == ranked[-1] else f"{middle} [{ranked[0]} to {ranked[-1]}]"


def sweep(comparison: Comparison) -> Table:
    """Validation loss at every learning rate, or the step at which the run diverged."""
    tried = {(run.length, run.layer, run.learning_rate): run for run in comparison.runs if run.stage == "sweep"}
    tried |= {(run.length, run.layer, run.learning_rate): run for run in comparison.diverged if run.stage == "sweep"}
    order = {layer: number for number, layer in enumerate(comparison.layers)}
    rows = []
    for run in sorted(
        tried.values(), key=lambda run: (run.length, order.get(run.layer, len(order)), run.learning_rate)
    ):
        chosen = comparison.learning_rates.get((run.layer, run.length)) == run.learning_rate
        words = [f"{run.length:,}", run.layer, "yes" if chosen else "no", f"{run.learning_rate:g}", str(run.seed)]
        loss = diverged(run) if isinstance(run, DivergedRun) else number(run.validation_loss, ".4f")
        rows.append([*words, loss])
    columns = ["length", "layer", "chosen", "learning rate", "seed", "validation loss"]
    return Table("Learning rates", columns, rows, texts=3)


def diverged(run: DivergedRun) -> str:
    """A diverged run as a cell."""
    return "diverged" if run.at_step is None else f"diverged at step {run.at_step:,}"


def all_tables(comparison: Comparison) -> Mapping[str, Table]:
    """All tables with at least one row, by name."""
    makers = (results, ladder, differences, metrics, subgroups, costs, crossovers, context, lengths, sweep)
    tables = {maker.__name__: maker(comparison) for maker in makers}
    return {name: table for name, table in tables.items() if table.rows}
