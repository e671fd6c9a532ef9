"""The page of the study of measured effects: tables, tests between layers, and what came of its hypotheses."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from benchmarks.studies.variants import (
    CHECKPOINT,
    LAYERS,
    LONG,
    LONG_LAYERS,
    MORE_STEPS,
    SETS,
    SHORT,
    STEPS,
    TUNED_STEPS,
)
from genoattn.comparison.statistics import Difference, Estimate, SeedRun, compare_layers, estimate
from genoattn.evaluation.bootstrap import resample
from genoattn.evaluation.report import Table, with_interval

RESAMPLES = 2_000
Rows: TypeAlias = Sequence[Mapping[str, Any]]
PUBLISHED = {
    ("brca1", "logistic regression"): "0.651 (0.597–0.774)",
    ("brca1", "cadd"): "0.817",
    ("brca1", "phylop"): "0.793",
    ("sars2", "logistic regression"): "0.721 (0.617–0.833)",
    ("sars2", "consequence"): "0.757",
}
"""AUROC of data/README.md."""


class Setting(NamedTuple):
    """The kind of a model: all of it but its fold and its seed."""

    set: str
    layer: str
    length: int = SHORT
    target: str = "class"
    start: str = "nothing"
    steps: int = STEPS


class Measured:
    """The figures of every group by setting and seed, folds put together; seeds that lack a fold are left out."""

    def __init__(self, rows: Rows):
        self.rows, found = rows, defaultdict(lambda: defaultdict(dict))
        for row in rows:
            if "groups" in row:
                setting = Setting(*(row[name] for name in Setting._fields))
                found[setting][row["seed"]] |= row["groups"]
            for name, groups in row.get("answers", {}).items():
                found[Setting(row["set"], name)][row["seed"]] |= groups
        most = {
            name: max((len(own) for one in found if one.set == name for own in found[one].values()), default=0)
            for name in SETS
        }
        self.figures = {
            setting: complete
            for setting, seeds in found.items()
            if (complete := {seed: own for seed, own in seeds.items() if len(own) == most[setting.set]})
        }

    def runs(self, setting: Setting, metric: str = "auroc", seeds: Sequence[int] | None = None) -> list[SeedRun]:
        """A run a seed; its score is the mean over groups, its replicates draw groups."""
        runs = []
        for seed, groups in self.figures.get(setting, {}).items():
            if seeds is None or seed in seeds:
                values = np.array([groups[name][metric] for name in sorted(groups)])
                weights = resample(sorted(groups), RESAMPLES, least=2).weights
                runs.append(SeedRun(float(values.mean()), weights @ values / len(values)))
        return runs

    def estimate(self, setting: Setting, metric: str = "auroc") -> Estimate | None:
        return estimate(self.runs(setting, metric))

    def mean(self, setting: Setting) -> float:
        """The mean AUROC; NaN without a run."""
        found = self.estimate(setting)
        return found.mean if found else np.nan

    def layers(self, name: str, length: int = SHORT) -> list[Setting]:
        """The layers of a set that have a run, the best first."""
        own = [Setting(name, layer, length) for layer in LAYERS if Setting(name, layer, length) in self.figures]
        return sorted(own, key=lambda setting: -self.mean(setting))

    def rivals(self, name: str) -> list[Setting]:
        """Baselines and rivals of a set, the best first."""
        models = {*LAYERS, "language"}
        own = [one for one in self.figures if one.set == name and one.layer not in models]
        return sorted(own, key=lambda setting: -self.mean(setting))

    def difference(self, first: Setting, second: Setting, seeds: Sequence[int] | None = None) -> Difference | None:
        """The first setting minus the second, over groups and seeds; a rival counts as often as there are seeds."""
        one, other = self.runs(first, seeds=seeds), self.runs(second, seeds=seeds)
        if not one or not other:
            return None
        size = max(len(one), len(other))
        named = {"first": one * (size // len(one)), "second": other * (size // len(other))}
        pair = compare_layers(named).differences[0]
        return pair if pair.first == "first" else replace(pair, mean=-pair.mean, low=-pair.high, high=-pair.low)


def reproduced(rows: Rows) -> Table:
    """The figures of the data beside those of its description."""
    lines = []
    for row in rows:
        if row["layer"] == "reproduced":
            for name, own in row["figures"].items():
                spread = f"{own['auroc']:.3f} ({own['least']:.3f}–{own['most']:.3f})"
                known = PUBLISHED.get((row["set"], name), "")
                lines.append([row["set"], name, f"{row['variants']:,}", spread, known, f"{own['auprc']:.3f}"])
    columns = ["set", "method", "variants", "AUROC (least and most of a group)", "known", "AUPRC"]
    return Table("reproduced", columns, lines, texts=2)


def layers(measured: Measured, name: str) -> Table:
    """Layers at both contexts, and rivals, the best first."""
    settings = [*measured.layers(name), *measured.layers(name, LONG), *measured.rivals(name)]
    lines = []
    for one in sorted(settings, key=lambda setting: -measured.mean(setting)):
        model = one.layer in LAYERS
        own = [row for row in measured.rows if "parameters" in row and Setting(*(row[f] for f in one._fields)) == one]
        cells = [f"{one.length:,}", str(len(measured.figures[one])), f"{own[0]['parameters']:,}"] if model else [""] * 3
        others = [measured.estimate(one, metric) for metric in ("auprc", "spearman")]
        seconds = f"{np.mean([row['seconds'] for row in own]):.0f}" if own else ""
        label = f"`{one.layer}`" if model else one.layer.replace("_", "-")
        figures = [_cell(measured.estimate(one)), *(f"{other.mean:.3f}" if other else "" for other in others)]
        lines.append([label, *cells, *figures, seconds])
    columns = ["method", "context", "seeds", "parameters", "AUROC [95 %]", "AUPRC", "Spearman", "seconds a run"]
    return Table(name, columns, lines)


def differences(measured: Measured) -> str:
    """A line on each set: groups of layers that do not differ, the largest difference, and what could be told."""
    lines = []
    for name in SETS:
        runs = {setting.layer: measured.runs(setting) for setting in measured.layers(name)}
        if len(runs) < 2:
            continue
        found = compare_layers(runs)
        pair = min(found.differences, key=lambda one: one.p)
        width = np.median([(one.high - one.low) / 2 for one in found.differences])
        groups = " / ".join(", ".join(f"`{layer}`" for layer in group) for group in found.groups)
        lines.append(
            f"- **{name}**, {SHORT} bases: not told apart: {groups}. The clearest pair, `{pair.first}` over"
            f" `{pair.second}`: {_signed(pair)}, p {pair.p:.2g}, {pair.adjusted_p:.2g} after Holm's correction for"
            f" {len(found.differences)} pairs. The interval of a pair is ± {width:.3f} (median); to tell smaller"
            " differences would need more groups or seeds."
        )
    return "\n".join(lines)


def contexts(measured: Measured) -> Table:
    """The longer context minus the shorter one, the first seed of both."""
    lines = []
    for name in SETS:
        for layer in LONG_LAYERS[name]:
            pair = measured.difference(Setting(name, layer, LONG), Setting(name, layer), seeds=[0])
            if pair:
                lines.append([name, f"`{layer}`", _signed(pair)])
    return Table("context", ["set", "layer", f"AUROC at {LONG} minus at {SHORT} bases [95 %]"], lines, texts=2)


def others(measured: Measured) -> Table:
    """The pretrained model and the number as target."""
    lines = []
    for name in SETS:
        cells: list[tuple[str, Setting]] = [
            ("`language`, zero-shot", Setting(name, "zero_shot")),
            ("`language`, fine-tuned", Setting(name, "language", start=CHECKPOINT, steps=TUNED_STEPS)),
            ("the same model from nothing", Setting(name, "language", steps=TUNED_STEPS)),
            ("`none`, learning the class", Setting(name, "none")),
            (f"`none`, {MORE_STEPS} steps for {STEPS}", Setting(name, "none", steps=MORE_STEPS)),
            ("`none`, learning the number", Setting(name, "none", target="score")),
        ]
        for label, setting in cells:
            found = [measured.estimate(setting, metric) for metric in ("auroc", "auprc", "spearman")]
            if found[0] and found[1] and found[2]:
                lines.append([name, label, _cell(found[0]), f"{found[1].mean:.3f}", _cell(found[2])])
    return Table("others", ["set", "model", "AUROC [95 %]", "AUPRC", "Spearman [95 %]"], lines, texts=2)


def outcomes(measured: Measured) -> Table:
    """The hypotheses, what was measured and whether they held; "open" where runs are missing."""
    near = _between(measured, {"brca1": (0.6, 0.7), "sars2": (0.7, 0.76)}, list(LAYERS))
    blind = _between(measured, {"brca1": (0.45, 0.55), "sars2": (0.45, 0.6)}, ["zero_shot"])
    lines = [
        ["1. No two layers differ significantly", *_tell(_pairs(measured), lambda found: not found[1])],
        ["2. Every layer 0.1 or more below every rival", *_tell(_behind(measured), lambda found: found[1] <= -0.1)],
        ["2. Layers lie at 0.60 to 0.70 (BRCA1) and 0.70 to 0.76 (SARS-CoV-2)", *_tell(near, lambda found: found[1])],
        [f"3. {LONG} bases move no layer by more than 0.02", *_tell(_moved(measured), lambda found: found[1] <= 0.02)],
        ["4. Zero-shot is 0.45 to 0.55 (BRCA1) and 0.45 to 0.60 (SARS-CoV-2)", *_tell(blind, lambda found: found[1])],
        ["4. Fine-tuning gains less than 0.03", *_tell(_gained(measured), lambda found: found[1] < 0.03)],
        ["5. The number orders as well as the class, within 0.02", *_tell(_number(measured), lambda x: x[1] <= 0.02)],
    ]
    return Table("outcomes", ["hypothesis", "measured", "held"], lines, texts=3)


Found: TypeAlias = tuple[str, Any]


def _tell(found: Found | None, holds: Callable[[Found], bool]) -> list[str]:
    return ["", "open"] if found is None else [found[0], "yes" if holds(found) else "no"]


def _pairs(measured: Measured) -> Found | None:
    texts, told = [], []
    for name in SETS:
        runs = {setting.layer: measured.runs(setting) for setting in measured.layers(name)}
        if len(runs) < len(LAYERS) or any(len(seeds) < 2 for seeds in runs.values()):
            return None
        found = compare_layers(runs).differences
        told += [pair for pair in found if pair.significant]
        texts.append(f"{name}: {sum(pair.significant for pair in found)} of {len(found)} pairs")
    return "; ".join(texts), told


def _behind(measured: Measured) -> Found | None:
    texts, least = [], []
    for name in SETS:
        if not measured.layers(name):
            return None
        best = measured.layers(name)[0]
        for rival in ("consequence", "cadd", "phylop") if name == "brca1" else ("consequence",):
            pair = measured.difference(best, Setting(name, rival))
            if pair is None:
                return None
            least.append(pair.mean)
            texts.append(f"{name}: the best, `{best.layer}`, to {rival} {_signed(pair)}")
    return "; ".join(texts), max(least)


def _between(measured: Measured, expected: Mapping[str, tuple[float, float]], layers: Sequence[str]) -> Found | None:
    """The least and the most mean of some layers, and whether all lie within what was expected."""
    texts, inside = [], []
    for name, (low, high) in expected.items():
        own = [measured.mean(Setting(name, layer)) for layer in layers]
        if np.isnan(own).any():
            return None
        texts.append(f"{name}: {min(own):.3f} to {max(own):.3f}" if len(own) > 1 else f"{name}: {own[0]:.3f}")
        inside.append(low <= min(own) and max(own) <= high)
    return "; ".join(texts), all(inside)


def _over(measured: Measured, pairs: Sequence[tuple[str, Setting, Setting]], size: Callable[[float], float]) -> Any:
    found = [(label, measured.difference(first, second, seeds=[0])) for label, first, second in pairs]
    if any(pair is None for _, pair in found):
        return None
    known = [(label, pair) for label, pair in found if pair]
    return "; ".join(f"{label}: {_signed(pair)}" for label, pair in known), max(size(pair.mean) for _, pair in known)


def _moved(measured: Measured) -> Found | None:
    pairs = [(f"{n}, `{la}`", Setting(n, la, LONG), Setting(n, la)) for n in SETS for la in LONG_LAYERS[n]]
    return _over(measured, pairs, abs)


def _gained(measured: Measured) -> Found | None:
    nothing = {name: Setting(name, "language", steps=TUNED_STEPS) for name in SETS}
    return _over(measured, [(name, one._replace(start=CHECKPOINT), one) for name, one in nothing.items()], float)


def _number(measured: Measured) -> Found | None:
    return _over(measured, [(name, Setting(name, "none", target="score"), Setting(name, "none")) for name in SETS], abs)


def result(measured: Measured) -> str:
    """The result in a sentence for each set."""
    texts = []
    for name in SETS:
        own = measured.layers(name)
        if measured.rivals(name):
            named = [(one.layer.replace("_", "-"), measured.mean(one)) for one in measured.rivals(name)]
            rivals = ", ".join(f"{label} {mean:.3f}" for label, mean in named)
            means = [measured.mean(one) for one in own]
            layers = (
                f"layers from {min(means):.3f} to {max(means):.3f} (`{own[0].layer}`)"
                if own
                else "no layer has run yet"
            )
            texts.append(f"{name}: {layers}; {rivals}.")
    return "Mean AUROC of groups that were left out. " + " ".join(texts)


def values(rows: Rows) -> dict[str, Any]:
    """The functions that the template of the page may call, by name."""
    measured = Measured(rows)
    return {
        "runs": len(rows),
        "core_minutes": round(sum(row["seconds"] for row in rows) / 60),
        "result_of_variants": lambda: result(measured),
        "reproduced": lambda: reproduced(rows).markdown(),
        "variant_layers": lambda name: layers(measured, name).markdown(),
        "differences": lambda: differences(measured),
        "contexts": lambda: contexts(measured).markdown(),
        "other_models": lambda: others(measured).markdown(),
        "outcomes": lambda: outcomes(measured).markdown(),
    }


def _cell(found: Estimate | None) -> str:
    return "" if found is None else with_interval(found.mean, found.low, found.high)


def _signed(pair: Difference) -> str:
    return f"{pair.mean:+.3f} [{pair.low:+.3f} to {pair.high:+.3f}]"
