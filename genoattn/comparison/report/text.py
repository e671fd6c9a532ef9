"""The sentences of a comparison, made from its values: the answer, missing runs, the method."""

from collections.abc import Sequence
from dataclasses import asdict

from genoattn.comparison.recommendation import Recommendation
from genoattn.comparison.record import BASELINE_LAYERS, Comparison, LengthResult, Stage
from genoattn.comparison.settings import Budget, Number
from genoattn.comparison.statistics import LayerComparison

INTERVAL = "95 % interval over seeds and genomic blocks"


NO_INTERVAL = "measured once, no interval"


def answer(comparison: Comparison, result: LengthResult) -> list[str]:
    """The result at one length: recommendation, baselines ahead, differences, Pareto front, learning rates."""
    if result.statistics is None:
        return []
    unlearned = not_learned(comparison, result)
    sentences = [recommendation(result.recommendation, result.statistics)] if result.recommendation else []
    if unlearned and not result.recommendation:
        sentences.append("No layer is recommended: none learned more than none, the layer without attention.")
    sentences += unlearned
    best = next(iter(result.estimates))
    mean = result.estimates[best].mean
    sentences += [
        f"The baseline {name} scores {baseline.mean:.3f}, above the best layer, {best} ({mean:.3f})."
        for name, baseline in result.baselines.items()
        if baseline.mean > mean
    ]
    sentences.append(differences(result.statistics))
    if result.pareto_front:
        sentences.append(f"Pareto front of quality and time to read: {listed(result.pareto_front)}.")
    for side in ("smallest", "largest"):
        layers = [layer for layer in result.layers if layer.learning_rate_edge == side]
        if layers:
            names, rate = listed([layer.layer for layer in layers]), layers[0].learning_rate
            sentences.append(
                f"The best learning rate of {names}, {rate:g}, is the {side} tried:"
                " a wider sweep may find a better one."
            )
    return sentences


def not_learned(comparison: Comparison, result: LengthResult) -> list[str]:
    """A sentence on the runs that learned no more than `none`, and one on layers that learned at no rate."""
    names = [f"{layer.layer} ({plural(layer.not_learned, 'seed')})" for layer in result.layers if layer.not_learned]
    sentences = [
        f"Did not learn within the budget of {_budget(comparison.settings.budget)}, no better than none:"
        f" {listed(names)}. These runs enter no verdict; they say nothing about longer training."
    ] * bool(names)
    rateless = [layer.layer for layer in result.layers if not layer.learning_rate_learned]
    if rateless:
        middle = next(layer.learning_rate for layer in result.layers if not layer.learning_rate_learned)
        sentences.append(f"No rate learned in the sweep of {listed(rateless)}: the middle one, {middle:g}, was taken.")
    return sentences


def recommendation(decision: Recommendation, statistics: LayerComparison) -> str:
    """The recommendation at one length."""
    limits = listed([_price(most, unit) for unit, most in asdict(decision.limit).items() if most is not None])
    within = f" within {limits}" if limits else ""
    price = "" if decision.amount is None else _price(decision.amount, decision.unit)
    if decision.best is None:
        if decision.cheapest is None:
            return "No layer is recommended: the cost of no layer is known."
        return f"No layer is recommended: none stays{within}; the cheapest, {decision.cheapest}, takes {price}."
    scored = {name: f"{name} ({estimate.mean:.3f})" for name, estimate in statistics.estimates.items()}
    if decision.ahead:
        verb = "is" if len(decision.ahead) == 1 else "are"
        return (
            f"No layer is recommended: {listed(decision.ahead)} {verb} ahead of every layer; the best of"
            f" {plural(decision.fitting, 'layer')}{within} is {scored[decision.best]}."
        )
    best, others = scored[decision.best], plural(decision.fitting, "layer") + within
    if decision.layer is None:
        return (
            f"No layer is recommended: the best of {others}, {best}, does not differ significantly from the baseline"
            f" layer {scored[decision.baseline or '']}; more seeds or longer training may separate them."
        )
    if decision.layer != decision.best:
        why = f"the cheapest ({price}) of those that do not differ significantly from the best of {others}, {best}"
    elif len(decision.equivalent) > 1:
        why = f"the best of {others}, and the cheapest ({price}) of those that do not differ significantly from it"
    else:
        why = f"the best of {others}, at {price}"
    sentence = f"Recommended: {scored[decision.layer]}: {why}."
    if decision.best in BASELINE_LAYERS:
        sentence += f" {decision.best} is a baseline layer: attention gains nothing here, or training was too short."
    return sentence


