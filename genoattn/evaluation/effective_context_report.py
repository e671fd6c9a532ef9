"""To be said in a sentence."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from genoattn.evaluation.effective_context import EffectCurve, Effects, both, curve_of, effective_context, nearby_effect
from genoattn.evaluation.report import Table
from genoattn.files import save_figure

FILE = "context.json"
"""Its name in a run folder."""


def summary(seen: Effects, bounds: tuple[int | None, int | None], threshold: float) -> dict:
    """What context.json holds. Distances are bases of the context, a separator being one more.

    `nominal` is the farthest base that can change an answer (null: any), `effective` the largest distance at which one
    does, on either side; `curve` is of the larger side, rows of distance, change and the interval over windows.
    """
    whole = curve_of(seen.distances, both(seen))
    beside = nearby_effect(whole)
    sides = {"left": curve_of(seen.distances, seen.left), "right": curve_of(seen.distances, seen.right)}
    reached = {side: effective_context(curve, beside, threshold, seen.noise) for side, curve in sides.items()}
    curves = {"curve": whole, **{f"curve_{side}": curve for side, curve in sides.items()}}
    return {
        "nominal": None if None in bounds else max(side for side in bounds if side is not None),
        "nominal_left": bounds[0],
        "nominal_right": bounds[1],
        "effective": max(reached.values()),
        **reached,
        "threshold": threshold,
        "near": beside,
        "noise": seen.noise,
        "windows": len(seen.left),
        **{name: _rows(curve) for name, curve in curves.items()},
    }


def _rows(curve: EffectCurve) -> list[tuple[int, float, float, float]]:
    return list(zip(*(column.tolist() for column in curve), strict=True))


def describe(found: Mapping, threshold: float) -> str:
    """The findings as a sentence."""
    bound = "no bound" if found["nominal"] is None else f"{found['nominal']:,} bases at most"
    return (
        f"nominal context: {bound}; effective: {found['effective']:,} bases ({found['left']:,} to the left,"
        f" {found['right']:,} to the right), where a base still changes an answer by more than {threshold:.1%} of what"
        f" the nearest do ({found['near']:.3g} in logits; rounding alone {found['noise']:.1g})"
    )


def effect_table(seen: Effects, title: str) -> Table:
    """The change at each distance, to the left and to the right, with its interval over windows."""
    sides = [
        {row[0]: f"{row[1]:.2e} [{row[2]:.2e}–{row[3]:.2e}]" for row in _rows(curve_of(seen.distances, side))}
        for side in (seen.left, seen.right)
    ]
    held = sorted(set(sides[0]) | set(sides[1]))
    rows = [[f"{int(one):,}", *(side.get(one, "–") for side in sides)] for one in held]
    return Table(title, ("distance (bases)", "to the left [95 %]", "to the right [95 %]"), rows)


def plot(seen: Effects, found: Mapping, name: str, file: Path) -> None:
    """Change against distance on both sides, with the nominal and the effective context."""
    figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
    floor = max(seen.noise, 1e-9)
    for number, (side, rows) in enumerate((("left", seen.left), ("right", seen.right))):
        curve = curve_of(seen.distances, rows)
        at, change, low, high = (part.clip(floor if turn else 0) for turn, part in enumerate(curve))
        panel.plot(at, change, "o-s-"[2 * number : 2 * number + 2], ms=3, label=f"a base to the {side}")
        panel.fill_between(at, low, high, alpha=0.25)
    panel.axhline(
        found["threshold"] * found["near"], color="0.5", ls=":", label=f"{found['threshold']:.1%} of the nearest"
    )
    if found["effective"]:
        panel.axvline(found["effective"], color="k", label=f"effective: {found['effective']:,}")
    if found["nominal"]:
        panel.axvline(found["nominal"], color="k", ls="--", label=f"nominal: {found['nominal']:,}")
    panel.set(xscale="log", yscale="log", xlabel="distance (bases)", ylabel="change of an answer (logits)")
    panel.set_title(f"attention={name}, {found['windows']} windows, mean and 95 % interval over them", fontsize=9)
    panel.legend(fontsize=8)
    save_figure(figure, file)
