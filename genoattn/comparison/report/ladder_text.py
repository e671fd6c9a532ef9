"""The sentences of a comparison on its power and on its ladder."""

from genoattn.comparison.ladder import Ladder
from genoattn.comparison.power import POWER, detectable_difference, pooled_spread
from genoattn.comparison.record import Comparison, LengthResult
from genoattn.comparison.report.text import listed, plural
from genoattn.comparison.settings import ComparisonSettings


def power_before(settings: ComparisonSettings, layers: int) -> str:
    """The difference that a comparison can find with its seeds, said before its runs."""
    seeds, pairs = len(settings.seeds), layers * (layers - 1) // 2
    if seeds < 2:
        return "power: with one seed no difference between layers can be told from that between seeds"
    design = f"power: {plural(seeds, 'seed')}, {plural(pairs, 'pair')}"
    if settings.spread:
        return (
            f"{design}: a difference of {detectable_difference(settings.spread, seeds, pairs):.3f} is found in"
            f" {POWER:.0%} of cases, if seeds vary as in the former comparison (standard deviation"
            f" {settings.spread:.3f})"
        )
    return (
        f"{design}: a difference of {detectable_difference(1.0, seeds, pairs):.1f} standard deviations between seeds is"
        f" found in {POWER:.0%} of cases; former=… tells this deviation"
    )


def power_after(comparison: Comparison, result: LengthResult) -> list[str]:
    """The difference that was likely to be found, from the spread of the seeds of the comparison itself."""
    estimates = result.estimates
    spread = pooled_spread({name: estimate.values for name, estimate in estimates.items()})
    pairs = len(estimates) * (len(estimates) - 1) // 2
    found = detectable_difference(spread, len(comparison.settings.seeds), pairs) if spread and pairs else None
    if found is None or spread is None:
        return []
    return [
        f"At {result.length:,} bases seeds of a layer varied by {spread:.3f} (standard deviation): a difference of"
        f" {found:.3f} had a chance of {POWER:.0%} to be found, a smaller one less."
    ]


def ladder_method(comparison: Comparison) -> list[str]:
    """The power of a comparison, and the origin of the measures of its ladder."""
    sentences = [sentence for result in comparison.results for sentence in power_after(comparison, result)]
    ladder = comparison.ladder
    if ladder is None:
        return sentences
    lengths = listed([f"{length:,}" for length in ladder.lengths])
    return [
        *sentences,
        f"Every layer was trained on windows of mixed lengths, at equal tokens, and tested at {lengths} bases.",
        f"n90 and n50 are the largest lengths at which 0.9 and 0.5 of the way from none to {ladder.ceiling:g} are"
        " covered, interpolated in the logarithm of the length; < and > stand for lengths beyond the ladder. Each is"
        " the median over seeds, in which such values count as beyond all others; so is the time to learn.",
        "Capacity is the share of letters under as many random keys as a window has bases that an ideal reader tells"
        " from one untrained layer. FLOPs are three forward passes over all tokens, at the longest length.",
    ]


def growth(ladder: Ladder) -> str:
    """The exponent of n50 against state, and the layers that it rests on."""
    slope = ladder.exponent
    if slope is None:
        return "Too few layers have an n50 inside the ladder to tell how it grows with the state."
    return (
        f"Over {listed(slope.layers)}, n50 grows with the state to the power {slope.slope:.2f}"
        f" [95 %: {slope.low:.2f} to {slope.high:.2f}]."
    )
