"""The report of an effective context: context.json, a table, a plot and a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from genoattn.evaluation.base import TEST
from genoattn.evaluation.effective_context import (
    EffectCurve,
    Effects,
    ReceptiveField,
    effect_curve,
    effective_context,
    nearby_effect,
)
from genoattn.evaluation.metrics import MetricKey, Metrics
from genoattn.evaluation.report import Table, panel_in
from genoattn.files import write_json

FILE = "context.json"
"""Its name in a run folder."""

SIDES = ("left", "right")


@dataclass(frozen=True)
class ContextResult:
    """The effective context of a model; distances are bases of the context, with the separator as one more."""

    attention: str
    length: int
    """Bases of the tested windows."""
    trained_length: int
    theoretical: ReceptiveField
    effects: Effects
    threshold: float
    """A change counts from this share of the changes nearby."""

    @cached_property
    def curves(self) -> list[EffectCurve]:
        """The curves of the left and of the right side."""
        return [effect_curve(self.effects.distances, side) for side in (self.effects.left, self.effects.right)]

    @cached_property
    def larger(self) -> EffectCurve:
        """The curve of the larger change of both sides."""
        return effect_curve(self.effects.distances, self.effects.larger)

    @property
    def nearby(self) -> float:
        """The largest change with a base nearby, on either side."""
        return nearby_effect(self.larger)

    @cached_property
    def sides(self) -> list[int]:
        """The effective context to the left and to the right."""
        return [effective_context(curve, self.nearby, self.threshold, self.effects.noise) for curve in self.curves]

    @property
    def effective(self) -> int:
        """The effective context of the side that reaches farther."""
        return max(self.sides)

    @property
    def at_least(self) -> bool:
        """True if the farthest distance tested on a side still has an effect and could be surpassed."""
        ends = [int(curve.distances[-1]) if len(curve.distances) else 0 for curve in self.curves]
        return any(
            0 < side == end and (bound is None or bound > end)
            for side, end, bound in zip(self.sides, ends, self.theoretical, strict=True)
        )

    def write(self, folder: Path) -> None:
        """Write context.json into a run folder; a receptive field without a bound is null."""
        plain = {
            "attention": self.attention,
            "length": self.length,
            "trained_length": self.trained_length,
            "nominal": self.theoretical.farthest,
            **{f"nominal_{side}": bound for side, bound in zip(SIDES, self.theoretical, strict=True)},
            "effective": self.effective,
            "at_least": self.at_least,
            **dict(zip(SIDES, self.sides, strict=True)),
            "threshold": self.threshold,
            "near": self.nearby,
            "noise": self.effects.noise,
            "windows": len(self.effects.left),
            "curve": _rows(self.larger),
            **{f"curve_{side}": _rows(curve) for side, curve in zip(SIDES, self.curves, strict=True)},
        }
        write_json(folder / FILE, plain, indent=1)

    def metrics(self) -> Metrics:
        """The main numbers for metrics.json; a receptive field without a bound is NaN."""
        bound = self.theoretical.farthest
        values = {"theoretical_receptive_field": float("nan") if bound is None else bound}
        values |= {"effective_context": self.effective, "noise": self.effects.noise, "windows": len(self.effects.left)}
        values |= {f"effective_context_{side}": value for side, value in zip(SIDES, self.sides, strict=True)}
        return Metrics({MetricKey("model", TEST, "all", name): value for name, value in values.items()})

    def sentence(self) -> str:
        """The result in a sentence or two."""
        bound = self.theoretical.farthest
        field = "has no bound" if bound is None else f"is {bound:,} bases at most"
        left, right = self.sides
        more = " The farthest distance tested still has an effect: test longer windows." if self.at_least else ""
        return (
            f"The theoretical receptive field {field}. The effective context is {self._effective()} bases ({left:,} to"
            f" the left, {right:,} to the right): up to there one base changes an output by more than"
            f" {self.threshold:.1%} of the largest change within a few bases ({self.nearby:.3g} in logits; rounding"
            f" alone {self.effects.noise:.1g}).{more}"
        )

    def _effective(self) -> str:
        return f"at least {self.effective:,}" if self.at_least else f"{self.effective:,}"

    def table(self) -> Table:
        """The change at each distance, to the left and to the right, with its interval over windows."""
        cells = [{row[0]: f"{row[1]:.2e} [{row[2]:.2e}–{row[3]:.2e}]" for row in _rows(curve)} for curve in self.curves]
        distances = sorted({*cells[0], *cells[1]})
        rows = [[f"{distance:,}", *(side.get(distance, "–") for side in cells)] for distance in distances]
        title = f"Changes of the outputs with one base, attention={self.attention}"
        return Table(title, ("distance (bases)", "to the left [95 %]", "to the right [95 %]"), rows)

    def plot(self, file: Path) -> None:
        """Change against distance on both sides, with the theoretical and the effective context."""
        floor = max(self.effects.noise, 1e-9)
        with panel_in(file, 7.0, 4.0) as panel:
            for side, curve, style in zip(SIDES, self.curves, ("o-", "s-"), strict=True):
                change, low, high = (values.clip(floor) for values in curve[1:])
                panel.plot(curve.distances, change, style, ms=3, label=f"a base to the {side}")
                panel.fill_between(curve.distances, low, high, alpha=0.25)
            nearby = f"{self.threshold:.1%} of the changes nearby"
            panel.axhline(self.threshold * self.nearby, color="0.5", ls=":", label=nearby)
            if self.effective:
                panel.axvline(self.effective, color="k", label=f"effective: {self._effective()}")
            if bound := self.theoretical.farthest:
                panel.axvline(bound, color="k", ls="--", label=f"theoretical: {bound:,}")
            panel.set(xscale="log", yscale="log", xlabel="distance (bases)", ylabel="change of an output (logits)")
            windows = f"{len(self.effects.left)} windows, mean and 95 % interval"
            panel.set_title(f"attention={self.attention}, {windows}", fontsize=9)


def _rows(curve: EffectCurve) -> Sequence[tuple[int, float, float, float]]:
    return list(zip(*(column.tolist() for column in curve), strict=True))