def differences(statistics: LayerComparison) -> str:
    """The significant differences between layers as sentences."""
    ranked = list(statistics.estimates)
    if len(ranked) == 1:
        return f"Only {ranked[0]} was run."
    ahead: dict[tuple[str, ...], list[str]] = {}  # by the layers that are behind
    for rank, name in enumerate(ranked):
        behind = tuple(other for other in ranked[rank + 1 :] if statistics.significant(name, other))
        if behind:
            ahead.setdefault(behind, []).append(name)
    clauses = [
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} significantly better than {listed(behind)}"
        for behind, names in ahead.items()
    ]
    clauses += [f"{listed(group)} do not differ significantly" for group in statistics.groups if len(group) > 1]
    single = [name for name, estimate in statistics.estimates.items() if estimate.seeds == 1]
    if len(single) == len(ranked):
        clauses.append("with one seed each, the effect of another seed is not known")
    elif single:
        have = "has one seed and is" if len(single) == 1 else "have one seed and are"
        clauses.append(f"{listed(single)} {have} assumed to vary between seeds as much as the layer that varies most")
    return "; ".join(clauses) + "."


def missing(comparison: Comparison) -> list[str]:
    """A sentence on every layer that lacks a run, and on every run that diverged."""
    sentences, settings = [], comparison.settings
    for length in settings.lengths:
        for layer in comparison.layers:
            place = f"{layer} at {length:,} bases"
            diverged = comparison.diverged_of("sweep", length, layer)
            tried = {run.learning_rate for run in (*comparison.runs_of("sweep", length, layer), *diverged)}
            untried = [rate for rate in settings.learning_rates if rate not in tried]
            sentences += [f"{place}: {sentence}" for sentence in _missing_seeds(comparison, length, layer)]
            if untried and len(settings.learning_rates) > 1:
                sentences.append(f"{place}: {plural(untried, 'learning rate')} not tried.")
            if diverged:
                rates = plural([run.learning_rate for run in diverged], "learning rate")
                sentences.append(f"{place}: training diverged at {rates}.")
    return sentences + [f"{place}: this run failed." for place in comparison.failed]


def _missing_seeds(comparison: Comparison, length: int, layer: str) -> list[str]:
    seeds = comparison.seeds_of(length, layer)
    diverged = [run.seed for run in comparison.diverged_of("final", length, layer)]
    lacking = [seed for seed in comparison.settings.seeds if seed not in (*seeds, *diverged)]
    sentences = [f"training diverged with {plural(diverged, 'seed')}."] if diverged else []
    if not seeds:
        return [*sentences, "no final run has a score."]
    return [*sentences, f"no score for {plural(lacking, 'seed')}."] if lacking else sentences


def basis(comparison: Comparison, stage: Stage = "final") -> str:
    """The runs and seeds that a plot shows."""
    runs = [run for run in comparison.runs if run.stage == stage]
    word = "final run" if stage == "final" else "run of the sweep"
    seeds = sorted({run.seed for run in runs})
    return f"n = {len(runs)} {word if len(runs) == 1 else word.replace('run', 'runs', 1)}; {plural(seeds, 'seed')}"


def method(comparison: Comparison) -> list[str]:
    """The origin of the results."""
    settings = comparison.settings
    sentences = ["All layers were trained on the same examples, in the same order, with the same budget."]
    sentences.append(f"Task: {settings.task}. Budget of a final run: {_budget(settings.budget)}.")
    if settings.budget.seconds is not None:
        sentences.append("Seconds were turned into training steps by timing each layer before the runs.")
    if len(settings.learning_rates) > 1:
        sentences.append(
            f"Learning rates {listed(settings.learning_rates)} were tried for {_budget(settings.sweep)} for each layer"
            " and length. The rate with the lowest validation loss was chosen, without the test set."
        )
    if settings.match_size:
        sentences.append(f"The models were matched in {settings.match_size} by the width of their MLPs.")
    return [
        *sentences,
        f"Final runs: {plural(settings.seeds, 'seed')}.",
        f"Quality is {comparison.metric} ({comparison.primary_metric}) on one test set for all runs. Its 95 % interval"
        " is Student's; the variance is that between seeds and that over resamples of genomic blocks, the same blocks"
        " for every layer. With one seed the interval covers blocks only.",
        "Two layers differ significantly if the p-value of their difference (Welch's test over seeds, blocks paired),"
        " corrected for the number of pairs by Holm's method, is at most 0.05. Layers in one group do not differ"
        " significantly; that does not make them equal. A layer may be in several groups.",
    ]


def environment(comparison: Comparison) -> str:
    """The machine of a comparison in a line."""
    made = comparison.environment
    return f"{made.processor}, {made.system}, {plural(made.threads, 'thread')} a run, {made.date}"


def listed(values: Sequence[object]) -> str:
    """Values in a row: a, b and c."""
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def plural(values: int | Sequence[object], noun: str) -> str:
    """A count or values with their noun: 1 thread, 2 threads, seed 0, seeds 0 and 1."""
    if isinstance(values, int):
        return f"{values:,} {noun}{'s' * (values != 1)}"
    return f"{noun}{'s' * (len(values) != 1)} {listed(values)}"


def _budget(budget: Budget) -> str:
    if budget.seconds is not None:
        return f"{budget.seconds:,g} seconds"
    return plural(budget.steps, "step") if budget.steps is not None else f"{budget.bases:,} bases"


def _price(amount: Number, unit: str) -> str:
    if unit == "seconds":
        return f"{amount:.3g} s to read a million bases"
    return f"{amount / 2**20:,.0f} MiB of memory in training"
